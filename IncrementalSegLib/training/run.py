"""A training job from cases to a model: base training and the incremental step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..cases import Case, require_annotations
from ..errors import InputError
from ..events import Reporter
from ..inversion.memory import Scan
from ..models.networks import NetworkSpec, build_network, device_named, divisor, place
from ..models.package import Model
from ..organs import Organ, OrganTable
from ..volumes import Preprocessing
from .config import TrainingConfig
from .fusion import fuse_if_better
from .loop import Objective, fit
from .objectives import IncrementalObjective, SupervisedObjective, Thresholds
from .outcome import step_record, with_memory, with_pieces
from .patches import CachedCase, PatchSampler, cache_case
from .replay import Replay, frozen_copy, replay_summary
from .reshape import with_reshaped
from .strategies import Strategy
from .survey import question_overlaps, survey

_RECORDED = 32  # batches whose feature statistics are recorded where the network keeps none


@dataclass(frozen=True)
class Workspace:
    """Where a run keeps its cache and checkpoint, and to whom it reports."""

    folder: Path
    reporter: Reporter = field(default_factory=Reporter)

    @property
    def cache(self) -> Path:
        """Preprocessed cases."""
        return self.folder / "cache"

    @property
    def synthetic(self) -> Path:
        """Synthetic volumes for replay."""
        return self.folder / "synthetic"

    @property
    def student(self) -> Path:
        """The weights with which the student competed halfway."""
        return self.folder / "checkpoint" / "student.pt"

    @property
    def checkpoint(self) -> Path:
        """The training checkpoint."""
        return self.folder / "checkpoint" / "training.pt"


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
    cached = _prepare(cases, organs, preprocessing, workspace)
    torch.manual_seed(config.seed)
    network = build_network(spec, len(organs) + 1)
    copies, reporter = config.augmentation.copies, workspace.reporter
    enough = with_reshaped(cached, copies, preprocessing.spacing, workspace.cache, config.seed, reporter)
    sampler = _sampler(enough, organs, preprocessing, config)
    _fit(network, SupervisedObjective(), config, workspace, "train", sampler)
    record = step_record(0, strategy, organs, cases, config, parent="")
    model = Model(network.cpu().eval(), spec, organs, preprocessing, config.patch, (record,))
    model = with_pieces(model, cached, reporter)
    scans = [(np.asarray(case.image), np.asarray(case.target)) for case in cached]
    return with_memory(model, scans, _batches(sampler, config.batch, model.patch), config.seed, reporter)


def update_model(
    model: Model,
    cases: Sequence[Case],
    new_organs: Sequence[Organ],
    config: TrainingConfig,
    strategy: Strategy,
    workspace: Workspace,
    *,
    heldout: Sequence[Case] = (),
    allow_overlap: bool = False,
) -> Model:
    """The incremental step: the model with ``new_organs`` learned from cases in which only they are annotated.

    ``heldout`` cases are never trained on; they decide whether weight fusion is kept.

    Raises:
        InputError: organ known already, not annotated, or annotated over an old one.  Cancelled: resume.
    """
    organs = extend_organs(model.organs, new_organs)
    if strategy.all_labels:
        joint = train_base(
            cases,
            organs,
            config,
            workspace,
            spec=model.spec,
            preprocessing=model.preprocessing,
            strategy=strategy.name,
        )
        record = {**joint.history[0], "step": len(model.history), "parent": model.hash}
        return replace(joint, history=(*model.history, record))
    new = list(organs)[len(model.organs) :]
    cases = [case.restricted(organ.key for organ in new) for case in cases]
    require_annotations(cases, new)
    device, reporter = device_named(config.device), workspace.reporter
    material = _material(model, cases, organs, strategy, allow_overlap, workspace, device)
    torch.manual_seed(config.seed)
    network = model.widened(len(organs) + 1)
    if not strategy.from_background:
        _restart_new_rows(network, model)
    teacher = place(model.network, device)
    objective = IncrementalObjective(teacher, strategy, model.classes, len(organs) + 1, material.thresholds)
    replay = Replay(model, len(new), material.scans, strategy, workspace.synthetic, config.seed, device, reporter)
    synthetic = replay.cases()
    sampler = partial(_sampler, material.cases, organs, model.preprocessing, config, share=strategy.replay)
    update = partial(_fit, network, objective, config, workspace, "update", frozen=strategy.frozen_statistics)
    if synthetic and strategy.refresh:
        update(sampler(synthetic), until=config.steps // 2)
        synthetic += replay.cases(frozen_copy(network, workspace.student))
    patches = sampler(synthetic)
    update(patches)
    record = step_record(len(model.history), strategy.name, new, cases, config, model.hash)
    if strategy.replay:
        record["synthetic"] = replay_summary(workspace.synthetic, [model.organs.names[c - 1] for c in replay.channels])
    updated = replace(model, network=network.cpu().eval(), organs=organs, history=(*model.history, record), hash="")
    updated = with_pieces(updated, material.cases, reporter)
    if strategy.fusion and heldout:
        updated = fuse_if_better(model, updated, heldout, device, reporter)
    known = [(hu, channels) for (hu, _), channels in zip(material.scans, material.merged, strict=True)]
    return with_memory(updated, known, _batches(patches, config.batch, model.patch), config.seed, reporter)


@dataclass(frozen=True)
class _Material:
    """A step's cases, and what the current model sees in them: nothing where the strategy does not ask it.

    ``scans`` are HU and predicted channels, ``merged`` the same channels with the annotations over them.
    """

    cases: list[CachedCase]
    scans: Sequence[Scan] = ()
    merged: Sequence[np.ndarray] = ()
    thresholds: Thresholds | None = None


def _material(
    model: Model,
    cases: Sequence[Case],
    organs: OrganTable,
    strategy: Strategy,
    allow_overlap: bool,
    workspace: Workspace,
    device: torch.device,
) -> _Material:
    cached = _prepare(cases, organs, model.preprocessing, workspace)
    if not strategy.needs_teacher:
        return _Material(cached)
    seen = survey(model, cached, workspace.folder / "survey", device, workspace.reporter)
    if not allow_overlap:
        question_overlaps(cached, seen, organs, model.classes)
    scans = [(np.asarray(case.image), seen.predictions[case.key]) for case in cached]
    merged = [np.where(case.target > 0, case.target, seen.predictions[case.key]) for case in cached]
    return _Material(cached, scans, merged, seen.thresholds)


def require_fitting_patch(spec: NetworkSpec, patch: Sequence[int]) -> None:
    """Refuse a patch that the network's steps of resolution do not divide, or reduce to a single voxel.

    Raises:
        InputError: names the edge length it must be a multiple of.
    """
    edge = divisor(build_network(spec, 2))
    if any(length % edge for length in patch) or max(patch) == edge:
        shown = "×".join(map(str, patch))
        raise InputError(
            f"A patch of {shown} voxels does not fit {spec.name}: take multiples of {edge}, one of them larger."
        )


def extend_organs(old: OrganTable, new: Sequence[Organ]) -> OrganTable:
    """The old table with new organs behind it.

    Raises:
        InputError: an organ that the model has already, or an unknown parent.
    """
    if not new:
        raise InputError("No new organ was named: give at least one, for example --organ Pancreas.")
    for organ in new:
        if organ in old:
            raise InputError(f"The model knows '{organ.name}' already: choose another organ, or train a new model.")
        if organ.parent and organ.parent not in old.keys:
            raise InputError(f"The parent of '{organ.name}' is not among the model's organs ({', '.join(old.names)}).")
    return old.extended(replace(organ, label=0) for organ in new)


def _restart_new_rows(network: nn.Module, parent: Model) -> None:
    """Random weights for the new organs, and the background's bias as it was before it was split among them."""
    head, old = network.get_submodule("head"), parent.classes
    assert isinstance(head, nn.Conv3d) and head.bias is not None
    fresh = nn.Conv3d(head.in_channels, head.out_channels, kernel_size=1)
    with torch.no_grad():
        head.weight[old:] = fresh.weight[old:]
        head.bias[old:] = 0.0
        head.bias[0] += math.log(head.out_channels - old + 1)


def _prepare(
    cases: Sequence[Case], organs: OrganTable, preprocessing: Preprocessing, workspace: Workspace
) -> list[CachedCase]:
    cached = []
    for number, case in enumerate(cases, start=1):
        cached.append(cache_case(case, organs, preprocessing, workspace.cache))
        workspace.reporter.progress("prepare", number, len(cases))
    return cached


def _sampler(
    cases: Sequence[CachedCase],
    organs: OrganTable,
    preprocessing: Preprocessing,
    config: TrainingConfig,
    replay: Sequence[CachedCase] = (),
    share: float = 0.0,
) -> PatchSampler:
    return PatchSampler(
        cases,
        preprocessing,
        config.augmentation,
        organ_fraction=config.organ_fraction,
        seed=config.seed,
        mirror=organs.mirror_channels(),
        replay=replay,
        replay_share=share,
    )


def _batches(sampler: PatchSampler, size: int, patch: Sequence[int]) -> Iterator[Tensor]:
    return (sampler.batch(number, size, patch).image for number in range(_RECORDED))


def _fit(
    network: nn.Module,
    objective: Objective,
    config: TrainingConfig,
    workspace: Workspace,
    phase: str,
    sampler: PatchSampler,
    frozen: bool = False,
    until: int | None = None,
) -> None:
    fit(
        network,
        objective,
        sampler,
        config,
        device=device_named(config.device),
        checkpoint=workspace.checkpoint,
        reporter=workspace.reporter,
        phase=phase,
        frozen_statistics=frozen,
        until=until,
    )
