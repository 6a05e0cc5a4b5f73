"""The job folder: checked before it is written, and what it holds afterwards."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helping import TRAINING, events, files, step_job, train_job

import IncrementalSegLib
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.jobs import Job, seconds_worked, split_cases
from IncrementalSegLib.lock import locked
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.organs import Code, Organ, OrganTable, organ_named
from IncrementalSegLib.running import run_job
from IncrementalSegLib.training.config import TrainingConfig

pytestmark = pytest.mark.usefixtures("one_thread")

# what is asked


def test_a_job_survives_its_file(patients, base_job, tmp_path):
    job = replace(step_job(patients, base_job), parents={"Stomach": "Liver"}, training={"steps": 7})
    job.save(tmp_path)
    assert Job.load(tmp_path) == job


def test_refuses_to_overwrite_a_job(patients, tmp_path):
    train_job(patients).save(tmp_path)
    before = files(tmp_path)
    with pytest.raises(InputError, match="holds a job already: go on with  incrementalseg resume"):
        train_job(patients, {**TRAINING, "steps": 20}).save(tmp_path)
    assert files(tmp_path) == before


GOOD = {"kind": "train", "cases": "cases", "organs": ["Liver"], "schema": 1}
BROKEN = [
    ({**GOOD, "schema": 99}, "made by a newer IncrementalSeg"),
    ({**GOOD, "colour": "red"}, "unknown setting 'colour'"),
    ({**GOOD, "kind": "guess"}, "asks for 'guess'"),
    ({"kind": "train", "cases": "cases"}, "lacks 'organs'"),
    ({**GOOD, "organs": "Liver"}, "'organs' must be a list"),
    ([1, 2], "is damaged"),
]


@pytest.mark.parametrize(("content", "sentence"), BROKEN)
def test_refuses_a_job_file_that_it_does_not_understand(tmp_path, content, sentence):
    (tmp_path / "job.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=sentence):
        run_job(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_refuses_a_damaged_or_missing_job_file(tmp_path):
    with pytest.raises(InputError, match=r"holds no job\.json"):
        Job.load(tmp_path)
    (tmp_path / "job.json").write_text('{"kind": "tra')
    with pytest.raises(InputError, match="is damaged"):
        Job.load(tmp_path)


def test_refuses_a_parent_of_an_organ_that_is_not_learned(patients, base_job):
    job = replace(step_job(patients, base_job), parents={"Pancreas": "Liver"})
    with pytest.raises(InputError, match="not among the organs to learn"):
        job.new_organs(OrganTable())


def test_a_fifth_is_held_out_from_four_cases_on(patients, tmp_path):
    def names(**settings: object) -> tuple[list[str], list[str]]:
        job = replace(train_job(patients), **{"heldout": None, **settings})  # type: ignore[arg-type]
        training, heldout = split_cases(job, tmp_path)
        return [case.name for case in training], [case.name for case in heldout]

    assert names() == (["a", "b", "c", "d"], ["e"])
    assert names(train_cases=("a", "b", "c", "d")) == (["a", "b", "c"], ["d"])
    assert names(train_cases=("a", "b", "c")) == (["a", "b", "c"], [])
    assert names(heldout=("b", "c")) == (["a", "d", "e"], ["b", "c"])
    assert names(heldout=()) == (["a", "b", "c", "d", "e"], [])
    assert names(train_cases=("a",), heldout=("e",)) == (["a"], ["e"])


def test_refuses_a_case_that_is_trained_on_and_held_out_and_a_job_without_cases(patients, tmp_path):
    with pytest.raises(InputError, match="Case 'a' is both trained on and held out"):
        split_cases(replace(train_job(patients), train_cases=("a", "b"), heldout=("a",)), tmp_path)
    with pytest.raises(InputError, match="No case is left to train on"):
        split_cases(replace(train_job(patients), heldout=("a", "b", "c", "d", "e")), tmp_path)


# what is done


def test_a_job_with_its_cases_and_model_inside_runs_where_it_was_moved(patients, base_job, tmp_path):
    made = tmp_path / "made"
    shutil.copytree(patients, made / "cases")
    shutil.copytree(base_job / "model", made / "parent")
    replace(step_job(patients, base_job), cases="cases", model="parent").save(made)
    moved = made.rename(tmp_path / "moved")
    assert run_job(moved).organs.names == ["Liver", "Spleen", "Stomach"]
    assert load_model(moved / "model").history[-1]["parent"] == load_model(moved / "parent").hash


@pytest.fixture(scope="module")
def finished(patients: Path, base_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished incremental step; for reading only."""
    folder = tmp_path_factory.mktemp("finished")
    step_job(patients, base_job).save(folder)
    for made in ("fast-1", "grounded-1"):
        (folder / "synthetic" / made).mkdir(parents=True)
    before = files(base_job)
    run_job(folder)
    assert files(base_job) == before, "the parent's job folder was modified"
    return folder


def test_a_finished_job_keeps_no_copy_of_a_scan_nor_what_was_warped_from_one(finished):
    assert not (finished / "cache").exists() and not (finished / "survey").exists()
    assert [path.name for path in (finished / "synthetic").iterdir()] == ["fast-1"]


def test_events_tell_phase_step_time_left_and_losses(finished):
    told = events(finished)
    assert told[0]["event"] == "started"
    assert told[-1] == {"time": told[-1]["time"], "event": "finished", "model": str(finished / "model")}
    progress = [event for event in told if event["event"] == "progress"]
    assert [*dict.fromkeys(event["phase"] for event in progress)] == [
        "prepare",
        "survey",
        "reshape",
        "update",
        "fusion",
        "evaluate",
    ]
    for event in progress:
        assert event.keys() == {"time", "event", "phase", "step", "of", "eta_s", "loss"}
        assert 0 < event["step"] <= event["of"]
    last = [event for event in progress if event["phase"] == "update"][-1]
    assert (last["step"], last["of"], last["eta_s"]) == (3, 3, 0.0)
    assert last["loss"].keys() == {"seg", "kd", "total"}


def test_the_report_has_the_keys_that_scripts_rely_on(finished):
    report = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    assert report.keys() == {
        "schema",
        "strategy",
        "verdict",
        "retention",
        "retention_source",
        "organs",
        "cases",
        "synthetic",
        "date",
        "seconds",
        "peak_memory_mb",
        "versions",
    }
    metrics = {f"{metric}_{when}" for metric in ("dsc", "hd95", "nsd") for when in ("before", "after")}
    for organ in report["organs"]:
        assert organ.keys() - {"volume_ml"} == {"name", "code", "role", "agreement"} | metrics
    assert [organ["role"] for organ in report["organs"]] == ["old", "old", "new"]
    assert (report["strategy"], report["cases"]) == ("full-without-inversion", {"train": 2, "heldout": 1})
    assert report["verdict"] in ("good", "old organ lost", "new organ not learned")
    for name in ("report.html", "report.md", "report.csv", "previews/dsc.png"):
        assert (finished / name).stat().st_size > 0


def test_the_history_keeps_the_held_out_dsc(finished):
    report = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    record = load_model(finished / "model").history[-1]
    assert record["metrics"] == {organ["code"]: organ["dsc_after"] for organ in report["organs"]}


def test_resuming_a_finished_job_gives_its_model_and_changes_nothing_but_the_events(finished, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    before = files(copy)
    model = run_job(copy)
    after = files(copy)
    assert model.hash == load_model(finished / "model").hash
    assert {name for name in after if after[name] != before.get(name)} == {"events.jsonl"}
    assert not any(event["event"] == "progress" for event in events(copy)[len(events(finished)) :])


def test_a_finished_job_does_not_need_its_parent_or_cases_any_more(finished, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    content = json.loads((copy / "job.json").read_text(encoding="utf-8")) | {"model": "gone", "cases": "gone"}
    (copy / "job.json").write_text(json.dumps(content))
    assert run_job(copy).hash == load_model(finished / "model").hash


def test_seconds_add_up_over_sessions_and_leave_out_the_time_between(tmp_path):
    told = [
        {"time": 100.0, "event": "started"},
        {"time": 130.0, "event": "stopped"},
        {"time": 5000.0, "event": "started"},
        {"time": 5012.5, "event": "progress"},
    ]
    lines = [json.dumps(event) for event in told]
    (tmp_path / "events.jsonl").write_text("\n".join([*lines[:2], '{"time": 13', *lines[2:]]) + "\n")
    from IncrementalSegLib import jobs

    class Clock:
        time = staticmethod(lambda: 5013.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "time", Clock)
        assert seconds_worked(tmp_path) == 30.0 + 12.5 + 0.5


def test_a_model_in_memory_is_kept_with_the_job_that_changes_it(base_job, patients, tmp_path):
    parent = load_model(base_job / "model")
    training = TrainingConfig().with_settings(TRAINING)
    model = IncrementalSegLib.add_organ(
        parent, patients, ["Stomach"], tmp_path / "job", training=training, strategy="mib", heldout=[]
    )
    assert load_model(tmp_path / "job" / "parent").hash == model.history[-1]["parent"] == parent.hash


def test_an_unexpected_fault_leaves_its_traceback_in_the_events(patients, tmp_path, monkeypatch):
    from IncrementalSegLib.training import base

    def fault(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(base, "run_loop", fault)
    train_job(patients).save(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run_job(tmp_path)
    last = events(tmp_path)[-1]
    assert (last["event"], last["reason"]) == ("stopped", "ZeroDivisionError")
    assert 'raise ZeroDivisionError("by zero")' in last["traceback"]


def test_codes_and_colours_of_an_organ_come_from_the_dataset() -> None:
    code = Code("SCT", "181216001", "Entire colon")
    table = OrganTable([Organ("Colon wall", 4, type=code, color=(1, 2, 3), parent="10200004")])
    job = Job("add-organ", "cases", ("Colon wall", "Pancreas"))
    known, looked_up = job.new_organs(table)
    assert (known.type, known.color, known.parent) == (code, (1, 2, 3), "10200004")
    assert looked_up.key == organ_named("Pancreas").key


def test_a_second_process_is_refused_while_one_works_on_the_job(patients, base_job, tmp_path):
    step_job(patients, base_job).save(tmp_path)
    before = files(tmp_path)
    with locked(tmp_path / ".lock"), pytest.raises(InputError, match=r"Another process works on .*: wait for it, or"):
        run_job(tmp_path)
    assert files(tmp_path) == {**before, ".lock": b""}
