"""Calibration after the step: every old organ as large, on the scans just learned from, as the old model saw it there.

Training on augmented patches with soft Dice leaves organs a fraction of a voxel too large, which nobody notices in one
step; in the next one these predictions are the pseudo-labels, and organs grow from step to step. One bias per organ
in the last layer takes it back, as BiC (Wu et al. 2019) corrects its last layer after every step; that volumes are
what is matched, from the second step on, is our formulation. The first step's teacher has learned from annotations, and
what organs grow by then does good on other patients. New organs stay as trained: made as small as their labels, they
were missed on other patients (pancreas after four updates: 0.28 instead of 0.40).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..events import Reporter
from ..inference import probabilities
from ..inversion.memory import Scan
from ..models.package import Model
from ..models.widen import head_biases
from ..pieces import keep_largest_pieces

_VOXELS = 1_000_000  # doubtful voxels that are kept, of all scans together
_CERTAIN = 1e-4
_SWEEPS = 5
_LARGEST_SHIFT = 2.0

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer]


def calibrated(parent: Model, updated: Model, scans: Sequence[Scan], device: torch.device, reporter: Reporter) -> Model:
    """The model with its last layer's biases shifted so that volumes of old organs on these scans are as labelled.

    Args:
        parent: the model before the step.
        updated: the model after it.
        scans: HU and labels (x, y, z): the parent's predictions, and the new annotations over them.

    Raises:
        Cancelled: the reporter says so.
    """
    found = []
    for number, (hu, labels) in enumerate(scans, start=1):
        found.append(_doubtful(updated, hu, labels, _VOXELS // len(scans), device, reporter))
        reporter.progress("calibration", number, len(scans))
    scores, labels = (np.concatenate(part, -1) for part in zip(*found, strict=True))
    shifts = shifts_to_volumes(scores, labels, parent.classes)
    names = ", ".join(f"{name} {shift:+.2f}" for name, shift in zip(parent.organs.names, shifts[1:], strict=False))
    reporter.message(f"Calibrated to the volumes on the new scans: {names}.")
    state = {key: tensor.clone() for key, tensor in updated.network.cpu().state_dict().items()}
    for key in head_biases(parent.network.state_dict(), state):
        state[key] += torch.from_numpy(shifts)
    return updated.with_weights(state)


def _doubtful(
    model: Model, hu: np.ndarray, labels: Labels, limit: int, device: torch.device, reporter: Reporter
) -> tuple[Floats, Labels]:
    """Scores (1 + K, n) and labels (n,) of voxels that are no certain background, at most about ``limit`` of them."""
    q = probabilities(
        model.network, torch.from_numpy(model.preprocessing.normalise(hu)), model.patch, device, reporter.check
    )
    predicted = q.argmax(0).to(torch.uint8).numpy()
    pieces = predicted.copy()
    keep_largest_pieces(pieces, map(model.organs.channel, model.connected))
    counted = ((q[0].numpy() < 1 - _CERTAIN) | (labels > 0)) & (pieces == predicted)
    where = np.flatnonzero(counted)
    where = where[:: 1 + len(where) // limit]
    scores = q.reshape(len(q), -1)[:, where].clamp(min=1e-12).log()
    return scores.numpy(), np.asarray(labels).reshape(-1)[where]


def shifts_to_volumes(scores: Floats, labels: Labels, old: int) -> Floats:
    """Shifts (C,) of scores (C, n) after which organs below ``old`` win as many voxels as ``labels`` (n,) give them.

    Organ by organ, with the others as they are, five times over; none is moved by more than 2. What has no label is
    not moved.
    """
    shifted, volumes = scores.copy(), np.bincount(labels, minlength=len(scores))
    for _ in range(_SWEEPS):
        for organ in np.flatnonzero(volumes[1:old]) + 1:
            margin = shifted[organ] - np.delete(shifted, organ, 0).max(0)
            least = np.partition(margin, -volumes[organ])[-volumes[organ]]
            total = shifted[organ, 0] - scores[organ, 0] - least
            shifted[organ] = scores[organ] + np.clip(total, -_LARGEST_SHIFT, _LARGEST_SHIFT)
    return np.asarray(shifted[:, 0] - scores[:, 0], np.float32)
