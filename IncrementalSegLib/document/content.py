"""What the report of an update says, as a list of sections; how it looks is not known here.

Nothing in it tells who the patients are: cases are counted, not named, and no path or user name is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..evaluation import NSD_TOLERANCE_MM
from ..organs import Organ, OrganTable
from ..report import (
    AGREEMENT,
    LEARNED_DSC,
    LOST_DSC,
    SMALL_AGREEMENT,
    SMALL_ML,
    decimals,
    fate,
    is_annotated,
    retention_sentence,
    score,
    verdict_sentences,
    verdict_words,
)
from .blocks import Bar, Block, Bullets, Chart, Code, Document, Facts, Section, Table, Text
from .pictures import scan_pictures, synthetic_pictures

NOTICE = "For research use only. Not a medical device."
_MEANINGS = (
    ("DSC", "Overlap with the annotation, from 0 to 1 (Dice similarity coefficient)."),
    ("HD95", "95 % of the surface lies within this distance of the annotation's surface, in mm."),
    ("NSD", f"Share of the surface that lies within {NSD_TOLERANCE_MM:.0f} mm of the annotation's."),
    (
        "Agreement",
        "DSC between the old and the new model's prediction on the same held-out scans. It says how far the new model "
        "moved, not how accurate it is: the figure to read where old organs are not annotated.",
    ),
    (
        "Lost",
        f"An old organ that is down by more than {100 * LOST_DSC:.0f} points of DSC or, without annotation, agrees at "
        f"less than {AGREEMENT} ({SMALL_AGREEMENT} for organs under {SMALL_ML:.0f} mL).",
    ),
    ("Learned", f"A new organ with a DSC of {LEARNED_DSC} or more on held-out scans."),
    (
        "Synthetic images",
        "Made up by the model from what it remembers; they show no patient. An organ that is blurred or missing in "
        "them hints that the model may forget it.",
    ),
)
Extra = Mapping[str, Mapping[str, float | None]]


class Described(Protocol):
    """A saved model, or the contents of its package."""

    @property
    def organs(self) -> OrganTable:
        """Its organs."""

    @property
    def history(self) -> tuple[dict[str, Any], ...]:
        """A record per step."""

    @property
    def hash(self) -> str:
        """The package's hash, empty for a model that was never saved."""


def described(
    report: Mapping[str, Any], model: Described, folder: Path, extra: Extra | None = None, scans: bool = True
) -> Document:
    """Everything about an update; ``folder`` has the pictures, ``scans`` whether those of patients are shown."""
    start = results(report, extra)
    parts = [
        _added(report, model, folder),
        _data(report, model),
        *start.sections,
        Section("Before and after on a held-out scan", scan_pictures(folder, scans)),
        Section("Synthetic images", synthetic_pictures(folder, report["synthetic"], scans)),
        _lineage(model),
        Section("Software", [Text(", ".join(f"{name} {version}" for name, version in report["versions"].items()))]),
        _how_to_read(),
        _decision(),
    ]
    return Document(start.title, start.verdict, start.good, NOTICE, [part for part in parts if part.blocks])


def results(report: Mapping[str, Any], extra: Extra | None = None) -> Document:
    """The part that needs nothing but the report: verdict, sentences, chart and table."""
    organs, roles = report["organs"], {organ["role"] for organ in report["organs"]}
    new = [organ["name"] for organ in organs if organ["role"] == "new"]
    title = f"{'Update' if roles == {'old', 'new'} else 'Model'} report: {listed(new or [o['name'] for o in organs])}"
    sentences = [*verdict_sentences(report), *([retention_sentence(report)] if "old" in roles else [])]
    blocks: list[Block] = [Bullets(sentences), _chart(organs, extra or {}), _table(organs, extra or {})]
    good = report["verdict"] == "good"
    return Document(title, verdict_words(report), good, NOTICE, [Section("Result", blocks)])


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a row, the rest as a number."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


def _added(report: Mapping[str, Any], model: Described, folder: Path) -> Section:
    old = [organ["name"] for organ in report["organs"] if organ["role"] == "old"]
    new = [organ for organ in report["organs"] if organ["role"] == "new"]
    rows = [
        (f"{'New organ' if old else 'Organ'}: {organ['name']}", _code(organ["code"], model.organs)) for organ in new
    ]
    if old:
        rows.append(("Organs it knew", ", ".join(old)))
    last = model.history[-1] if model.history else {}
    rows.append(("Strategy", report["strategy"]))
    if last.get("steps"):
        rows.append(("Training steps", f"{last['steps']}, seed {last.get('seed', 0)}"))
    if report.get("date"):
        rows.append(("Date", f"{report['date'][:16].replace('T', ' ')} UTC"))
    run = "Job took" if (folder / "job.json").exists() else "Evaluation took"
    memory = decimals(report["peak_memory_mb"], 0)
    rows.append((run, f"{_duration(report['seconds'])}, peak memory {memory} MB"))
    return Section("What was added" if old else "What was trained", [Facts(rows)])


def _code(key: str, table: OrganTable) -> str:
    organ = next((organ for organ in table if organ.key == key), None)
    codes = _codes(organ) if organ else []
    return f"SNOMED CT {' with '.join(codes)}" if codes else "no SNOMED CT code: known by its name"


def _codes(organ: Organ) -> list[str]:
    codes = (organ.type, organ.modifier, organ.region, organ.region_modifier)
    return [f"{code.value} ({code.meaning})" if code.meaning else code.value for code in codes if code]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    hours, minutes = seconds / 3600, seconds / 60
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def _chart(organs: Iterable[Mapping[str, Any]], extra: Extra) -> Chart:
    groups = [
        (f"{organ['name']} (new)" if organ["role"] == "new" else organ["name"], _bars(organ, extra)) for organ in organs
    ]
    return Chart("DSC on held-out scans, or agreement of both models where an old organ is not annotated", groups)


def _bars(organ: Mapping[str, Any], extra: Extra) -> list[Bar]:
    if organ["role"] == "old" and not is_annotated(organ):
        bars = [("agreement", organ["agreement"])]
    else:
        bars = [("before", organ["dsc_before"]), ("after", organ["dsc_after"])]
    bars += [(name, values.get(organ["name"])) for name, values in extra.items()]
    return [Bar(name, value, hollow=name == "agreement") for name, value in bars if value is not None]


def _table(organs: Iterable[Mapping[str, Any]], extra: Extra) -> Table:
    head = ["Organ", "Role", "Result", "DSC before", "DSC after", "HD95 before", "HD95 after"]
    head += ["NSD before", "NSD after", "Agreement", *(f"DSC {name}" for name in extra)]
    rows = [
        [
            *(o["name"], o["role"], fate(o)),
            *(score(o["dsc_before"]), score(o["dsc_after"])),
            *(decimals(o["hd95_before"], 1), decimals(o["hd95_after"], 1)),
            *(score(o["nsd_before"]), score(o["nsd_after"]), score(o["agreement"])),
            *(score(values.get(o["name"])) for values in extra.values()),
        ]
        for o in organs
    ]
    return Table(
        f"Means over held-out cases. HD95 in mm; NSD at {NSD_TOLERANCE_MM:.0f} mm; — does not apply.", head, rows, 3
    )


def _data(report: Mapping[str, Any], model: Described) -> Section:
    last = model.history[-1] if model.history else {}
    rows = [("Training cases", str(report["cases"]["train"])), ("Held-out cases", str(report["cases"]["heldout"]))]
    if last.get("data"):
        rows.append(("Training data, SHA-256", Code(last["data"])))
    privacy = (
        "Cases are counted, not named, and no path is given. The hash is of the scans and annotations themselves: who "
        "has them can show that these were the ones, and nobody else learns anything from it."
    )
    return Section("Data", [Facts(rows), Text(privacy)])


def _lineage(model: Described) -> Section:
    if not model.history:
        return Section("Model lineage", [])
    after = [str(record.get("parent", "")) for record in model.history[1:]] + [model.hash]
    rows = [_step(record, hashed, model.organs) for record, hashed in zip(model.history, after, strict=True)]
    head = ["Step", "Strategy", "Learned", "From", "Software", "Model after it, SHA-256", "Training data, SHA-256"]
    check = (
        "The hash of a model is the SHA-256 of the file checksums.json in its folder, which lists that of every other "
        "file: the last one must be that of the model in use."
    )
    return Section("Model lineage", [Table("Every step that made this model", head, rows, len(head)), Text(check)])


def _step(record: Mapping[str, Any], hashed: str, table: OrganTable) -> list[str]:
    names = {organ.key: organ.name for organ in table}
    learned = [names.get(key, key) for key in map(str, record.get("organs") or [])]
    source = record.get("source") or {}
    facts = [f"{record[name]} {name}" for name in ("cases", "steps") if record.get(name)]
    facts += [f"{name} {source[name]}" for name in ("tool", "licence") if source.get(name)]
    versions = record.get("versions") or {}
    software = [f"{name} {versions[name]}" for name in ("IncrementalSegLib", "torch", "monai") if name in versions]
    data = str(record.get("data") or source.get("weights") or "")
    return [
        *(str(record.get("step", "")), str(record.get("strategy", "")), ", ".join(learned)),
        *(", ".join(facts), ", ".join(software), Code(hashed or "not saved"), Code(data)),
    ]


def _how_to_read() -> Section:
    warning = "A few held-out scans are a spot check: judge the model on scans of your own before it is relied on."
    return Section("How to read it", [Facts(_MEANINGS), Text(warning)])


def _decision() -> Section:
    head = ["Accepted or discarded", "Name", "Date", "Signature"]
    return Section("Decision", [Table("To be filled in by hand", head, [[""] * 4], 4, form=True)])
