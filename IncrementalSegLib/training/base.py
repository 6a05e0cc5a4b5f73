"""Base training: a new model from annotated cases (step 0), also of the upper bound and of specialists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..cases import Case, require_annotations
from ..errors import InputError
from ..losses.unbiased import IGNORE
from ..models.networks import NetworkSpec, build_network, device_named, divisor
from ..models.package import Model
from ..organs import OrganTable
from ..preprocessing import Preprocessing
from .config import TrainingConfig
from .loop import Objective
from .objectives import SupervisedObjective
from .outcome import prototypes_of, step_record, with_memory, with_pieces
from .patches import CachedCase
from .reshape import with_reshaped
from .workspace import Workspace, batches, prepare, run_loop, sampler_of


def train_base(
    cases: Sequence[Case],
    organs: OrganTable,
    config: TrainingConfig,
    workspace: Workspace,
    *,
    spec: NetworkSpec | None = None,
    preprocessing: Preprocessing | None = None,
    strategy: str = "base",
) -> Model:
    """A new model of ``organs`` from annotated cases (step 0, or the upper bound ``joint``).

    Raises:
        InputError: an organ without annotation, an unusable case.  Cancelled: resume with the same arguments.
    """
    spec, preprocessing = spec or NetworkSpec(), preprocessing or Preprocessing()
    require_annotations(cases, organs)
    cached = prepare(cases, organs, preprocessing, workspace)
    record = step_record(0, strategy, organs, cases, config, parent="")
    return fresh_model(cached, SupervisedObjective(), organs, config, workspace, spec, preprocessing, record)


def fresh_model(
    cached: Sequence[CachedCase],
    objective: Objective,
    organs: OrganTable,
    config: TrainingConfig,
    workspace: Workspace,
    spec: NetworkSpec,
    preprocessing: Preprocessing,
    record: dict[str, Any],
) -> Model:
    """A network that begins at random and minimises ``objective`` on these cases; ``record`` begins its history.

    Raises:
        Cancelled: resume with the same arguments.
    """
    torch.manual_seed(config.seed)
    network = build_network(spec, len(organs) + 1)
    copies, reporter = config.augmentation.copies, workspace.reporter
    enough = with_reshaped(cached, copies, preprocessing.spacing, workspace.cache, config.seed, reporter)
    sampler = sampler_of(enough, organs, preprocessing, config)
    run_loop(network, objective, config, workspace, "train", sampler)
    model = Model(network.cpu().eval(), spec, organs, preprocessing, config.patch, (record,))
    model = with_pieces(model, cached, reporter)
    scans = [(np.asarray(case.image), np.asarray(case.target)) for case in cached]
    labelled = [(hu, _known(target, case)) for (hu, target), case in zip(scans, cached, strict=True)]
    device = device_named(config.device)
    (prototypes,) = prototypes_of([model], labelled, model.classes, device, reporter)
    training = batches(sampler, config.batch, model.patch)
    return with_memory(model, scans, training, prototypes, config.seed, device, reporter)


def _known(target: np.ndarray, case: CachedCase) -> np.ndarray:
    """Labels in which 0 is background: where an organ was not annotated, nobody knows."""
    return target if case.annotated.all() else np.where(target == 0, IGNORE, target)


def require_fitting_patch(spec: NetworkSpec, patch: Sequence[int]) -> None:
    """Refuse a patch that the network's steps of resolution do not divide, or reduce to a single voxel.

    Raises:
        InputError: names the edge length it must be a multiple of.
    """
    edge = divisor(build_network(replace(spec, branches=()), 2))
    if any(length % edge for length in patch) or max(patch) == edge:
        shown = "×".join(map(str, patch))
        raise InputError(
            f"A patch of {shown} voxels does not fit {spec.name}: take multiples of {edge}, one of them larger."
        )
