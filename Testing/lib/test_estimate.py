"""What an update takes here: measured steps, the device and the reason for it."""

from __future__ import annotations

import json

import pytest
import torch
from packages import small_model

from IncrementalSegLib.errors import Cancelled, InputError
from IncrementalSegLib.estimate import estimate, find_device
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.models.networks import unusable
from IncrementalSegLib.models.package import save_package
from IncrementalSegLib.training.config import TrainingConfig

CONFIG = TrainingConfig(steps=1000, batch=1, patch=(32, 32, 32), device="cpu", precision="float32")


def test_a_step_is_measured_and_the_model_stays_as_it_is() -> None:
    model = small_model()
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    found = estimate(model, CONFIG, Reporter())
    assert found.device == "cpu"
    assert 0 < found.seconds_per_step < 60
    assert found.peak_mb > 0
    assert found.free_mb is None
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())


@pytest.mark.parametrize(
    ("asked", "built", "reason"), [("cpu", True, "asked for"), ("auto", False, "CUDA build"), ("auto", True, "driver")]
)
def test_the_reason_for_the_cpu_is_told(monkeypatch, asked: str, built: bool, reason: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    found = estimate(small_model(), TrainingConfig(batch=1, patch=(32, 32, 32), device=asked), Reporter())
    assert reason in found.reason


def test_a_gpu_that_this_torch_has_no_kernels_for_is_not_taken_and_the_reason_told(monkeypatch) -> None:
    def without_kernels(*tensors: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with …")

    real = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *size, device=None, **options: real(*size, **options))
    monkeypatch.setattr(torch.nn.functional, "conv3d", without_kernels)
    unusable.cache_clear()
    found = find_device("auto")
    assert found.device == "cpu" and found.reason.endswith("no kernel image is available for execution on the device")
    with pytest.raises(InputError, match=r"'cuda:1' cannot be used here \(CUDA error: no kernel image"):
        find_device("cuda:1")
    unusable.cache_clear()


def test_larger_patches_than_fit_are_told_and_made_smaller(monkeypatch) -> None:
    from IncrementalSegLib.training import loop

    real, told = loop._step, []

    def full(network, objective, batch, *rest):
        if batch.image.shape[2] > 32:
            raise torch.OutOfMemoryError("no memory")
        return real(network, objective, batch, *rest)

    monkeypatch.setattr(loop, "_step", full)
    config = TrainingConfig(batch=1, patch=(64, 64, 64), device="cpu", precision="float32")
    assert estimate(small_model(), config, Reporter(told.append)).seconds_per_step > 0
    assert any("Out of memory" in event["text"] for event in told)


def test_it_can_be_cancelled_and_refuses_a_device_that_is_not_there(monkeypatch) -> None:
    with pytest.raises(Cancelled):
        estimate(small_model(), CONFIG, Reporter(cancelled=lambda: True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch sees none"):
        estimate(small_model(), TrainingConfig(device="cuda"), Reporter())


def test_the_verb_tells_its_process_and_the_estimate_as_events(tmp_path, worker) -> None:
    save_package(small_model(), tmp_path / "model")
    size = ["--patch", "32", "--batch", "1", "--device", "cpu"]
    process = worker("estimate", "--model", tmp_path / "model", *size, "--json")
    shown, errors = process.communicate()
    assert process.returncode == 0, errors
    told = [json.loads(line) for line in shown.splitlines()]
    assert told[0] == {"event": "process", "pid": process.pid}
    assert told[1]["event"] == "estimate"
    assert told[1]["seconds_per_step"] > 0


def test_without_a_model_the_verb_tells_the_device_and_measures_nothing(worker) -> None:
    process = worker("estimate", "--json")
    shown, errors = process.communicate()
    assert process.returncode == 0, errors
    told = [json.loads(line) for line in shown.splitlines()]
    assert [event["event"] for event in told] == ["process", "device", "message"]
    assert told[1].keys() == {"event", "device", "name", "reason", "free_mb"}
    assert bool(told[1]["reason"]) == (told[1]["device"] == "cpu")


def test_a_program_that_reads_events_stops_the_work_by_closing_the_pipe(tmp_path, worker) -> None:
    import subprocess

    save_package(small_model(), tmp_path / "model")
    process = worker("estimate", "--model", tmp_path / "model", "--json", stdin=subprocess.PIPE)
    process.communicate()
    assert process.returncode == 130
