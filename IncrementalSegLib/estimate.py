"""What an update takes on this machine: which device and why, seconds of a training step, memory; all measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from .events import Event, Reporter
from .models.networks import device_named, place, unusable
from .models.package import Model
from .peak import peak_memory_mb, reset_peak_memory
from .training.config import TrainingConfig
from .training.loop import fit
from .training.objectives import IncrementalObjective
from .training.patches import Batch
from .training.strategies import DEFAULT, strategy_named

_STEPS = 3  # the first is warm-up


@dataclass(frozen=True)
class Device:
    """What an update would run on.

    ``device`` is ``cpu`` or a CUDA device, ``name`` what people call it, ``reason`` why the CPU is used (empty on a
    GPU), ``free_mb`` its free memory.
    """

    device: str
    name: str
    reason: str
    free_mb: float | None


@dataclass(frozen=True)
class Estimate(Device):
    """One machine's answer; ``peak_mb`` is what a step took at most."""

    seconds_per_step: float
    peak_mb: float


def find_device(asked: str) -> Device:
    """The device of this name, or the best there is (``auto``); nothing is measured.

    Raises:
        InputError: it cannot be used.
    """
    device = device_named(asked)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return Device(str(device), name, _reason(asked), _free_mb(device))


def estimate(model: Model, config: TrainingConfig, reporter: Reporter) -> Estimate:
    """Train a copy of ``model`` on noise for a few steps of an update and say what they took.

    Raises:
        InputError: the device that ``config`` names cannot be used.
    """
    found = find_device(config.device)
    device = torch.device(found.device)
    reset_peak_memory(device)
    spread = sorted(_seconds(model, config, device, reporter)[1:])
    return Estimate(**vars(found), seconds_per_step=round(spread[0], 3), peak_mb=round(peak_memory_mb(device)))


def _seconds(model: Model, config: TrainingConfig, device: torch.device, reporter: Reporter) -> list[float]:
    """Seconds of every step, by the training loop itself: precision and smaller patches included."""
    told = [time.monotonic()]

    def note(event: Event) -> None:
        if event["event"] == "progress":
            told.append(time.monotonic())
        elif event["event"] == "message":
            reporter.emit(**event)

    student = model.with_branch(1).network if model.spec.branches else model.widened(model.classes + 1)
    teacher = place(model.network, device)
    objective = IncrementalObjective(teacher, strategy_named(DEFAULT), model.classes, model.classes + 1)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            student,
            objective,
            _Noise(model.classes + 1),
            replace(config, steps=_STEPS),
            device=device,
            checkpoint=Path(folder) / "training.pt",
            reporter=Reporter(note, cancelled=reporter.cancelled, every=0.0),
            phase="estimate",
        )
    return [after - before for before, after in pairwise(told)]


class _Noise:
    """Random patches in which half of the voxels are the new organ."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def batch(self, step: int, size: int, patch: Sequence[int]) -> Batch:
        """Patches of a step."""
        image = torch.randn(size, 1, *patch, generator=torch.Generator().manual_seed(step))
        target = (image[:, 0] > 0).long() * (self.classes - 1)
        annotated = torch.zeros(size, self.classes, dtype=torch.bool)
        annotated[:, [0, -1]] = True
        return Batch(image, image, target, annotated)


def _free_mb(device: torch.device) -> float | None:
    return round(torch.cuda.mem_get_info(device)[0] / 2**20) if device.type == "cuda" else None


def _reason(asked: str) -> str:
    if asked == "cpu":
        return "the CPU was asked for"
    if torch.cuda.is_available():
        return unusable("cuda") if asked == "auto" else ""
    if not torch.backends.cuda.is_built():
        return f"this PyTorch ({torch.__version__}) was built for the CPU: install a CUDA build to use an NVIDIA GPU"
    return "PyTorch finds no NVIDIA GPU: check the graphics driver"
