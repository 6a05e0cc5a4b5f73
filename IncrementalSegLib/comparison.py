"""Benchmark results of several strategies: the rows of the CSV and the table that compares them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from .errors import InputError
from .evaluation import Summary, retention
from .organs import OrganTable
from .report import csv_text, decimals, markdown_table, rounded_row
from .storage import write_text

COLUMNS = (
    *("protocol", "strategy", "seed", "step", "organ", "role"),
    *("dsc", "hd95", "nsd", "cases", "seconds", "peak_memory_mb"),
)
BASE, JOINT = "base", "joint"
_RUN = ("protocol", "strategy", "seed", "step", "seconds", "peak_memory_mb")


def benchmark_rows(
    run: Mapping[str, Any], table: OrganTable, new: Iterable[str], summary: Mapping[str, Summary]
) -> list[dict[str, Any]]:
    """Rows of the benchmark CSV of one strategy, seed and step: one per organ that was scored.

    Args:
        run: ``protocol``, ``strategy``, ``seed``, ``step``, ``seconds`` and ``peak_memory_mb`` of the run.
        table: organs of the model after the step.
        new: keys of the organs learned in the step; the others are old.
        summary: `evaluation.summarise` of the model on the evaluation cases.

    Raises:
        InputError: ``run`` lacks one of its six entries.
    """
    if missing := [entry for entry in _RUN if entry not in run]:
        raise InputError(f"The benchmark run does not say its {', '.join(missing)}: add what is missing.")
    learned = set(new)
    rows = []
    for organ in (organ for organ in table if organ.key in summary):
        row = {entry: run[entry] for entry in _RUN} | dict(summary[organ.key])
        row |= {"organ": organ.name, "role": "new" if organ.key in learned else "old"}
        rows.append(rounded_row({column: row[column] for column in COLUMNS}))
    return rows


def write_benchmark_csv(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write benchmark rows under the header of the contract.

    Raises:
        StorageError: the file cannot be written.
    """
    write_text(Path(path), csv_text(COLUMNS, rows))


def comparison_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: one line per strategy at its last step, seeds averaged; ``base`` first, then the best mean first.

    Raises:
        InputError: there are no rows, or rows of several protocols.
    """
    means = strategy_means(rows)
    organs = list(dict.fromkeys(organ for line in means.values() for organ in line["dsc"]))
    head = ["Strategy", *organs, "Mean old", "Mean new", "Mean all", "Retention (%)", "% of joint"]
    return markdown_table(head, [_table_line(name, line, organs) for name, line in means.items()])


def strategy_means(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per strategy at its last step: ``dsc`` per organ, means ``old``, ``new``, ``all``, ``retention``, ``of_joint``.

    Retention is the mean over old organs against the rows of the strategy ``base``; ``of_joint`` is the mean over all
    organs against that of ``joint``. None where those rows are missing or, for ``of_joint``, name other organs. Values
    may be text, as read from a CSV. ``base`` comes first, then the best mean over all organs first.

    Raises:
        InputError: there are no rows, or rows of several protocols.
    """
    rows = list(rows)
    if len(protocols := {row["protocol"] for row in rows}) != 1:
        raise InputError(f"A comparison needs the rows of one protocol, and these are of {len(protocols)}: choose one.")
    last = {name: _last_step(rows, name) for name in dict.fromkeys(row["strategy"] for row in rows)}
    roles = {row["organ"]: row["role"] for name in sorted(last, key=lambda n: n != BASE) for row in last[name]}
    scores = {name: _organ_means(kept) for name, kept in last.items()}
    found = {name: _strategy_line(name, scores, roles) for name in scores}
    return dict(sorted(found.items(), key=lambda item: (item[0] != BASE, -(item[1]["all"] or 0.0))))


def _last_step(rows: Sequence[Mapping[str, Any]], strategy: str) -> list[Mapping[str, Any]]:
    own = [row for row in rows if row["strategy"] == strategy]
    last = max(int(row["step"]) for row in own)
    return [row for row in own if int(row["step"]) == last]


def _organ_means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean DSC over seeds per organ; an organ without a score is left out."""
    gathered: dict[str, list[float]] = {}
    for row in rows:
        if row["dsc"] not in (None, ""):
            gathered.setdefault(row["organ"], []).append(float(row["dsc"]))
    return {organ: fmean(values) for organ, values in gathered.items()}


def _strategy_line(name: str, scores: Mapping[str, dict[str, float]], roles: Mapping[str, str]) -> dict[str, Any]:
    dsc, base, joint = scores[name], scores.get(BASE, {}), scores.get(JOINT, {})
    old = {organ: value for organ, value in dsc.items() if roles[organ] == "old"}
    new = [value for organ, value in dsc.items() if roles[organ] == "new"]
    comparable = bool(joint) and joint.keys() == dsc.keys()
    return {
        "dsc": dsc,
        "old": fmean(old.values()) if old else None,
        "new": fmean(new) if new else None,
        "all": fmean(dsc.values()) if dsc else None,
        "retention": retention({organ: value for organ, value in base.items() if organ in old}, old),
        "of_joint": fmean(dsc.values()) / fmean(joint.values()) if comparable and any(joint.values()) else None,
    }


def _table_line(name: str, line: Mapping[str, Any], organs: Iterable[str]) -> list[str]:
    means = [decimals(line[key], 3) for key in ("old", "new", "all")]
    shares = [None if line[key] is None else 100 * line[key] for key in ("retention", "of_joint")]
    return [name, *(decimals(line["dsc"].get(organ), 3) for organ in organs), *means, *(decimals(s, 1) for s in shares)]
