"""Pseudo-labels: what the old model is trusted with on unlabelled voxels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from IncrementalSegLib.losses.unbiased import IGNORE
from IncrementalSegLib.training.objectives import (
    confident_pseudo_labels,
    entropy_pseudo_labels,
    normalised_entropy,
)


def voxels(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities).T.reshape(1, len(probabilities[0]), len(probabilities))


def test_confident_pseudo_labels_in_every_branch() -> None:
    q = voxels(
        [0.20, 0.75, 0.05],  # sure of organ 1
        [0.10, 0.10, 0.80],  # organ 2 needs 0.9: an old organ, but not sure which
        [0.45, 0.30, 0.25],  # no organ alone, together more than background
        [0.60, 0.30, 0.10],  # background
        [0.05, 0.04, 0.91],  # sure of organ 2
        [0.50, 0.50, 0.00],  # a tie with background is no organ unless confident
        [0.30, 0.70, 0.00],  # at the threshold is confident
    )
    labels = confident_pseudo_labels(q, torch.tensor([0.5, 0.7, 0.9]))
    assert labels.tolist() == [[1, IGNORE, IGNORE, 0, 2, 0, 1]]


def test_entropy_pseudo_labels_in_every_branch() -> None:
    q = voxels([0.98, 0.01, 0.01], [0.02, 0.96, 0.02], [0.4, 0.3, 0.3], [0.3, 0.35, 0.35], [0.01, 0.01, 0.98])
    labels = entropy_pseudo_labels(q, torch.tensor([0.2, 0.3, 0.01]))
    assert labels.tolist() == [[0, 1, IGNORE, IGNORE, IGNORE]]


def test_entropy_is_normalised() -> None:
    q = voxels([1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0])
    expected = torch.tensor([[0.0, 1.0, math.log(2) / math.log(3)]])
    assert torch.allclose(normalised_entropy(q), expected, atol=1e-5)
