"""The report of a step: its content, its verdict in plain words, and ``report.json`` and ``report.csv``."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .evaluation import METRICS, Summary, retention
from .organs import OrganTable
from .storage import write_json, write_text

SCHEMA = 1
LOST_DSC = 0.02
AGREEMENT, SMALL_AGREEMENT, SMALL_ML = 0.95, 0.85, 20.0
LEARNED_DSC = 0.3
_DISTRIBUTIONS = ("IncrementalSegLib", "torch", "monai", "numpy", "SimpleITK")
_SLACK = 1e-9  # 0.93 - 0.91 is 0.020000000000000018: exactly two points are not more than two points
_NO_REPLAY = {"organs": [], "volumes": 0, "replayed": 0, "requested": 0, "kept": 0, "dropped": 0, "statistics": ""}


@dataclass(frozen=True)
class OrganReport:
    """One organ before and after the step; None where a figure does not apply.

    ``code`` is the organ's key, ``role`` is ``old`` or ``new``, HD95 is in mm, ``agreement`` is the DSC between the old
    and the new model's prediction, ``volume_ml`` decides which agreement is asked for (None: that of a large organ).
    """

    name: str
    code: str
    role: str
    dsc_before: float | None = None
    dsc_after: float | None = None
    hd95_before: float | None = None
    hd95_after: float | None = None
    nsd_before: float | None = None
    nsd_after: float | None = None
    agreement: float | None = None
    volume_ml: float | None = None


def organ_reports(
    table: OrganTable,
    old: Iterable[str],
    before: Mapping[str, Summary],
    after: Mapping[str, Summary],
    agreements: Mapping[str, float | None],
    volumes_ml: Mapping[str, float | None] | None = None,
) -> list[OrganReport]:
    """Join the summaries of both models into one line per organ of the new model's table.

    Args:
        table: organs of the new model.
        old: keys of the organs that the old model had.
        before: `evaluation.summarise` of the old model.
        after: `evaluation.summarise` of the new model.
        agreements: mean agreement per old organ.
        volumes_ml: mean volume per organ.
    """
    known, lines = set(old), []
    for organ in table:
        was, now = before.get(organ.key, {}), after.get(organ.key, {})
        metrics = {f"{m}_before": was.get(m) for m in METRICS}
        metrics |= {f"{m}_after": now.get(m) for m in METRICS}
        metrics |= {"agreement": agreements.get(organ.key), "volume_ml": (volumes_ml or {}).get(organ.key)}
        lines.append(OrganReport(organ.name, organ.key, "old" if organ.key in known else "new", **metrics))
    return lines


def build_report(
    strategy: str,
    organs: Sequence[OrganReport],
    cases: tuple[int, int],
    seconds: float,
    peak_memory_mb: float | None,
    synthetic: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of ``report.json``.

    Args:
        strategy: what the step was trained with.
        organs: one line per organ.
        cases: number of training and of held-out cases.
        seconds: duration of the step.
        peak_memory_mb: peak memory of the step.
        synthetic: names of the ``organs`` that were replayed, ``volumes`` made and ``replayed``, organs in them that
            were ``requested``, ``kept`` and ``dropped``, and the source of their feature ``statistics``; zeros when
            left out.
    """
    lines = [rounded_row(asdict(organ)) for organ in organs]
    kept, source = _retention(lines)
    return {
        "schema": SCHEMA,
        "strategy": strategy,
        "verdict": verdict(lines),
        "retention": rounded(kept),
        "retention_source": source,
        "organs": lines,
        "cases": {"train": cases[0], "heldout": cases[1]},
        "synthetic": _NO_REPLAY | dict(synthetic or {}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": rounded(seconds),
        "peak_memory_mb": rounded(peak_memory_mb),
        "versions": versions(),
    }


def is_annotated(organ: Mapping[str, Any]) -> bool:
    """Whether both models were scored against an annotation of this organ."""
    return organ["dsc_before"] is not None and organ["dsc_after"] is not None


def is_lost(organ: Mapping[str, Any]) -> bool:
    """Whether an old organ is down by more than 2 points of DSC or, without annotation, agrees too little.

    The agreement asked is 0.95, and 0.85 for organs under 20 mL, where one layer of voxels weighs more.
    """
    if organ["role"] != "old":
        return False
    if is_annotated(organ):
        return bool(organ["dsc_before"] - organ["dsc_after"] > LOST_DSC + _SLACK)
    volume = organ.get("volume_ml")
    wanted = SMALL_AGREEMENT if volume is not None and volume < SMALL_ML else AGREEMENT
    return organ["agreement"] is not None and bool(organ["agreement"] < wanted)


def is_not_learned(organ: Mapping[str, Any]) -> bool:
    """Whether a new organ has a held-out DSC below 0.3, or was predicted on no held-out scan."""
    return organ["role"] == "new" and (organ["dsc_after"] is None or organ["dsc_after"] < LEARNED_DSC)


def verdict(organs: Iterable[Mapping[str, Any]]) -> str:
    """``old organ lost`` before ``new organ not learned`` before ``good``."""
    lines = list(organs)
    if any(map(is_lost, lines)):
        return "old organ lost"
    return "new organ not learned" if any(map(is_not_learned, lines)) else "good"


def fate(organ: Mapping[str, Any]) -> str:
    """What became of an organ: ``kept``, ``lost``, ``learned``, ``not learned`` or ``not judged``."""
    if organ["role"] == "new":
        return "not learned" if is_not_learned(organ) else "learned"
    if is_lost(organ):
        return "lost"
    return "kept" if is_annotated(organ) or organ["agreement"] is not None else "not judged"


def verdict_words(report: Mapping[str, Any]) -> str:
    """The verdict in a line, with names: what was lost and not learned first, else that it is good."""
    fates: dict[str, list[str]] = {}
    for organ in report["organs"]:
        fates.setdefault(fate(organ), []).append(organ["name"])
    first = "Good" if report["verdict"] == "good" else "Not good"
    told = [name for name in ("lost", "not learned", "not judged", "learned", "kept") if name in fates]
    return f"{first}. " + " ".join(f"{name.capitalize()}: {_named(name, fates[name])}." for name in told)


def _named(became: str, organs: Sequence[str]) -> str:
    """Names of organs in a line; of many of which nothing is wrong, their number."""
    return f"{len(organs)} organs" if became in ("learned", "kept") and len(organs) > 6 else ", ".join(organs)


def verdict_sentences(report: Mapping[str, Any]) -> list[str]:
    """One sentence in plain words per organ, old organs first: kept, lost, learned, not learned, or not judged."""
    organs = sorted(report["organs"], key=lambda organ: organ["role"] != "old")
    return [_organ_sentence(organ, report["cases"]["heldout"]) for organ in organs]


def retention_sentence(report: Mapping[str, Any]) -> str:
    """Retention of the old organs and what it was measured by."""
    if report["retention"] is None:
        return "Retention of the old organs could not be measured: no held-out case shows them."
    share = f"{100 * report['retention']:.1f} %"
    if report["retention_source"] == "annotation":
        return f"Retention of the old organs: {share} of the old model's mean DSC (held-out annotations)."
    return f"Retention of the old organs: {share}, as agreement with the old model (not all of them are annotated)."


def versions() -> dict[str, str]:
    """Versions of what the result depends on; ``unknown`` for what is not installed as a distribution."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        found[name] = str(getattr(sys.modules.get(name), "__version__", "unknown"))
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name) or found[name]
    return found


def write_report(report: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write ``report.json`` and ``report.csv`` into a folder, each whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    write_json(Path(folder) / "report.json", report)
    write_text(Path(folder) / "report.csv", csv_text([field.name for field in fields(OrganReport)], report["organs"]))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, numbers to the right."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV under these columns; None becomes an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def decimals(value: float | None, digits: int = 2) -> str:
    """A number as a reader wants it; a dash where there is none."""
    return "—" if value is None else f"{value:.{digits}f}"


def score(value: float | None) -> str:
    """A DSC, NSD or agreement with three digits, rounded down: 0.9496 is below 0.95 and must not look like it."""
    return decimals(None if value is None else math.floor(value * 1000 + 1e-6) / 1000, 3)


def rounded(value: Any) -> Any:
    """Floats to six digits (numpy ones to plain ones); what JSON cannot hold (NaN, infinity) to None."""
    if not isinstance(value, float):
        return value
    return round(float(value), 6) if math.isfinite(value) else None


def rounded_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table with its numbers `rounded`."""
    return {name: rounded(value) for name, value in row.items()}


def _retention(organs: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """Retention and its source: annotation only where every judged old organ has one, else the mean agreement."""
    old = [o for o in organs if o["role"] == "old" and (is_annotated(o) or o["agreement"] is not None)]
    if old and all(map(is_annotated, old)):
        before, after = ({o["code"]: o[f"dsc_{when}"] for o in old} for when in ("before", "after"))
        return retention(before, after), "annotation"
    agreements = {o["code"]: o["agreement"] for o in old}
    return retention(dict.fromkeys(agreements, 1.0), agreements), "agreement"


def _organ_sentence(organ: Mapping[str, Any], heldout: int) -> str:
    name, after, became = organ["name"], organ["dsc_after"], fate(organ)
    scans = "1 held-out case" if heldout == 1 else f"{heldout} held-out cases"
    if organ["role"] == "new":
        if after is None:
            return f"{name} not learned: no held-out case to judge it on."
        return f"{name} {became}: {score(after)} on {scans}."
    if is_annotated(organ):
        return f"{name} {became}: {score(organ['dsc_before'])} → {score(after)}."
    if organ["agreement"] is None:
        return f"{name} not judged: it was found in no held-out case."
    return (
        f"{name} {became}: the old and the new model agree at {score(organ['agreement'])} on {scans} (not annotated)."
    )
