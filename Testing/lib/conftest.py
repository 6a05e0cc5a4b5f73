"""What the library's tests share: small patients, a small model, the worker as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helping import left_behind

if TYPE_CHECKING:
    from IncrementalSegLib.cases import Case
    from IncrementalSegLib.models.package import Model

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def _little_replay() -> Iterator[None]:
    """One synthetic volume of every recipe, two anatomies in memory: models of a few steps replay every organ."""
    from IncrementalSegLib.inversion import memory
    from IncrementalSegLib.training import replay

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "VOLUMES", 1)
        patch.setattr(memory, "ANATOMIES", 2)
        yield


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home for the model library; signals as they were, afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setenv("INCREMENTALSEG_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small made-up patients, all organs annotated, with a split; for reading only."""
    from IncrementalSegLib.phantom import PhantomConfig, write_phantom_cases

    folder = tmp_path_factory.mktemp("patients")
    names = ["a", "b", "c", "d", "e"]
    write_phantom_cases(folder, names, 0, PhantomConfig((32, 28, 28), (12.0, 12.0, 12.0)))
    split = {"step0": names[:2], "step1": names[2:4], "evaluation": names[4:]}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


@pytest.fixture(scope="session")
def base_job(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of liver and spleen, a job folder with `model/`; for reading only."""
    import IncrementalSegLib
    from IncrementalSegLib.training.config import TrainingConfig

    out = tmp_path_factory.mktemp("base") / "job"
    training = TrainingConfig(steps=3, batch=1, patch=(32, 32, 32), device="cpu")
    organs, spacing = ["Liver", "Spleen"], (12.0, 12.0, 12.0)
    IncrementalSegLib.train(patients, organs, out, spacing=spacing, training=training, heldout=["e"])
    return out


@pytest.fixture(scope="session")
def parent(base_job: Path) -> Model:
    """The model of liver and spleen; nothing may change it."""
    from IncrementalSegLib.models.package import load_model

    return load_model(base_job / "model")


@pytest.fixture(scope="session")
def two_cases(patients: Path) -> list[Case]:
    """The first two patients."""
    from IncrementalSegLib.cases import read_dataset

    return read_dataset(patients, names=["a", "b"])


@pytest.fixture(scope="session")
def liver_everywhere(base_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a model that calls every voxel liver."""
    import torch

    from IncrementalSegLib.models.package import load_model, save_package

    model = load_model(base_job / "model")
    with torch.no_grad():
        model.network.get_submodule("head").bias[1] += 1000  # type: ignore[index, operator]
    folder = tmp_path_factory.mktemp("liver") / "model"
    save_package(replace(model, hash=""), folder)
    return folder


Worker = Callable[..., subprocess.Popen]


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Starts `python -m IncrementalSegLib …` (or a script, `code=`) on one thread; none outlives the test."""
    started: list[subprocess.Popen] = []

    def start(*arguments: object, code: str | None = None, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen:
        program = ["-m", "IncrementalSegLib"] if code is None else ["-c", code]
        paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "PYTHONUTF8": "1"},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def cases(dataset: Path) -> Path:
    """Two patients in a folder that the test may spoil."""
    return dataset


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs a command line and checks that it ends with a code, one sentence with all the words, and no debris."""

    def check(code: int, words: list[str], *arguments: object) -> None:
        from IncrementalSegLib.cli import main

        assert main([str(argument) for argument in arguments]) == code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1
        assert not [word for word in words if word not in lines[0]], lines[0]
        assert left_behind(tmp_path) == []

    return check
