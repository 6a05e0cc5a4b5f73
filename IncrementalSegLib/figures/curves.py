"""Curves: quality over seconds, DSC over the steps of a protocol."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ..comparison import BASE, is_reference, per_organ
from .bars import AFTER, EXTRA
from .canvas import QUIET, TEXT, legend_below, new_figure, save_figure

_PANELS = (("DSC against the requested masks", "linear"), ("Feature distance R", "log"))


def plot_quality_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], yardstick: str, path: str | os.PathLike[str]
) -> None:
    """DSC and feature distance of recipes over seconds (logarithmic), a dashed line where the yardstick ends.

    Args:
        curves: (seconds, DSC, R) in order of time, by recipe.
        yardstick: the recipe that the others are compared with; it may be missing.
        path: file to write; the suffix decides the format.

    Raises:
        InputError: matplotlib is missing.
        StorageError: the file cannot be written.
    """
    figure = new_figure(3.6)
    panels = figure.subplots(1, 2)
    colors = dict(zip((name for name in curves if name != yardstick), (AFTER, *EXTRA), strict=False))
    colors[yardstick] = QUIET
    for number, (axes, (title, scale)) in enumerate(zip(panels, _PANELS, strict=True), start=1):
        for name, points in curves.items():
            later = [point for point in points if point[0] > 0]
            style = {"color": colors[name], "linewidth": 1.8, "marker": "o", "markersize": 2.5}
            axes.plot([point[0] for point in later], [point[number] for point in later], label=name, **style)
        if yardstick in curves:
            axes.axhline(curves[yardstick][-1][number], color=TEXT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xscale="log", yscale=scale)
        axes.set_title(title, loc="left", fontsize=11, color=TEXT, fontweight="bold")
        _quiet(axes)
    legend_below(figure, *panels[0].get_legend_handles_labels())
    save_figure(figure, path)


def plot_steps(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Mean DSC after every step, one line per strategy: of the base model's organs, and of all organs known by then.

    As Fig. 4 of the PGCD + DAPD paper. A strategy that is trained at once (``joint``) is a mark at the last step.

    Args:
        rows: benchmark rows of one protocol.
        path: file to write; the suffix decides the format.

    Raises:
        InputError: matplotlib is missing.
        StorageError: the file cannot be written.
    """
    rows = list(rows)
    base = [row for row in rows if row["strategy"] == BASE]
    names = [name for name in dict.fromkeys(row["strategy"] for row in rows) if name != BASE]
    first = {row["organ"] for row in base}
    figure = new_figure(3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, wanted in zip(
        panels, ("Organs of the base model", "All organs known"), (first, None), strict=True
    ):
        for number, name in enumerate(names):
            points = _step_means([row for row in rows if row["strategy"] == name], base, wanted)
            style = {"color": _LINES[number % len(_LINES)], "marker": _MARKS[number % len(_MARKS)], "markersize": 5}
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1.6, **style) if points else None
        axes.set_title(title, loc="left", fontsize=11, color=TEXT, fontweight="bold")
        axes.set_xticks(range(1 + max(int(row["step"]) for row in rows)))
        _quiet(axes, "Step")
    panels[0].set_ylabel("Mean DSC", fontsize=10, color=TEXT)
    legend_below(figure, *panels[0].get_legend_handles_labels())
    save_figure(figure, path)


_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#222222", "#8C8C8C", "#B79F00")
_MARKS = "osD^vPX*<>h"


def _step_means(
    own: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]], wanted: set[str] | None
) -> list[tuple[int, float]]:
    """(step, mean DSC) of a strategy, from the base model on where it goes on from that one."""
    start = list(own) if is_reference(own[0]["strategy"]) else [*base, *own]
    points = []
    for step in sorted({int(row["step"]) for row in start}):
        found = per_organ(start, "dsc", step)
        chosen = [value for organ, value in found.items() if wanted is None or organ in wanted]
        points += [(step, fmean(chosen))] if chosen else []
    return points


def _quiet(axes: Any, label: str = "Seconds") -> None:
    axes.set_xlabel(label, fontsize=10, color=TEXT)
    axes.tick_params(labelsize=9, colors=QUIET)
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
