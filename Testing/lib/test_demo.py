"""The demo: the whole story with few steps, told twice, and never two stories in one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helping import files

from IncrementalSegLib import demo as module
from IncrementalSegLib.cli import main
from IncrementalSegLib.demo import demo
from IncrementalSegLib.errors import Cancelled, InputError
from IncrementalSegLib.events import Event
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.phantom import PhantomConfig, write_phantom_cases

pytestmark = pytest.mark.usefixtures("one_thread", "user")
FEW = {"base_steps": 2, "steps": 2, "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def coarse_phantoms():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PHANTOM", PhantomConfig((32, 28, 28), (12.0, 12.0, 12.0)))
        patch.setattr(module, "_PHANTOMS", {"step0": (2, 0), "step1": (2, 100), "evaluation": (1, 200)})
        yield


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A demo that was stopped while it trained the base model and then called again, and its second half's events."""
    out, first, events = tmp_path_factory.mktemp("demo") / "out", [], []
    with pytest.raises(Cancelled):
        demo(out, **FEW, sinks=[first.append], cancelled=lambda: any(e.get("phase") == "train" for e in first))
    demo(out, **FEW, sinks=[events.append])
    return out, events


def test_the_demo_leaves_report_pictures_and_two_packages_that_load(told):
    out, events = told
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    names = ["Spleen", "Right kidney", "Left kidney", "Liver", "Stomach"]
    assert [organ["name"] for organ in report["organs"]] == names
    assert [organ["role"] for organ in report["organs"]] == ["old"] * 4 + ["new"]
    assert report["cases"] == {"train": 2, "heldout": 1}
    assert load_model(out / "base").organs.names == names[:4]
    assert load_model(out / "candidate").organs.names == names
    assert load_model(out / "candidate").history[-1]["parent"] == load_model(out / "base").hash
    assert (out / "report.md").read_text(encoding="utf-8").startswith("# ")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Update report: Stomach" in page and "fine-tune" in page
    assert (out / "dsc.png").stat().st_size > 1000
    shown = "\n".join(event["text"] for event in events if event["event"] == "message")
    assert "before   after  fine-tune" in shown
    assert f"Verdict: {report['verdict']}. Report and pictures: {out}" in shown


def test_a_second_call_trains_nothing_and_tells_the_same(told):
    out, _ = told
    before, events = files(out), []
    report = demo(out, **FEW, sinks=[events.append])
    phases = {event["phase"] for event in events if event["event"] == "progress"}
    assert phases == {"phantoms", "evaluate"}
    assert report["organs"] == json.loads(before["report.json"])["organs"]
    after = files(out)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert not [name for name in changed if name.split("/")[0] in ("base", "candidate", "jobs", "phantoms")]


def test_a_published_package_follows_a_model_that_was_trained_anew(told):
    out, _ = told
    (out / "candidate" / "labels.csv").write_text("damaged")
    (out / "candidate" / "checksums.json").write_text("{}")
    demo(out, **FEW)
    assert load_model(out / "candidate").hash == load_model(out / "jobs" / "full" / "model").hash


@pytest.mark.parametrize("other", [{"steps": 3}, {"base_organs": ["Liver"]}, {"new_organs": ["Pancreas"]}])
def test_refuses_other_settings_in_a_folder_that_holds_a_demo(told, other):
    out, _ = told
    before = files(out)
    with pytest.raises(InputError, match="holds a demo with other settings"):
        demo(out, **{**FEW, **other})
    assert files(out) == before


def test_tells_the_story_on_cases_of_your_own_without_a_split(tmp_path, capsys):
    cases, out = tmp_path / "cases", tmp_path / "out"
    write_phantom_cases(cases, ["a", "b", "c"], 5, PhantomConfig((20, 18, 12), (10.0, 10.0, 10.0)))
    told = ["demo", "--cases", cases, "--base-organs", "Liver", "--new-organ", "Stomach", "--out", out]
    assert main([*map(str, told), "--base-steps", "1", "--steps", "1", "--device", "cpu"]) == 0
    assert "DSC on unseen scans" in capsys.readouterr().err
    assert load_model(out / "candidate").organs.names == ["Liver", "Stomach"]
    assert not (out / "phantoms").exists()
    record = load_model(out / "candidate").history
    assert [(step["strategy"], step["cases"]) for step in record] == [("base", 1), ("full", 1)]


WRONG = [
    (["--steps", "0"], "steps 0"),
    (["--new-organ", "Liver"], "'Liver' and 'Liver' have the same"),
    (["--new-organ", "Left lung"], "'Left lung' is not among Spleen"),
    (["--cases", "CASES"], "name the organs to add too"),
    (["--cases", "CASES", "--base-organs", "Liver", "--new-organ", "Left lung"], "'Left lung' is not among"),
    (["--cases", "TWO", "--base-organs", "Liver", "--new-organ", "Stomach"], "the demo needs three or more"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG)
def test_refuses_before_anything_is_made(patients, phantom_dataset, tmp_path, capsys, options, sentence):
    places = {"CASES": str(patients), "TWO": str(phantom_dataset)}
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out), *(places.get(option, option) for option in options)]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()
