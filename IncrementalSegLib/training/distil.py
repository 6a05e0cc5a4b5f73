"""Distillation into a fresh network of ours, for teachers that cannot grow an output themselves (TorchScript)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..cases import Case
from ..errors import InputError
from ..models.networks import NetworkSpec, device_named, place
from ..models.package import Model
from .base import fresh_model
from .config import TrainingConfig
from .objectives import DistillationObjective
from .outcome import step_record
from .patches import CachedCase, organ_points
from .survey import survey
from .workspace import Workspace, prepare


def distil_model(
    teacher: Model, cases: Sequence[Case], config: TrainingConfig, workspace: Workspace, spec: NetworkSpec
) -> Model:
    """A network of ours that predicts what ``teacher`` does, learned on scans that nobody has to annotate.

    It has the teacher's organs and preprocessing, and its licence in the history.

    Raises:
        InputError: a scan cannot be read, or the teacher sees one of its organs in none of them.
        Cancelled: resume with the same arguments.
    """
    bare = [replace(case, label=None, annotated=()) for case in cases]
    cached = prepare(bare, teacher.organs, teacher.preprocessing, workspace)
    device = device_named(config.device)
    seen = survey(teacher, cached, workspace.folder / "survey", device, workspace.reporter)
    taught = [_labelled(case, seen.predictions[case.key]) for case in cached]
    _require_all(teacher, taught)
    record = step_record(0, "distilled", teacher.organs, bare, config, parent="")
    record["source"] = teacher.history[0]["source"]
    objective = DistillationObjective(place(teacher.network, device))
    return fresh_model(taught, objective, teacher.organs, config, workspace, spec, teacher.preprocessing, record)


def _labelled(case: CachedCase, labels: np.ndarray) -> CachedCase:
    return replace(case, target=labels, annotated=np.ones_like(case.annotated), points=organ_points(labels))


def _require_all(teacher: Model, taught: Sequence[CachedCase]) -> None:
    seen = {channel for case in taught for channel in case.points}
    missing = [organ.name for channel, organ in enumerate(teacher.organs, start=1) if channel not in seen]
    if missing:
        raise InputError(
            f"The teacher finds no {' and no '.join(missing)} in these {len(taught)} scans, so that nobody could "
            "learn it from them: add scans that show it."
        )
