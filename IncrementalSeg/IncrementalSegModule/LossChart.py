"""The losses of a running update as a small picture, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import qt
from slicer.i18n import tr as _

from .Gui import isDark

WIDTH, HEIGHT = 370, 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 8, 26, 20
_MOST = 300  # points of a curve
_SAMPLE, _APART = 26, 60  # pixels: a line in the legend, from mark to mark
_HALF = 3  # pixels, of a mark
_STROKES = {"triangle": [(-3, 3, 3, 3), (3, 3, 0, -3), (0, -3, -3, 3)], "cross": [(-3, -3, 3, 3), (-3, 3, 3, -3)]}

Losses = Sequence[tuple[int, dict[str, float]]]
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Style:
    """How a curve looks: by dashes and marks too, so that nobody has to tell colours apart."""

    dashes: str  # name of a Qt.PenStyle
    mark: str
    onLight: str
    onDark: str


_TOTAL = Style("SolidLine", "", "#000000", "#ffffff")
_PARTS = (
    Style("DashLine", "circle", "#0b5fa5", "#7cc4ff"),
    Style("DotLine", "square", "#a84300", "#ffb070"),
    Style("DashDotLine", "triangle", "#00694a", "#6fd8a8"),
    Style("DashDotDotLine", "cross", "#7a3a9a", "#d9a8f0"),
)


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A look for every part of the loss; the total is a plain line, left out where it is the only part again."""
    parts = sorted(name for name in names if name != "total")
    looks = {name: _PARTS[number % len(_PARTS)] for number, name in enumerate(parts)}
    return looks | ({"total": _TOTAL} if "total" in names and len(parts) != 1 else {})


def lossChart(losses: Losses, widget: Any) -> Any:
    """A pixmap in the colours of ``widget`` with a smoothed curve per part of the loss over training steps."""
    dark = isDark(widget)
    picture = qt.QPixmap(WIDTH, HEIGHT)
    picture.fill(widget.palette.color(qt.QPalette.Base))
    names = sorted({name for step, parts in losses for name in parts})
    curves = {
        name: _smooth([(step, parts[name]) for step, parts in losses if parts.get(name) is not None])
        for name in styles(names)
    }
    points = [point for curve in curves.values() for point in curve]
    if points:
        painter = qt.QPainter(picture)
        painter.setRenderHint(qt.QPainter.Antialiasing)
        painter.setPen(qt.QPen(widget.palette.color(qt.QPalette.Text)))
        _draw(painter, curves, max(step for step, value in points), max(value for step, value in points) or 1.0, dark)
        painter.end()
    return picture


def lossText(losses: Losses) -> str:
    """The same in a sentence: the newest figure of every part."""
    if not losses:
        return ""
    step, parts = losses[-1]
    figures = ", ".join(f"{_title(name)} {parts[name]:.2f}" for name in styles(list(parts)) if parts[name] is not None)
    return _("Error at step {step}, lower is better: {figures}.").format(step=step, figures=figures)


def _draw(painter: Any, curves: dict[str, Curve], last: float, most: float, dark: bool) -> None:
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    painter.drawLine(_LEFT, _TOP + height, _LEFT + width, _TOP + height)
    painter.drawLine(_LEFT, _TOP, _LEFT, _TOP + height)
    painter.drawText(2, _TOP + 8, f"{most:.2f}")
    painter.drawText(2, _TOP + height, "0")
    words = _("error while learning, up to step {step}: lower is better").format(step=f"{last:.0f}")
    painter.drawText(_LEFT, HEIGHT - 5, words)
    legend, text = _LEFT, qt.QPen(painter.pen())
    for name, style in styles(list(curves)).items():
        title = _title(name)
        painter.setPen(text)
        painter.drawText(legend + _SAMPLE + 5, 15, title)
        sample = [(legend, 11), (legend + _SAMPLE // 2, 11), (legend + _SAMPLE, 11)]
        _line(painter, sample, style, dark, [sample[1]])
        legend += _SAMPLE + 20 + painter.fontMetrics().boundingRect(title).width()
        places = [
            (int(_LEFT + width * step / max(last, 1)), int(_TOP + height * (1 - value / most)))
            for step, value in curves[name]
        ]
        _line(painter, places, style, dark, _marked(places))


def _line(painter: Any, places: list[tuple[int, int]], style: Style, dark: bool, marks: list[tuple[int, int]]) -> None:
    """A line through places (pixels) with marks on some of them."""
    pen = qt.QPen(qt.QColor(style.onDark if dark else style.onLight))
    pen.setWidth(2)
    painter.setPen(pen)
    for x, y in marks:
        _mark(painter, style.mark, x, y)
    pen.setStyle(getattr(qt.Qt, style.dashes))
    painter.setPen(pen)
    path = qt.QPainterPath()
    path.moveTo(*places[0])
    for place in places[1:]:  # as one path: dashes would begin anew with every piece
        path.lineTo(*place)
    painter.drawPath(path)


def _mark(painter: Any, mark: str, x: int, y: int) -> None:
    a = _HALF
    if mark == "circle":
        painter.drawEllipse(x - a, y - a, 2 * a, 2 * a)
    elif mark == "square":
        painter.drawRect(x - a, y - a, 2 * a, 2 * a)
    elif mark:
        for x1, y1, x2, y2 in _STROKES[mark]:
            painter.drawLine(x + x1, y + y1, x + x2, y + y2)


def _marked(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places that lie a mark's distance apart."""
    found: list[tuple[int, int]] = []
    for place in places:
        if not found or place[0] - found[-1][0] >= _APART:
            found.append(place)
    return found


def _title(name: str) -> str:
    """What a part of the loss is called."""
    names = {"seg": _("annotations"), "kd": _("old organs"), "total": _("both")}
    return names.get(name, name)


def _smooth(curve: list[tuple[int, float]]) -> Curve:
    """Means over neighbouring points, so that at most `_MOST` are drawn and single batches do not hide the course."""
    size = max(1, len(curve) // 40, -(-len(curve) // _MOST))
    groups = [curve[first : first + size] for first in range(0, len(curve), size)]
    return [(group[-1][0], sum(value for step, value in group) / len(group)) for group in groups]
