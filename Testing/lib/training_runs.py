"""Trainings of a few steps on small patients."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from IncrementalSegLib.cases import Case
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.models.networks import NetworkSpec
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.organs import OrganTable, organ_named
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.training.base import train_base
from IncrementalSegLib.training.config import TrainingConfig
from IncrementalSegLib.training.strategies import strategy_named
from IncrementalSegLib.training.update import update_model
from IncrementalSegLib.training.workspace import Workspace

TINY = NetworkSpec("UNet", {"spatial_dims": 3, "channels": [8, 16], "strides": [2], "norm": "batch"}, 8)
CONFIG = TrainingConfig(steps=5, batch=1, patch=(32, 32, 32), device="cpu", precision="float32")
COARSE = Preprocessing((12.0, 12.0, 12.0))


def train(cases: list[Case], folder: Path, config: TrainingConfig = CONFIG, reporter: Reporter | None = None) -> Model:
    organs = OrganTable.from_names(["Liver", "Spleen"])
    return train_base(cases, organs, config, Workspace(folder, reporter or Reporter()), spec=TINY, preprocessing=COARSE)


def update(
    parent: Model, cases: list[Case], folder: Path, strategy: str = "full", reporter: Reporter | None = None
) -> Model:
    workspace = Workspace(folder, reporter or Reporter())
    return update_model(
        parent, cases, [organ_named("Stomach")], CONFIG, strategy_named(strategy), workspace, allow_overlap=True
    )


def cancel_at(phase: str, step: int) -> Reporter:
    """A reporter that cancels once this step of this phase was reported."""
    seen: list[dict] = []
    return Reporter(
        seen.append, cancelled=lambda: any(e.get("phase") == phase and e["step"] >= step for e in seen), every=0
    )


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
