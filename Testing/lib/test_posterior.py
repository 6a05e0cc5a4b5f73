"""The posterior: probabilities worked out once for every loss of a step, and the background with what it may hide."""

from __future__ import annotations

import math

import pytest
import torch
from voxels import CLASSES, OLD, gradient, hidden_of, random_labels, random_logits

from IncrementalSegLib.losses.unbiased import Posterior, UnbiasedDistillation, UnbiasedSegmentationLoss

pytestmark = pytest.mark.usefixtures("one_thread")


def test_folding_is_the_sum_of_probabilities() -> None:
    logits = random_logits(CLASSES)
    hidden = hidden_of(1, 4, classes=CLASSES, batch=2)
    hidden[1] = hidden_of(1, 2, classes=CLASSES)
    background, p = Posterior.of(logits).background(hidden).exp().view_as(logits[:, 0]), logits.softmax(1)
    assert torch.allclose(background[0], p[0, 0] + p[0, 1] + p[0, 4], atol=1e-6)
    assert torch.allclose(background[1], p[1, 0] + p[1, 1] + p[1, 2], atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (0,)])
def test_folding_nothing_changes_nothing(hidden: tuple[int, ...]) -> None:
    posterior = Posterior.of(random_logits(3))
    assert torch.equal(posterior.background(hidden_of(*hidden, classes=3, batch=2)), posterior.log_p[:, 0])


def test_folding_stays_finite_where_probabilities_vanish() -> None:
    hidden = hidden_of(1, classes=3)
    for sure, expected in ((0, 0.0), (2, math.log(torch.finfo(torch.float32).tiny))):
        logits = torch.full((1, 3, 1, 1, 1), -200.0)
        logits[:, sure] = 200.0
        assert Posterior.of(logits).background(hidden).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert torch.isfinite(gradient(lambda x: Posterior.of(x).background(hidden).sum(), logits)).all()


def test_a_posterior_is_worked_out_once_and_gives_every_loss_the_same() -> None:
    logits, old = random_logits(CLASSES), random_logits(OLD)
    posterior, target, hidden = Posterior.of(logits), random_labels(CLASSES), hidden_of(1, 2, classes=CLASSES, batch=2)
    assert Posterior.of(posterior) is posterior and torch.allclose(posterior.p.sum(1), torch.ones(2, 64))
    assert UnbiasedSegmentationLoss()(posterior, target, hidden) == UnbiasedSegmentationLoss()(logits, target, hidden)
    assert UnbiasedDistillation()(posterior, Posterior.of(old), target) == UnbiasedDistillation()(logits, old, target)
