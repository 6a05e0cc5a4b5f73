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
from .training.strategies import STRATEGIES

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
        new: keys of the organs learned after the base model; the others are old.
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
    """What every strategy ends with, in the mean over its seeds, each compared with base and joint of the same seed.

    Per strategy at its last step: ``dsc`` and ``hd95`` per organ, means ``old``, ``new`` and ``all`` of DSC,
    ``retention``, ``of_joint``, ``forgetting`` (mean) and ``most_forgotten``, ``seconds`` (all steps) and
    ``peak_memory_mb``. Organs that no strategy of these rows ever brought to a DSC of 0.3 are left out of means.
    ``all`` needs every organ that counts. Retention is the mean over old organs against the strategy ``base``;
    ``of_joint`` that over all organs against ``joint``. Forgetting counts organs that had reached a DSC of 0.5 when
    they were learned, in an earlier step. None where it does not apply. Values may be text, as read from a CSV.
    ``base`` comes first, then the best mean over all organs first.

    Raises:
        InputError: there are no rows, or rows of several protocols.
    """
    rows = list(rows)
    if len(protocols := {row["protocol"] for row in rows}) != 1:
        raise InputError(f"A comparison needs the rows of one protocol, and these are of {len(protocols)}: choose one.")
    counted, found = counted_organs(rows), {}
    for name in dict.fromkeys(row["strategy"] for row in rows):
        seeds = dict.fromkeys(row["seed"] for row in rows if row["strategy"] == name)
        lines = [_strategy_line(name, [row for row in rows if row["seed"] == seed], counted) for seed in seeds]
        found[name] = {key: _averaged([line[key] for line in lines]) for key in lines[0]}
    return dict(sorted(found.items(), key=lambda item: (item[0] != BASE, -(item[1]["all"] or 0.0))))


def _averaged(values: Sequence[Any]) -> Any:
    """The mean over seeds of numbers, or of the numbers per organ; None where no seed has one."""
    if isinstance(values[0], dict):
        return {organ: _averaged([value.get(organ) for value in values]) for organ in values[0]}
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def per_organ(rows: Iterable[Mapping[str, Any]], metric: str, step: int | None = None) -> dict[str, float]:
    """A metric per organ of one strategy after a step (the last one when None); organs without a score are left out.

    Several seeds are averaged.
    """
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


def when_learned(own: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """DSC of every organ after the step that learned it, but those of the last step, which nobody could forget."""
    own = list(own)
    learned: dict[str, float] = {}
    for step in sorted({int(row["step"]) for row in own})[:-1]:
        learned = per_organ(own, "dsc", step) | learned
    return learned


def is_reference(strategy: str) -> bool:
    """Whether it is trained at once instead of step by step."""
    return strategy in STRATEGIES and bool(STRATEGIES[strategy].from_scratch)


def _strategy_line(
    name: str, rows: Sequence[Mapping[str, Any]], counted: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """One strategy with one seed."""
    own, base, joint = ([row for row in rows if row["strategy"] == line] for line in (name, BASE, JOINT))
    ends = [per_organ(part, "dsc") for part in (own, base, joint)]
    dsc, before, bound = ({organ: v for organ, v in end.items() if organ in counted["all"]} for end in ends)
    old, new = ({organ: v for organ, v in dsc.items() if organ in counted[role]} for role in ("old", "new"))
    stepwise = name != BASE and not is_reference(name) and bool(base)
    learned = {organ: v for organ, v in when_learned([*base, *own]).items() if v >= LEARNED and organ in dsc}
    lost = forgetting(learned, dsc) if stepwise else {}
    complete = dsc.keys() == set(counted["all"])
    costs = {metric: _per_step(own, metric) for metric in ("seconds", "peak_memory_mb")}
    return {
        "dsc": ends[0],
        "hd95": per_organ(own, "hd95"),
        "old": fmean(old.values()) if old else None,
        "new": fmean(new.values()) if new else None,
        "all": fmean(dsc.values()) if dsc and complete else None,
        "retention": retention({organ: value for organ, value in before.items() if organ in old}, old),
        "of_joint": fmean(dsc.values()) / fmean(bound.values())
        if any(bound.values()) and bound.keys() == dsc.keys()
        else None,
        "forgetting": fmean(lost.values()) if lost else None,
        "most_forgotten": max(lost.values()) if lost else None,
        "seconds": sum(costs["seconds"]) or None,
        "peak_memory_mb": max(costs["peak_memory_mb"], default=None),
    }


def _per_step(rows: Iterable[Mapping[str, Any]], column: str) -> list[float]:
    """What every step cost."""
    steps = {int(row["step"]): float(row[column]) for row in rows if row.get(column) not in (None, "")}
    return list(steps.values())


def case_scores(cases: Iterable[Mapping[str, Any]], strategy: str, organs: Iterable[str]) -> dict[Any, float]:
    """DSC by (case, seed, organ) of a strategy after its last step, for these organs."""
    own, wanted = [row for row in cases if row["strategy"] == strategy], set(organs)
    last = max((int(row["step"]) for row in own), default=0)
    kept = [row for row in own if int(row["step"]) == last and row["organ"] in wanted and row["dsc"] not in (None, "")]
    return {(row["case"], str(row["seed"]), row["organ"]): float(row["dsc"]) for row in kept}


def interval(scores: Mapping[Any, float]) -> tuple[float, float, float] | None:
    """Mean over cases, and its 95 % bootstrap interval, of scores by (case, …); None without a case."""
    gathered = defaultdict(list)
    for (case, *_), value in scores.items():
        gathered[case].append(value)
    found = [fmean(values) for values in gathered.values()]
    return paired_bootstrap(found, np.random.default_rng(0)) if found else None
