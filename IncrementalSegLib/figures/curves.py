"""Curves: quality over seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

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


def _quiet(axes: Any) -> None:
    axes.set_xlabel("Seconds", fontsize=10, color=TEXT)
    axes.tick_params(labelsize=9, colors=QUIET)
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
