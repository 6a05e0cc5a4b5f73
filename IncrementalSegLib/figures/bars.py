"""Bars: DSC per organ before and after, and strategies side by side.

Series colours are those of Okabe and Ito, which people with colour-blindness can tell apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..comparison import BASE, JOINT, strategy_means
from ..errors import InputError
from ..report import is_annotated, is_lost, is_not_learned
from .canvas import QUIET, TEXT, legend_below, new_figure, save_figure

BEFORE, AFTER, EXTRA = "#B4C2CF", "#0072B2", ("#E69F00", "#CC79A7", "#009E73")


class _Bar(NamedTuple):
    """A bar of a group: legend text, value (None: nothing measured), colour, words behind the value, hatch."""

    label: str
    value: float | None
    color: str
    words: str = ""
    hatch: str = ""


def plot_organ_bars(
    report: Mapping[str, Any],
    path: str | os.PathLike[str],
    extra: Mapping[str, Mapping[str, float | None]] | None = None,
) -> None:
    """DSC per organ before and after the step as horizontal bars, old organs above new ones.

    A lost or unlearned organ is marked in words. Where an old organ is not annotated, its agreement is drawn, hatched.

    Args:
        report: content of ``report.json``.
        path: file to write; the suffix decides the format (png, svg, pdf).
        extra: further series beside it, for example ``{"fine-tune": {"Liver": 0.41}}`` by organ name or code.

    Raises:
        InputError: matplotlib is missing, or the report has no organs.
        StorageError: the file cannot be written.
    """
    organs = sorted(report["organs"], key=lambda organ: organ["role"] != "old")
    if not organs:
        raise InputError("The report lists no organ, so there is nothing to draw: evaluate the model first.")
    names = [f"{organ['name']} (new)" if organ["role"] == "new" else organ["name"] for organ in organs]
    groups = [_organ_bars(organ, extra or {}) for organ in organs]
    title = f"Verdict: {report['verdict']} ({report['strategy']})"
    figure, axes = _grouped_bars(list(zip(names, groups, strict=True)), "DSC on held-out scans", title)
    _legend(figure, axes)
    save_figure(figure, path)


def plot_strategies(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Mean DSC over old, new and all organs per strategy, best mean over all organs on top.

    The base model is a dashed line (it has no new organs); ``joint`` is named as the upper bound.

    Args:
        rows: benchmark rows of one protocol.
        path: file to write; the suffix decides the format.

    Raises:
        InputError: matplotlib is missing, or there are no rows of exactly one protocol.
        StorageError: the file cannot be written.
    """
    rows = list(rows)
    means = strategy_means(rows)
    base = means.pop(BASE, {}).get("old")
    series = (
        ("Mean of old organs", "old", AFTER),
        ("Mean of new organs", "new", EXTRA[0]),
        ("All organs", "all", QUIET),
    )
    groups = [
        (f"{name}\n(upper bound)" if name == JOINT else name, [_Bar(label, line[key], c) for label, key, c in series])
        for name, line in means.items()
    ]
    figure, axes = _grouped_bars(groups, "DSC", f"Protocol {rows[0]['protocol']}")
    if base is not None:
        style = {"color": TEXT, "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 2.5}
        axes.axvline(base, label=f"Base model, old organs ({base:.2f})", **style)
    _legend(figure, axes)
    save_figure(figure, path)


def _organ_bars(organ: Mapping[str, Any], extra: Mapping[str, Mapping[str, float | None]]) -> list[_Bar]:
    found = [values.get(organ["name"], values.get(organ["code"])) for values in extra.values()]
    others = [
        _Bar(name, value, EXTRA[i % len(EXTRA)]) for i, (name, value) in enumerate(zip(extra, found, strict=True))
    ]
    others = [bar for bar in others if bar.value is not None]
    if organ["role"] == "new":
        return [_Bar("After", organ["dsc_after"], AFTER, "NOT LEARNED" if is_not_learned(organ) else ""), *others]
    words = "LOST" if is_lost(organ) else ""
    if not is_annotated(organ):
        label = "Agreement of old and new model (not annotated)"
        return [_Bar(label, organ["agreement"], AFTER, words, "////"), *others]
    if words:
        words += f" (−{organ['dsc_before'] - organ['dsc_after']:.2f})"
    return [_Bar("Before", organ["dsc_before"], BEFORE), _Bar("After", organ["dsc_after"], AFTER, words), *others]


def _grouped_bars(groups: Sequence[tuple[str, Sequence[_Bar]]], unit: str, title: str) -> tuple[Any, Any]:
    """Figure and axes with named groups of horizontal bars from 0 to 1, top to bottom."""
    figure = new_figure(1.3 + 0.22 * sum(len(bars) + 0.7 for _, bars in groups))
    axes = figure.add_subplot()
    top, ticks = 0.0, []
    for _, bars in groups:
        for row, bar in enumerate(bars):
            _draw_bar(axes, top + row, bar)
        ticks.append(top + (len(bars) - 1) / 2)
        top += len(bars) + 0.7
    axes.set_yticks(ticks, [name for name, _ in groups], fontsize=10, color=TEXT)
    axes.set(ylim=(top - 0.9, -0.8), xlim=(0.0, 1.22 if any(bar.words for _, bars in groups for bar in bars) else 1.07))
    axes.set_title(title, loc="left", fontsize=11, color=TEXT, fontweight="bold")
    _unit_axis(axes, unit)
    return figure, axes


def _draw_bar(axes: Any, y: float, bar: _Bar) -> None:
    """A horizontal bar with its value, and any words, at its end."""
    style = {"color": "white", "edgecolor": bar.color, "hatch": bar.hatch} if bar.hatch else {"color": bar.color}
    axes.barh(y, bar.value or 0.0, height=0.86, label=bar.label, zorder=2, **style)
    number = "not measured" if bar.value is None else f"{bar.value:.2f}"
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    at = {"textcoords": "offset points", "va": "center", "fontsize": 9, "color": TEXT, "bbox": paper, "zorder": 3}
    axes.annotate(number, (bar.value or 0.0, y), (4, 0), **at)
    if bar.words:
        axes.annotate(
            bar.words, (bar.value or 0.0, y), (30 if bar.value is not None else 75, 0), fontweight="bold", **at
        )


def _unit_axis(axes: Any, label: str) -> None:
    axes.set_xticks(np.linspace(0.0, 1.0, 6))
    axes.tick_params(axis="x", labelsize=9, colors=QUIET)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label, fontsize=10, color=TEXT)
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.8, zorder=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(QUIET)


def _legend(figure: Any, axes: Any) -> None:
    """One entry per series below the figure, bars before lines."""
    handles, names = axes.get_legend_handles_labels()
    entries = sorted(dict(zip(names, handles, strict=True)).items(), key=lambda entry: not hasattr(entry[1], "patches"))
    legend_below(figure, [artist for _, artist in entries], [name for name, _ in entries])
