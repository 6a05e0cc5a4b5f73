"""The job folder: checked before it is written, stopped in every way there is, resumed to the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helping import await_progress, events, files, full_disk

import IncrementalSegLib
from IncrementalSegLib.errors import Cancelled, InputError, PackageError, StorageError
from IncrementalSegLib.jobs import Job, run_job, seconds_worked, split_cases
from IncrementalSegLib.models.package import Model, load_model
from IncrementalSegLib.organs import Code, Organ, OrganTable, organ_named
from IncrementalSegLib.training.config import TrainingConfig

pytestmark = pytest.mark.usefixtures("one_thread")
TRAINING = {"steps": 3, "batch": 1, "patch": [32, 32, 32], "device": "cpu", "precision": "float32"}
LONG = {**TRAINING, "steps": 20, "checkpoint_seconds": 0.2}
UNHURRIED = """
import sys, time
from IncrementalSegLib.cli import main
from IncrementalSegLib.training import loop
def step(*arguments, real=loop._step):
    time.sleep(0.2)
    return real(*arguments)
loop._step = step
sys.exit(main())
"""


def _train_job(patients: Path, training: dict = TRAINING) -> Job:
    return Job("train", str(patients), ("Liver", "Spleen"), spacing=(12.0, 12.0, 12.0), training=training, heldout=())


def _step_job(patients: Path, base_job: Path, training: dict = TRAINING) -> Job:
    return Job(
        "add-organ",
        str(patients),
        ("Stomach",),
        model=str(base_job / "model"),
        train_cases=("a", "b"),
        heldout=("e",),
        training=training,
        allow_overlap=True,
    )


@pytest.fixture(scope="module")
def whole(patients: Path, base_job: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The long jobs' models from runs that nothing stopped."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    jobs = {"train": _train_job(patients, LONG), "add-organ": _step_job(patients, base_job, LONG)}
    models = {}
    for kind, job in jobs.items():
        folder = tmp_path_factory.mktemp(kind)
        job.save(folder)
        models[kind] = run_job(folder)
    torch.set_num_threads(before)
    return models


def _same_weights(a: Model, b: Model) -> bool:
    one, other = a.network.state_dict(), b.network.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# what is asked


def test_a_job_survives_its_file(patients, base_job, tmp_path):
    job = replace(_step_job(patients, base_job), parents={"Stomach": "Liver"}, training={"steps": 7})
    job.save(tmp_path)
    assert Job.load(tmp_path) == job


def test_refuses_to_overwrite_a_job(patients, tmp_path):
    _train_job(patients).save(tmp_path)
    before = files(tmp_path)
    with pytest.raises(InputError, match="holds a job already: go on with  incrementalseg resume"):
        _train_job(patients, LONG).save(tmp_path)
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
    job = replace(_step_job(patients, base_job), parents={"Pancreas": "Liver"})
    with pytest.raises(InputError, match="not among the organs to learn"):
        job.new_organs(OrganTable())


def test_a_fifth_is_held_out_from_four_cases_on(patients, tmp_path):
    def names(**settings: object) -> tuple[list[str], list[str]]:
        job = replace(_train_job(patients), **{"heldout": None, **settings})  # type: ignore[arg-type]
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
        split_cases(replace(_train_job(patients), train_cases=("a", "b"), heldout=("a",)), tmp_path)
    with pytest.raises(InputError, match="No case is left to train on"):
        split_cases(replace(_train_job(patients), heldout=("a", "b", "c", "d", "e")), tmp_path)


# what is done


def test_a_job_with_its_cases_and_model_inside_runs_where_it_was_moved(patients, base_job, tmp_path):
    made = tmp_path / "made"
    shutil.copytree(patients, made / "cases")
    shutil.copytree(base_job / "model", made / "parent")
    replace(_step_job(patients, base_job), cases="cases", model="parent").save(made)
    moved = made.rename(tmp_path / "moved")
    assert run_job(moved).organs.names == ["Liver", "Spleen", "Stomach"]
    assert load_model(moved / "model").history[-1]["parent"] == load_model(moved / "parent").hash


@pytest.fixture(scope="module")
def finished(patients: Path, base_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished incremental step; for reading only."""
    folder = tmp_path_factory.mktemp("finished")
    _step_job(patients, base_job).save(folder)
    before = files(base_job)
    run_job(folder)
    assert files(base_job) == before, "the parent's job folder was modified"
    return folder


def test_events_tell_phase_step_time_left_and_losses(finished):
    told = events(finished)
    assert told[0]["event"] == "started"
    assert told[-1] == {"time": told[-1]["time"], "event": "finished", "model": str(finished / "model")}
    progress = [event for event in told if event["event"] == "progress"]
    assert [*dict.fromkeys(event["phase"] for event in progress)] == [
        "prepare",
        "survey",
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
        "seconds",
        "peak_memory_mb",
        "versions",
    }
    metrics = {f"{metric}_{when}" for metric in ("dsc", "hd95", "nsd") for when in ("before", "after")}
    for organ in report["organs"]:
        assert organ.keys() - {"volume_ml"} == {"name", "code", "role", "agreement"} | metrics
    assert [organ["role"] for organ in report["organs"]] == ["old", "old", "new"]
    assert (report["strategy"], report["cases"]) == ("distill", {"train": 2, "heldout": 1})
    assert report["verdict"] in ("good", "old organ lost", "new organ not learned")
    for name in ("report.md", "report.csv", "previews/dsc.png"):
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
    content = json.loads((copy / "job.json").read_text()) | {"model": "gone", "cases": "gone"}
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
    training = TrainingConfig.from_dict(TRAINING)
    model = IncrementalSegLib.add_organ(
        parent, patients, ["Stomach"], tmp_path / "job", training=training, strategy="mib", heldout=[]
    )
    assert load_model(tmp_path / "job" / "parent").hash == model.history[-1]["parent"] == parent.hash


def test_an_unexpected_fault_leaves_its_traceback_in_the_events(patients, tmp_path, monkeypatch):
    from IncrementalSegLib.training import run

    def fault(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(run, "_fit", fault)
    _train_job(patients).save(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run_job(tmp_path)
    last = events(tmp_path)[-1]
    assert (last["event"], last["reason"]) == ("stopped", "ZeroDivisionError")
    assert 'raise ZeroDivisionError("by zero")' in last["traceback"]


# what stops it


def _start(worker, folder: Path, job: Job, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen:
    job.save(folder)
    process = worker("run", folder, "--threads", 1, code=UNHURRIED, stdin=stdin)
    await_progress(process, folder, "update" if job.kind == "add-organ" else "train")
    return process


@pytest.mark.parametrize("kind", ["train", "add-organ"])
def test_after_kill_9_in_the_middle_of_training_resume_ends_at_the_same_weights(
    worker, whole, patients, base_job, tmp_path, kind
):
    job = _train_job(patients, LONG) if kind == "train" else _step_job(patients, base_job, LONG)
    process = _start(worker, tmp_path, job)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert _same_weights(run_job(tmp_path), whole[kind])
    assert not list(tmp_path.rglob(".partial_*"))


_KILLED_WHILE_WRITING = """
import os, signal, sys
count, last, real = 0, int(sys.argv.pop(1)), os.fsync
def fsync(handle):
    global count
    count += 1
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
from IncrementalSegLib.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(("file", "phase"), [(6, "prepare"), (11, "survey")])
def test_after_kill_9_while_a_file_is_written_resume_ends_at_the_same_weights(
    worker, whole, patients, base_job, tmp_path, file, phase
):
    _step_job(patients, base_job, LONG).save(tmp_path)
    process = worker(file, "run", tmp_path, "--threads", 1, code=_KILLED_WHILE_WRITING)
    assert process.wait() == -signal.SIGKILL
    assert [event["phase"] for event in events(tmp_path) if event["event"] == "progress"][-1] == phase
    assert list(tmp_path.rglob(".partial_*"))
    assert _same_weights(run_job(tmp_path), whole["add-organ"])
    assert not list(tmp_path.rglob(".partial_*"))


@pytest.mark.parametrize("way", ["sentinel", "SIGINT", "SIGTERM", "end of stdin"])
def test_every_way_to_cancel_leaves_a_checkpoint_and_resume_finishes(worker, whole, patients, tmp_path, way):
    process = _start(worker, tmp_path, _train_job(patients, LONG), stdin=subprocess.PIPE)
    if way == "sentinel":
        (tmp_path / "cancel").touch()
    elif way == "end of stdin":
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    else:
        process.send_signal(getattr(signal, way))
    _, complaint = process.communicate()
    assert process.returncode == 130, complaint
    assert f"incrementalseg resume {tmp_path}" in complaint
    last = events(tmp_path)[-1]
    assert (last["event"], last["reason"]) == ("stopped", "Cancelled")
    assert (tmp_path / "checkpoint" / "training.pt").exists()
    assert not (tmp_path / "model").exists()
    assert _same_weights(run_job(tmp_path), whole["train"])
    assert not (tmp_path / "cancel").exists()


def test_a_worker_whose_events_nobody_reads_any_more_stops_with_a_checkpoint(worker, patients, tmp_path):
    _train_job(patients, LONG).save(tmp_path)
    process = worker("run", tmp_path, "--threads", 1, "--json", code=UNHURRIED)
    await_progress(process, tmp_path, "train")
    assert process.stdout
    process.stdout.close()
    assert process.wait() == 130
    last = events(tmp_path)[-1]
    assert (last["event"], last["reason"]) == ("stopped", "Cancelled")
    process.stdout = open(os.devnull, encoding="utf-8")  # noqa: SIM115


def test_a_disk_that_fills_up_keeps_the_earlier_checkpoint(patients, tmp_path):
    quick = {**TRAINING, "checkpoint_seconds": 0.0}
    job = _train_job(patients, quick)
    job.save(tmp_path / "whole")
    job.save(tmp_path / "full")
    path = tmp_path / "full" / "checkpoint" / "training.pt"
    with pytest.raises(Cancelled):
        run_job(tmp_path / "full", cancelled=path.exists)
    before = path.read_bytes()
    with full_disk(1_000_000), pytest.raises(StorageError, match=r"training\.pt could not be written"):
        run_job(tmp_path / "full")
    assert path.read_bytes() == before
    assert not list(tmp_path.rglob(".partial_*"))
    assert events(tmp_path / "full")[-1]["reason"] == "StorageError"
    assert _same_weights(run_job(tmp_path / "full"), run_job(tmp_path / "whole"))


def test_a_damaged_checkpoint_is_a_sentence(patients, tmp_path):
    _train_job(patients).save(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "training.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(PackageError, match=r"training\.pt is damaged"):
        run_job(tmp_path)


def test_codes_and_colours_of_an_organ_come_from_the_dataset() -> None:
    code = Code("SCT", "181216001", "Entire colon")
    table = OrganTable([Organ("Colon wall", 4, type=code, color=(1, 2, 3), parent="10200004")])
    job = Job("add-organ", "cases", ("Colon wall", "Pancreas"))
    known, looked_up = job.new_organs(table)
    assert (known.type, known.color, known.parent) == (code, (1, 2, 3), "10200004")
    assert looked_up.key == organ_named("Pancreas").key
