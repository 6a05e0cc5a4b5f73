"""The Markdown tables of a benchmark: means with intervals, forgetting and cost, every organ, every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..comparison import BASE, case_scores, counted_organs, interval, per_organ, strategy_means
from ..report import decimals, markdown_table

_MEANS = ("old", "new", "all")
_SHARES = ("retention", "of_joint", "forgetting", "most_forgotten")


def benchmark_report(rows: Iterable[Mapping[str, Any]], cases: Iterable[Mapping[str, Any]], ours: str = "full") -> str:
    """All tables as Markdown.

    Args:
        rows: benchmark rows of one protocol.
        cases: the rows per case of the same runs.
        ours: the strategy that the others are compared with, case by case.

    Raises:
        InputError: there are no rows, or rows of several protocols.
    """
    rows, cases = list(rows), list(cases)
    means = strategy_means(rows)
    parts = [
        means_table(means, counted_organs(rows), cases, ours),
        organ_table(means, "dsc", 3),
        organ_table(means, "hd95", 1),
    ]
    if max(int(row["step"]) for row in rows) > 1:
        parts.append(step_table(rows, list(means)))
    return "\n\n".join(parts)


def means_table(
    means: Mapping[str, Mapping[str, Any]],
    counted: Mapping[str, Sequence[str]],
    cases: Sequence[Mapping[str, Any]],
    ours: str,
) -> str:
    """One line per strategy: means with 95 % bootstrap intervals over cases, what was kept and forgotten, the cost."""
    head = ["Strategy", *(f"Mean {part} [95 %]" for part in _MEANS), f"All against {ours} [95 %]"]
    head += ["Retention (%)", "% of joint", "Forgetting (points)", "Worst organ", "Seconds", "Peak MB"]
    lines = []
    for name, line in means.items():
        shares = [None if line[key] is None else 100 * line[key] for key in _SHARES]
        cells = [_with_interval(line[part], cases, name, counted[part]) for part in _MEANS]
        cells.append(_difference(cases, name, ours, counted["all"]) if name not in (ours, BASE) else "—")
        cost = [decimals(line[key], 0) for key in ("seconds", "peak_memory_mb")]
        lines.append([name, *cells, *(decimals(share, 1) for share in shares), *cost])
    return markdown_table(head, lines)


def _with_interval(mean: float | None, cases: Sequence[Mapping[str, Any]], name: str, organs: Sequence[str]) -> str:
    found = interval(case_scores(cases, name, organs))
    return decimals(mean, 3) + (f" [{found[1]:.3f}, {found[2]:.3f}]" if found and mean is not None else "")


def _difference(cases: Sequence[Mapping[str, Any]], name: str, ours: str, organs: Sequence[str]) -> str:
    """Mean difference to our strategy on the same cases, seeds and organs, in points of DSC."""
    theirs, mine = (case_scores(cases, strategy, organs) for strategy in (name, ours))
    found = interval({key: 100 * (theirs[key] - mine[key]) for key in theirs if key in mine})
    return f"{found[0]:+.1f} [{found[1]:+.1f}, {found[2]:+.1f}]" if found else "—"


def organ_table(means: Mapping[str, Mapping[str, Any]], metric: str, digits: int) -> str:
    """One line per strategy, one column per organ: DSC or HD95 (mm) after the last step."""
    organs = list(dict.fromkeys(organ for line in means.values() for organ in line[metric]))
    unit = "HD95 (mm)" if metric == "hd95" else metric.upper()
    lines = [[name, *(decimals(line[metric].get(o), digits) for o in organs)] for name, line in means.items()]
    return markdown_table([unit, *organs], lines)


def step_table(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> str:
    """One line per strategy and step: DSC of every organ known by then."""
    organs = list(dict.fromkeys(row["organ"] for row in sorted(rows, key=lambda row: int(row["step"]))))
    lines = []
    for name in names:
        own = [row for row in rows if row["strategy"] == name]
        for step in sorted({int(row["step"]) for row in own}):
            found = per_organ(own, "dsc", step)
            lines.append([name, str(step), *(decimals(found.get(organ), 3) for organ in organs)])
    return markdown_table(["Strategy", "Step", *organs], lines)
