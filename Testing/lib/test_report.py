"""The verdict's rules, the plain sentences, and the files of a report."""

from __future__ import annotations

import csv
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from IncrementalSegLib.document import result_text
from IncrementalSegLib.errors import StorageError
from IncrementalSegLib.organs import OrganTable, organ_named
from IncrementalSegLib.report import (
    OrganReport,
    build_report,
    is_lost,
    organ_reports,
    retention_sentence,
    verdict_sentences,
    verdict_words,
    versions,
    write_report,
)


def old(name: str = "Liver", before: float | None = None, after: float | None = None, **other: Any) -> OrganReport:
    return OrganReport(name, organ_named(name).key, "old", before, after, **other)


def new(after: float | None, name: str = "Pancreas") -> OrganReport:
    return OrganReport(name, organ_named(name).key, "new", dsc_after=after)


def report_of(*organs: OrganReport, heldout: int = 2) -> dict[str, Any]:
    return build_report("full", organs, (7, heldout), seconds=12.3456789, peak_memory_mb=512.0)


def test_report_has_exactly_the_fields_of_the_contract() -> None:
    report = report_of(old(before=0.9, after=0.9), new(0.7))
    assert list(report) == [
        *("schema", "strategy", "verdict", "retention", "retention_source", "organs", "cases", "synthetic"),
        *("date", "seconds", "peak_memory_mb", "versions"),
    ]
    assert list(report["organs"][0]) == [
        *("name", "code", "role", "dsc_before", "dsc_after", "hd95_before", "hd95_after", "nsd_before", "nsd_after"),
        *("agreement", "volume_ml"),
    ]
    assert report["schema"] == 1
    assert report["cases"] == {"train": 7, "heldout": 2}
    none = {"organs": [], "volumes": 0, "replayed": 0, "requested": 0, "kept": 0, "dropped": 0, "statistics": ""}
    assert report["synthetic"] == none


@pytest.mark.parametrize(
    ("organ", "expected"),
    [
        (old(before=0.93, after=0.93), "good"),
        (old(before=0.93, after=0.91), "good"),  # exactly two points: not more than two points
        (old(before=0.93, after=0.9099), "old organ lost"),
        (old(before=0.93, after=0.93, agreement=0.5), "good"),  # annotation decides where there is one
        (old(agreement=0.95), "good"),
        (old(agreement=0.949), "old organ lost"),
        (old(agreement=0.86, volume_ml=19.9), "good"),
        (old(agreement=0.849, volume_ml=19.9), "old organ lost"),
        (old(agreement=0.86, volume_ml=20.0), "old organ lost"),
        (old(before=0.93, agreement=0.5), "old organ lost"),  # one of two scores is no comparison
        (old(), "good"),
    ],
)
def test_old_organs_are_judged_by_two_points_or_by_agreement(organ: OrganReport, expected: str) -> None:
    assert report_of(organ, new(0.7))["verdict"] == expected


@pytest.mark.parametrize(
    ("dsc", "expected"), [(0.3, "good"), (0.299, "new organ not learned"), (None, "new organ not learned")]
)
def test_a_new_organ_needs_a_held_out_dsc_of_030(dsc: float | None, expected: str) -> None:
    assert report_of(old(before=0.9, after=0.9), new(dsc), new(0.8, "Aorta"))["verdict"] == expected


def test_a_lost_old_organ_outweighs_an_unlearned_new_one() -> None:
    assert report_of(new(0.0), old(before=0.9, after=0.5))["verdict"] == "old organ lost"


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_better_result_never_turns_a_kept_organ_into_a_lost_one(before: float, after: float, better: float) -> None:
    worse, best = sorted((after, better))
    lines = [vars(old(before=before, after=dsc)) for dsc in (worse, best)]
    assert is_lost(lines[0]) or not is_lost(lines[1])


def test_retention_is_measured_on_annotation_where_every_old_organ_has_it() -> None:
    report = report_of(old(before=0.8, after=0.6, agreement=0.9), old("Spleen", 0.4, 0.3, agreement=0.9), new(0.7))
    assert (report["retention"], report["retention_source"]) == (0.75, "annotation")


def test_retention_is_agreement_where_an_old_organ_is_not_annotated() -> None:
    report = report_of(old(before=0.8, after=0.2, agreement=0.96), old("Spleen", agreement=0.98), new(0.7))
    assert (report["retention"], report["retention_source"]) == (0.97, "agreement")


def test_retention_is_unknown_without_a_held_out_scan() -> None:
    report = report_of(old(), new(None), heldout=0)
    assert (report["retention"], report["retention_source"]) == (None, "agreement")
    assert report["verdict"] == "new organ not learned"


def test_sentences_say_plainly_what_became_of_each_organ() -> None:
    report = report_of(
        new(0.71),
        new(0.1, "Aorta"),
        new(None, "Stomach"),
        old("Spleen", 0.931, 0.929),
        old("Liver", 0.95, 0.90),
        old("Right kidney", agreement=0.97),
        old("Left kidney", agreement=0.5),
        old("Gallbladder"),
    )
    assert verdict_sentences(report) == [
        "Spleen kept: 0.931 → 0.929.",
        "Liver lost: 0.950 → 0.900.",
        "Right kidney kept: the old and the new model agree at 0.970 on 2 held-out cases (not annotated).",
        "Left kidney lost: the old and the new model agree at 0.500 on 2 held-out cases (not annotated).",
        "Gallbladder not judged: it was found in no held-out case.",
        "Pancreas learned: 0.710 on 2 held-out cases.",
        "Aorta not learned: 0.100 on 2 held-out cases.",
        "Stomach not learned: no held-out case to judge it on.",
    ]


def test_one_held_out_case_is_singular() -> None:
    assert verdict_sentences(report_of(new(0.5), heldout=1)) == ["Pancreas learned: 0.500 on 1 held-out case."]


def test_no_figure_looks_better_than_the_verdict_over_it() -> None:
    (sentence,) = verdict_sentences(report_of(old(agreement=0.9496)))
    assert sentence.startswith("Liver lost: the old and the new model agree at 0.949 on")
    (sentence,) = verdict_sentences(report_of(new(0.29996)))
    assert sentence == "Pancreas not learned: 0.299 on 2 held-out cases."


def test_summaries_of_both_models_become_one_line_per_organ() -> None:
    table = OrganTable.from_names(["Liver", "Pancreas"])
    liver, pancreas = table.keys
    before = {liver: {"dsc": 0.9, "hd95": 3.0, "nsd": 0.8, "cases": 2}}
    after = {liver: {"dsc": 0.8, "hd95": 4.0, "nsd": 0.7, "cases": 2}, pancreas: {"dsc": 0.6, "hd95": 9.0, "nsd": 0.5}}
    lines = organ_reports(table, [liver], before, after, {liver: 0.95}, {liver: 1500.0})
    assert lines == [
        OrganReport("Liver", liver, "old", 0.9, 0.8, 3.0, 4.0, 0.8, 0.7, 0.95, 1500.0),
        OrganReport("Pancreas", pancreas, "new", None, 0.6, None, 9.0, None, 0.5),
    ]


def test_json_and_csv_tell_the_same_story(tmp_path: Path) -> None:
    report = report_of(old("Liver", 0.95, 0.9, hd95_after=float("inf")), old("Spleen", agreement=0.97), new(0.71))
    write_report(report, tmp_path / "job")
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["report.csv", "report.json"]
    assert json.loads((tmp_path / "job/report.json").read_text(encoding="utf-8")) == report
    rows = list(csv.DictReader((tmp_path / "job/report.csv").open(encoding="utf-8")))
    assert [(row["name"], row["dsc_before"], row["hd95_after"], row["agreement"]) for row in rows] == [
        ("Liver", "0.95", "", ""),
        ("Spleen", "", "", "0.97"),
        ("Pancreas", "", "", ""),
    ]
    assert retention_sentence(report).startswith("Retention of the old organs: 97.0 %, as agreement")


def test_what_json_cannot_hold_becomes_null(tmp_path: Path) -> None:
    report = build_report("mib", [old(before=float("nan"), after=0.5)], (1, 1), float("inf"), None)
    assert (report["organs"][0]["dsc_before"], report["seconds"]) == (None, None)
    write_report(report, tmp_path)
    assert "NaN" not in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_a_pipe_in_an_organ_name_does_not_break_the_table() -> None:
    shown = result_text(report_of(OrganReport("Cyst | left", "cyst left", "new", dsc_after=0.5)))
    assert "| Cyst \\| left | new |" in shown


def test_the_verdict_in_words_names_what_was_lost_first() -> None:
    report = report_of(new(0.71), new(0.1, "Aorta"), old("Liver", 0.95, 0.9), old("Spleen", 0.9, 0.9), old("Stomach"))
    told = "Not good. Lost: Liver. Not learned: Aorta. Not judged: Stomach. Learned: Pancreas. Kept: Spleen."
    assert verdict_words(report) == told
    assert verdict_words(report_of(old("Liver", 0.95, 0.95), new(0.5))) == "Good. Learned: Pancreas. Kept: Liver."
    many = [OrganReport(f"Rib {number}", f"rib {number}", "old", 0.9, 0.9) for number in range(24)]
    assert verdict_words(report_of(*many, old("Liver", 0.95, 0.9))) == "Not good. Lost: Liver. Kept: 24 organs."


def test_a_folder_that_cannot_be_written_is_reported_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"report\.json could not be written"):
        write_report(report_of(new(0.5)), tmp_path / "job")


def test_versions_never_fail_for_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.delitem(__import__("sys").modules, "monai", raising=False)
    found = versions()
    assert list(found) == ["python", "IncrementalSegLib", "torch", "monai", "numpy", "SimpleITK"]
    assert found["monai"] == "unknown"
    assert found["IncrementalSegLib"] != "unknown"  # run from a source tree, as the Slicer module does
