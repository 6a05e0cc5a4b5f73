"""Pseudo-labels: what the old model says of unlabelled voxels, of a whole scan or patch by patch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training_runs import CONFIG, train, update

from IncrementalSegLib.cases import Case
from IncrementalSegLib.losses.unbiased import IGNORE
from IncrementalSegLib.training import update as training
from IncrementalSegLib.training.objectives import entropy_pseudo_labels, normalised_entropy


def voxels(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities).T.reshape(1, len(probabilities[0]), len(probabilities))


def test_entropy_pseudo_labels_in_every_branch() -> None:
    q = voxels([0.98, 0.01, 0.01], [0.02, 0.96, 0.02], [0.4, 0.3, 0.3], [0.3, 0.35, 0.35], [0.01, 0.01, 0.98])
    labels = entropy_pseudo_labels(q, torch.tensor([0.2, 0.3, 0.01]))
    assert labels.tolist() == [[0, 1, IGNORE, IGNORE, IGNORE]]


def test_entropy_is_normalised() -> None:
    q = voxels([1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0])
    expected = torch.tensor([[0.0, 1.0, math.log(2) / math.log(3)]])
    assert torch.allclose(normalised_entropy(q), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["full", "full-without-pseudo-labels", "mib"])
def test_the_scan_and_its_warped_copies_carry_what_the_old_model_sees(
    name: str, two_cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, learned = train(two_cases, tmp_path / "base"), []
    real = training.sampler_of

    def noted(cases, *rest, **more):
        learned.extend(cases)
        return real(cases, *rest, **more)

    monkeypatch.setattr(training, "sampler_of", noted)
    update(parent, two_cases, tmp_path / "step", name)
    seen = {path.stem: np.load(path) for path in (tmp_path / "step" / "survey").glob("*.npy")}
    assert len(learned) == len(two_cases) * (1 + CONFIG.augmentation.copies) and len(seen) == len(two_cases)
    new = parent.classes
    for case in learned[: len(two_cases)]:
        target = np.asarray(case.target)
        expected = np.where(target == new, new, seen[case.key]) if name == "full" else np.where(target == new, new, 0)
        assert np.array_equal(target, expected) and (seen[case.key] > 0).any() and (target == new).any()
    for copy in learned[len(two_cases) :]:
        labels = set(np.unique(copy.target))
        assert (labels - {0, new} != set()) == (name == "full") and copy.points.keys() == {new}
