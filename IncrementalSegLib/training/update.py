"""The incremental step: look at the new scans with the old model, train, remember (method §6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ..cases import Case, require_annotations
from ..errors import InputError
from ..inversion.memory import Scan
from ..models.networks import device_named, place
from ..models.package import Model
from ..organs import Organ, OrganTable
from ..prototypes import Prototypes, RunningPrototypes, grown
from .base import train_base
from .calibration import calibrated
from .config import TrainingConfig
from .fusion import fused
from .guidance import Guidance
from .objectives import IncrementalObjective
from .outcome import prototypes_of, recalled, step_record, with_memory, with_pieces
from .patches import CachedCase, PatchSampler
from .replay import Replay, frozen_copy, replay_summary
from .reshape import with_reshaped
from .strategies import Strategy
from .survey import question_overlaps, survey
from .workspace import Workspace, batches, prepare, run_loop, sampler_of


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
    new = list(organs)[len(model.organs) :]
    if strategy.from_scratch:
        return _from_scratch(
            model, cases, organs if strategy.from_scratch == "all" else new, config, strategy, workspace
        )
    require_growth(model, strategy, any(organ.parent for organ in new))
    cases = [case.restricted(organ.key for organ in new) for case in cases]
    require_annotations(cases, new)
    asked, config = config, _of_this_step(config, model)
    torch.manual_seed(config.seed)
    student = _student(model, organs, strategy)
    material = _material(model, cases, organs, strategy, config, allow_overlap, workspace)
    trained = _train(model, student, material, config, strategy, workspace)
    record = step_record(len(model.history), strategy.name, new, cases, asked, model.hash)
    updated = replace(student, history=(*model.history, {**record, **trained.record}))
    updated = with_pieces(updated, material.cases, workspace.reporter)
    if strategy.calibrated and len(model.history) > 1:  # the teacher was taught by a teacher
        updated = calibrated(model, updated, material.labelled, device_named(config.device), workspace.reporter)
    if strategy.fusion:
        device = device_named(config.device)
        updated = fused(model, updated, strategy.fusion, heldout, device, workspace.reporter)
    return _remembering(model, updated, material, trained, config, workspace)


@dataclass(frozen=True)
class _Trained:
    """What a training leaves beside weights: its patches, the prototypes it ran with, what history says of it."""

    patches: PatchSampler
    prototypes: Prototypes | None
    record: dict[str, Any]


def _train(
    model: Model, student: Model, material: _Material, config: TrainingConfig, strategy: Strategy, workspace: Workspace
) -> _Trained:
    """Train the student's network in place on the new scans, and on synthetic volumes where they are needed."""
    device, reporter = device_named(config.device), workspace.reporter
    known = recalled(model, material.scans, device, reporter) if material.scans else None
    guidance = Guidance(strategy, RunningPrototypes(known)).to(device) if known and strategy.guided else None
    teacher, new = place(model.network, device), student.classes - model.classes
    classes = model.classes, student.classes
    objective = IncrementalObjective(teacher, strategy, *classes, material.entropy, guidance, config.steps)
    replay = Replay(model, new, material.scans, strategy, workspace.synthetic, config.seed, device, reporter)
    synthetic = replay.cases()
    sampler = partial(sampler_of, material.training, student.organs, model.preprocessing, config, share=strategy.replay)
    frozen = strategy.frozen_statistics
    update = partial(run_loop, student.network, objective, config, workspace, "update", frozen=frozen, carried=guidance)
    if synthetic and strategy.refresh:
        update(sampler(synthetic), until=config.steps // 2)
        synthetic += replay.cases(frozen_copy(student.network, workspace.student))
    patches = sampler(synthetic)
    update(patches)
    student.network.cpu().eval()
    replayed = [model.organs.names[channel - 1] for channel in replay.channels]
    record = {"synthetic": replay_summary(workspace.synthetic, replayed)} if strategy.replay else {}
    return _Trained(patches, guidance.prototypes.prototypes() if guidance else known, record)


def _remembering(
    model: Model, updated: Model, material: _Material, trained: _Trained, config: TrainingConfig, workspace: Workspace
) -> Model:
    """The updated model with what it remembers for the next step."""
    scans, prototypes, device = material.labelled, trained.prototypes, device_named(config.device)
    reporter = workspace.reporter
    if prototypes:
        seen = prototypes_of([model, updated], scans, updated.classes, device, reporter)
        prototypes = grown(prototypes, *seen)
    training = batches(trained.patches, config.batch, model.patch)
    return with_memory(updated, scans, training, prototypes, config.seed, device, reporter)


def _from_scratch(
    model: Model,
    cases: Sequence[Case],
    organs: Iterable[Organ],
    config: TrainingConfig,
    strategy: Strategy,
    workspace: Workspace,
) -> Model:
    """A new model of the same kind, its history behind the old one's."""
    fresh = train_base(
        cases,
        OrganTable(organs),
        config,
        workspace,
        spec=replace(model.spec, branches=()),
        preprocessing=model.preprocessing,
        strategy=strategy.name,
    )
    record = {**fresh.history[0], "step": len(model.history), "parent": model.hash}
    return replace(fresh, history=(*model.history, record))


def _of_this_step(config: TrainingConfig, model: Model) -> TrainingConfig:
    """With a seed of its own: with one seed, all steps of a sequence would draw the same patches and warped copies."""
    return replace(config, seed=config.seed + max(0, len(model.history) - 1))


def _student(model: Model, organs: OrganTable, strategy: Strategy) -> Model:
    """The model as the step starts: widened, or with a branch beside the old network."""
    if strategy.lock:
        return replace(model.with_branch(len(organs) - len(model.organs)), organs=organs, hash="")
    network = model.widened(len(organs) + 1, strategy.from_background)
    return replace(model, network=network, organs=organs, hash="")


@dataclass(frozen=True)
class _Material:
    """A step's cases, and what the current model sees in them: nothing where the strategy does not ask it.

    ``training`` are the cases and their warped copies, with pseudo-labels where the strategy has them; ``scans`` HU and
    predicted channels, ``merged`` the same channels with the annotations over them.
    """

    cases: list[CachedCase]
    training: list[CachedCase]
    scans: Sequence[Scan] = ()
    merged: Sequence[np.ndarray] = ()
    entropy: torch.Tensor | None = None

    @property
    def labelled(self) -> list[Scan]:
        """HU and ``merged`` of every scan."""
        return [(hu, channels) for (hu, _), channels in zip(self.scans, self.merged, strict=True)]


def _material(
    model: Model,
    cases: Sequence[Case],
    organs: OrganTable,
    strategy: Strategy,
    config: TrainingConfig,
    allow_overlap: bool,
    workspace: Workspace,
) -> _Material:
    cached = prepare(cases, organs, model.preprocessing, workspace)
    where = (config.augmentation.copies, model.preprocessing.spacing, workspace.cache, config.seed, workspace.reporter)
    if not (strategy.needs_teacher or strategy.lock):
        return _Material(cached, with_reshaped(cached, *where))
    seen = survey(model, cached, workspace.folder / "survey", device_named(config.device), workspace.reporter)
    if not allow_overlap:
        question_overlaps(cached, seen, organs, model.classes)
    scans = [(np.asarray(case.image), seen.predictions[case.key]) for case in cached]
    merged = [np.where(case.target > 0, case.target, seen.predictions[case.key]) for case in cached]
    taught = cached
    if strategy.pseudo_labels == "survey":
        taught = [replace(case, target=labels) for case, labels in zip(cached, merged, strict=True)]
    return _Material(cached, with_reshaped(taught, *where, merged), scans, merged, seen.entropy)


def require_growth(model: Model, strategy: Strategy, inside: bool) -> None:
    """Refuse a strategy that cannot give this model another organ; ``inside``: one that lies inside an old one.

    Raises:
        InputError: says which strategy can.
    """
    if strategy.from_scratch == "new":
        raise InputError(f"A {strategy.name} knows none of the old organs: train one with  incrementalseg train.")
    if model.spec.branches and not (strategy.lock or strategy.from_scratch):
        raise InputError("This model keeps its old organs locked: add organs to it with --strategy locked.")
    if strategy.lock and inside:
        raise InputError("The new structure lies inside an old organ, which is locked: choose another strategy.")


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
