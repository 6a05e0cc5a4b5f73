"""Benchmark results of several strategies: the rows of the CSV files and what is computed from them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from .errors import InputError
from .evaluation import Summary, forgetting, paired_bootstrap, retention
from .organs import OrganTable
from .report import csv_text, rounded_row
from .storage import write_text

COLUMNS = (
    *("protocol", "strategy", "seed", "step", "organ", "role"),
    *("dsc", "hd95", "nsd", "cases", "seconds", "peak_memory_mb"),
)
CASE_COLUMNS = ("protocol", "strategy", "seed", "step", "organ", "case", "dsc", "hd95", "nsd")
BASE, JOINT = "base", "joint"
LEARNABLE = 0.3  # DSC that some strategy must reach for an organ to count in means
LEARNED = 0.5  # DSC from which on an organ can be forgotten
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


def write_case_csv(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write one row per strategy, seed, step, organ and case, from which intervals are computed.

    Raises:
        StorageError: the file cannot be written.
    """
    write_text(Path(path), csv_text(CASE_COLUMNS, [rounded_row({c: row[c] for c in CASE_COLUMNS}) for row in rows]))


def strategy_means(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What every strategy ends with, seeds averaged.

    Per strategy at its last step: ``dsc`` and ``hd95`` per organ, means ``old``, ``new`` and ``all`` of DSC,
    ``retention``, ``of_joint``, ``forgetting`` (mean) and ``most_forgotten``, ``seconds`` (all steps) and
    ``peak_memory_mb``. Organs that no strategy of these rows ever brought to a DSC of 0.3 are left out of means.
    Retention is the mean over old organs against the rows of the strategy ``base``; ``of_joint`` is the mean over all
    organs against that of ``joint``. Forgetting counts organs that had reached a DSC of 0.5 when they were learned.
    None where rows are missing or, for ``of_joint``, name other organs. Values may be text, as read from a CSV.
    ``base`` comes first, then the best mean over all organs first.

    Raises:
        InputError: there are no rows, or rows of several protocols.
    """
    rows = list(rows)
    if len(protocols := {row["protocol"] for row in rows}) != 1:
        raise InputError(f"A comparison needs the rows of one protocol, and these are of {len(protocols)}: choose one.")
    names = dict.fromkeys(row["strategy"] for row in rows)
    counted = counted_organs(rows)
    ends = {name: mean_per_organ([row for row in rows if row["strategy"] == name], "dsc") for name in names}
    found = {name: _strategy_line(name, rows, ends, counted) for name in names}
    return dict(sorted(found.items(), key=lambda item: (item[0] != BASE, -(item[1]["all"] or 0.0))))


def mean_per_organ(rows: Iterable[Mapping[str, Any]], metric: str, step: int | None = None) -> dict[str, float]:
    """Mean over seeds per organ of one strategy after a step (the last one when None); unscored organs are left out."""
    rows = list(rows)
    wanted = max((int(row["step"]) for row in rows), default=0) if step is None else step
    gathered = defaultdict(list)
    for row in rows:
        if int(row["step"]) == wanted and row.get(metric) not in (None, ""):
            gathered[row["organ"]].append(float(row[metric]))
    return {organ: fmean(values) for organ, values in gathered.items()}


def counted_organs(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The organs that count in the means ``old``, ``new`` and ``all``: those that some strategy ever learned."""
    rows = sorted(rows, key=lambda row: row["strategy"] != BASE)
    best: dict[str, float] = {}
    for row in rows:
        best[row["organ"]] = max(best.get(row["organ"], 0.0), float(row["dsc"] or 0.0))
    roles = {row["organ"]: row["role"] for row in rows}
    learned = [organ for organ, value in best.items() if value >= LEARNABLE]
    by_role = {role: [organ for organ in learned if roles[organ] == role] for role in ("old", "new")}
    return {**by_role, "all": learned}


def when_learned(rows: Iterable[Mapping[str, Any]], strategy: str) -> dict[str, float]:
    """DSC of every organ of a strategy after the step that learned it, seeds averaged; base organs from ``base``."""
    own = [row for row in rows if row["strategy"] in (strategy, BASE)]
    learned: dict[str, float] = {}
    for step in sorted({int(row["step"]) for row in own}):
        learned = mean_per_organ([row for row in own if int(row["step"]) == step], "dsc") | learned
    return learned


def _strategy_line(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    ends: Mapping[str, dict[str, float]],
    counted: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    own = [row for row in rows if row["strategy"] == name]
    dsc, base, joint = (
        {organ: v for organ, v in ends.get(line, {}).items() if organ in counted["all"]} for line in (name, BASE, JOINT)
    )
    old, new = ({organ: v for organ, v in dsc.items() if organ in counted[role]} for role in ("old", "new"))
    learned = {organ: v for organ, v in when_learned(rows, name).items() if v >= LEARNED and organ in dsc}
    lost = forgetting(learned, dsc) if BASE in ends and name != BASE else {}
    return {
        "dsc": ends[name],
        "hd95": mean_per_organ(own, "hd95"),
        "old": fmean(old.values()) if old else None,
        "new": fmean(new.values()) if new else None,
        "all": fmean(dsc.values()) if dsc else None,
        "retention": retention({organ: value for organ, value in base.items() if organ in old}, old),
        "of_joint": fmean(dsc.values()) / fmean(joint.values()) if joint and joint.keys() == dsc.keys() else None,
        "forgetting": fmean(lost.values()) if lost else None,
        "most_forgotten": max(lost.values()) if lost else None,
        "seconds": _mean_of_seeds(own, "seconds", sum),
        "peak_memory_mb": _mean_of_seeds(own, "peak_memory_mb", max),
    }


def _mean_of_seeds(rows: Iterable[Mapping[str, Any]], column: str, over_steps: Any) -> float | None:
    """Mean over seeds of the sum or maximum over steps."""
    runs: dict[Any, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row.get(column) not in (None, ""):
            runs[row["seed"]][int(row["step"])] = float(row[column])
    return fmean(over_steps(steps.values()) for steps in runs.values()) if runs else None


def case_means(cases: Iterable[Mapping[str, Any]], strategy: str, organs: Iterable[str]) -> dict[str, float]:
    """Mean DSC over these organs, and seeds, per case of a strategy after its last step."""
    own, wanted = [row for row in cases if row["strategy"] == strategy], set(organs)
    last = max((int(row["step"]) for row in own), default=0)
    gathered = defaultdict(list)
    for row in own:
        if int(row["step"]) == last and row["organ"] in wanted and row["dsc"] not in (None, ""):
            gathered[row["case"]].append(float(row["dsc"]))
    return {case: fmean(values) for case, values in gathered.items()}


def interval(values: Iterable[float]) -> tuple[float, float, float] | None:
    """Mean and 95 % bootstrap interval over cases (see `paired_bootstrap`); None without a case."""
    found = list(values)
    return paired_bootstrap(found, np.random.default_rng(0)) if found else None
