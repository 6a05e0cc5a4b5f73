"""What a finished training leaves beside weights: a history record, organs in one piece, a memory for synthesis."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cases import Case
from ..errors import InputError
from ..events import Reporter
from ..inversion.memory import Scan, remember
from ..models.package import Model
from ..organs import Organ
from ..pieces import connected_organs
from ..prototypes import Prototypes, collect
from ..report import versions
from .config import TrainingConfig
from .patches import CachedCase


def step_record(
    step: int, strategy: str, organs: Iterable[Organ], cases: Sequence[Case], config: TrainingConfig, parent: str
) -> dict[str, Any]:
    """The line of ``history.json`` for a step; ``metrics`` are filled in once it was reviewed."""
    prints = "".join(sorted(case.fingerprint() for case in cases))
    return {
        "step": step,
        "strategy": strategy,
        "organs": [organ.key for organ in organs],
        "parent": parent,
        "cases": len(cases),
        "data": hashlib.sha256(prints.encode()).hexdigest(),
        "steps": config.steps,
        "seed": config.seed,
        "metrics": {},
        "versions": versions(),
    }


def with_pieces(model: Model, cases: Sequence[CachedCase], reporter: Reporter) -> Model:
    """The model with the organs that these annotations show in one piece, beside those it knew.

    An organ that now has a structure inside it may be cut in two by it: it counts no longer.
    """
    parents = {organ.parent for organ in model.organs}
    known = [key for key in model.connected if key not in parents]
    found = connected_organs((np.asarray(case.target) for case in cases), model.organs)
    if found:
        names = ", ".join(model.organs.find(key).name for key in found)
        reporter.message(f"One piece in every annotated scan, and so predicted: {names}.")
    return replace(model, connected=(*known, *found))


def prototypes_of(
    models: Sequence[Model], scans: Sequence[Scan], classes: int, device: torch.device, reporter: Reporter
) -> list[Prototypes]:
    """Prototypes of every model on HU and labels (x, y, z) of these scans; all models have one preprocessing.

    Raises:
        Cancelled: the reporter says so.
    """
    images = ((torch.from_numpy(models[0].preprocessing.normalise(hu)), labels) for hu, labels in scans)
    found = collect([model.network for model in models], images, classes, models[0].patch, device, reporter)
    for model in models:
        model.network.cpu()
    return found


def recalled(model: Model, scans: Sequence[Scan], device: torch.device, reporter: Reporter) -> Prototypes:
    """The prototypes that a model remembers; of what it does not remember those of what it sees on these scans.

    Raises:
        PackageError: they are damaged.  Cancelled: the reporter says so.
    """
    known = None
    if "prototypes" in model.memory:
        known = Prototypes.from_state(model.memory["prototypes"], model.classes, model.spec.features)
        if (known.count > 0).all():
            return known
    seen = prototypes_of([model], scans, model.classes, device, reporter)[0]
    return known.completed(seen) if known else seen


def with_memory(
    model: Model,
    scans: Sequence[Scan],
    batches: Iterable[Tensor],
    prototypes: Prototypes | None,
    seed: int,
    device: torch.device,
    reporter: Reporter,
) -> Model:
    """The model with a memory of these scans (see `remember`); with none where nobody knows what is in them."""
    if not scans or prototypes is None:
        return replace(model, memory={})
    try:
        memory = remember(model, scans, batches, seed, device)
    except InputError as error:
        reporter.message(f"The model remembers nothing for synthesis: {error}", "warning")
        memory = {}
    return replace(model, memory={**memory, "prototypes": prototypes.to_state()})
