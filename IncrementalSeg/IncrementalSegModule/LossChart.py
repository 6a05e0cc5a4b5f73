"""The losses of a running update as a small picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import qt
from slicer.i18n import tr as _

WIDTH, HEIGHT = 370, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 8, 22, 18
_COLORS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#17becf"]
_MOST = 300  # points of a curve


def lossChart(losses: Sequence[tuple[int, dict[str, float]]]) -> Any:
    """A pixmap with a curve per part of the loss over training steps, smoothed, the total in black."""
    picture = qt.QPixmap(WIDTH, HEIGHT)
    picture.fill(qt.QColor("white"))
    names = sorted({name for step, parts in losses for name in parts}, key=lambda name: (name == "total", name))
    curves = {
        name: _smooth([(step, parts[name]) for step, parts in losses if parts.get(name) is not None]) for name in names
    }
    points = [point for curve in curves.values() for point in curve]
    if points:
        painter = qt.QPainter(picture)
        painter.setRenderHint(qt.QPainter.Antialiasing)
        _draw(painter, curves, max(step for step, value in points), max(value for step, value in points) or 1.0)
        painter.end()
    return picture


def _draw(painter: Any, curves: dict[str, list[tuple[float, float]]], last: float, most: float) -> None:
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    painter.setPen(qt.QPen(qt.QColor("#999999")))
    painter.drawLine(_LEFT, _TOP + height, _LEFT + width, _TOP + height)
    painter.drawLine(_LEFT, _TOP, _LEFT, _TOP + height)
    painter.drawText(2, _TOP + 8, f"{most:.2f}")
    painter.drawText(2, _TOP + height, "0")
    words = _("error while learning, up to step {step}: lower is better").format(step=f"{last:.0f}")
    painter.drawText(_LEFT, HEIGHT - 4, words)
    legend = _LEFT
    for number, (name, curve) in enumerate(curves.items()):
        color = qt.QColor("black" if name == "total" else _COLORS[number % len(_COLORS)])
        painter.setPen(qt.QPen(color))
        painter.drawText(legend, 14, _title(name))
        legend += 12 + 7 * len(_title(name))
        places = [(_LEFT + width * step / max(last, 1), _TOP + height * (1 - value / most)) for step, value in curve]
        for (x1, y1), (x2, y2) in pairwise(places):
            painter.drawLine(int(x1), int(y1), int(x2), int(y2))


def _title(name: str) -> str:
    """What a part of the loss is called."""
    names = {"seg": _("annotations"), "kd": _("old organs"), "total": _("both")}
    return names.get(name, name)


def _smooth(curve: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """Means over neighbouring points, so that at most `_MOST` are drawn and single batches do not hide the course."""
    size = max(1, len(curve) // 40, -(-len(curve) // _MOST))
    groups = [curve[first : first + size] for first in range(0, len(curve), size)]
    return [(group[-1][0], sum(value for step, value in group) / len(group)) for group in groups]
