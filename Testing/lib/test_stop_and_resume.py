"""Jobs stopped in every way there is go on to the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from helping import TRAINING, await_progress, events, full_disk, step_job, train_job
from training_runs import same_weights

from IncrementalSegLib.errors import Cancelled, PackageError, StorageError
from IncrementalSegLib.jobs import Job
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.running import run_job

pytestmark = pytest.mark.usefixtures("one_thread")
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


@pytest.fixture(scope="module")
def whole(patients: Path, base_job: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The long jobs' models from runs that nothing stopped."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    jobs = {"train": train_job(patients, LONG), "add-organ": step_job(patients, base_job, LONG)}
    models = {}
    for kind, job in jobs.items():
        folder = tmp_path_factory.mktemp(kind)
        job.save(folder)
        models[kind] = run_job(folder)
    torch.set_num_threads(before)
    return models


def _start(worker, folder: Path, job: Job, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen:
    job.save(folder)
    process = worker("run", folder, "--threads", 1, code=UNHURRIED, stdin=stdin)
    await_progress(process, folder, "update" if job.kind == "add-organ" else "train")
    return process


@pytest.mark.parametrize("kind", ["train", "add-organ"])
def test_after_kill_9_in_the_middle_of_training_resume_ends_at_the_same_weights(
    worker, whole, patients, base_job, tmp_path, kind
):
    job = train_job(patients, LONG) if kind == "train" else step_job(patients, base_job, LONG)
    process = _start(worker, tmp_path, job)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert same_weights(run_job(tmp_path).network, whole[kind].network)
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
    step_job(patients, base_job, LONG).save(tmp_path)
    process = worker(file, "run", tmp_path, "--threads", 1, code=_KILLED_WHILE_WRITING)
    assert process.wait() == -signal.SIGKILL
    assert [event["phase"] for event in events(tmp_path) if event["event"] == "progress"][-1] == phase
    assert list(tmp_path.rglob(".partial_*"))
    assert same_weights(run_job(tmp_path).network, whole["add-organ"].network)
    assert not list(tmp_path.rglob(".partial_*"))


@pytest.mark.parametrize("way", ["sentinel", "SIGINT", "SIGTERM", "end of stdin"])
def test_every_way_to_cancel_leaves_a_checkpoint_and_resume_finishes(worker, whole, patients, tmp_path, way):
    process = _start(worker, tmp_path, train_job(patients, LONG), stdin=subprocess.PIPE)
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
    assert same_weights(run_job(tmp_path).network, whole["train"].network)
    assert not (tmp_path / "cancel").exists()


def test_a_worker_whose_events_nobody_reads_any_more_stops_with_a_checkpoint(worker, patients, tmp_path):
    train_job(patients, LONG).save(tmp_path)
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
    job = train_job(patients, quick)
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
    assert same_weights(run_job(tmp_path / "full").network, run_job(tmp_path / "whole").network)


def test_a_damaged_checkpoint_is_a_sentence(patients, tmp_path):
    train_job(patients).save(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "training.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(PackageError, match=r"training\.pt is damaged"):
        run_job(tmp_path)
