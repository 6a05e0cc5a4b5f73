"""Plain functions that several tests use: what a job reported, a full disk, what lies in a folder."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from IncrementalSegLib.jobs import Job
from IncrementalSegLib.training.config import Augmentation

TRAINING = {"steps": 3, "batch": 1, "patch": [32, 32, 32], "device": "cpu", "precision": "float32"}
SMALL = ["--steps", "3", "--batch", "1", "--patch", "32", "--device", "cpu"]
COARSE = ["--spacing", "12", "12", "12"]
PATIENCE = 180.0
UNAUGMENTED = Augmentation(
    rotation=(0.0, 0.0, 0.0),
    scale=(1.0, 1.0),
    contrast=(1.0, 1.0),
    brightness=0.0,
    noise=0.0,
    blur=0.0,
    shading=0.0,
    organ_shift=0.0,
    copies=0,
)


def events(job: Path) -> list[dict]:
    """What a job has reported so far."""
    path = job / "events.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def await_progress(process: subprocess.Popen, job: Path, phase: str) -> None:
    """Wait until a worker is in the middle of a phase and has left a checkpoint."""
    deadline = time.monotonic() + PATIENCE
    while not any(event.get("phase") == phase for event in events(job)) or not _checkpoint(job).exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, f"no progress in phase {phase}"
        time.sleep(0.02)


def _checkpoint(job: Path) -> Path:
    return job / "checkpoint" / "training.pt"


@contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """A disk on which no file can grow beyond so many bytes; writing further fails as on a full one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_behind(folder: Path) -> list[Path]:
    """Partial files and model folders, which must not be there after a refusal."""
    partial = [*folder.rglob(".partial_*"), *folder.rglob("*.partial")]
    return partial + [path for path in folder.rglob("model") if path.is_dir()]


def train_job(patients: Path, training: dict = TRAINING) -> Job:
    return Job("train", str(patients), ("Liver", "Spleen"), spacing=(12.0, 12.0, 12.0), training=training, heldout=())


def step_job(patients: Path, base_job: Path, training: dict = TRAINING) -> Job:
    return Job(
        "add-organ",
        str(patients),
        ("Stomach",),
        strategy="full-without-inversion",
        model=str(base_job / "model"),
        train_cases=("a", "b"),
        heldout=("e",),
        training=training,
        allow_overlap=True,
    )


def train_command(cases: Path, out: Path, *more: object) -> list[object]:
    """The command line that trains a small model."""
    return ["train", "--cases", cases, "--out", out, *SMALL, *COARSE, "--organ", *(more or ["Liver", "Spleen"])]


def add_command(model: Path, cases: Path, out: Path, *more: object) -> list[object]:
    """The command line that adds an organ in a few steps."""
    return [
        "add-organ",
        "--model",
        model,
        "--cases",
        cases,
        "--out",
        out,
        *SMALL,
        "--strategy",
        "full-without-inversion",
        "--organ",
        *(more or ["Stomach"]),
    ]
