"""PGCD: golden numbers, trust where features agree, MiB where it is switched off, gradients to the student only."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from voxels import CLASSES, OLD, gradient, random_labels, random_logits

from IncrementalSegLib.losses.calibrated import CalibratedFeatureDistillation, Calibration
from IncrementalSegLib.losses.unbiased import UnbiasedDistillation

pytestmark = pytest.mark.usefixtures("one_thread")
FEATURES, EDGE = 6, 8
EVERY = torch.tensor([True, True, True])


def of_voxels(*voxels: tuple[float, ...]) -> Tensor:
    """Voxels, each a list of channels, as (1, C, n, 1, 1)."""
    return torch.tensor(voxels).T.reshape(1, len(voxels[0]), len(voxels), 1, 1)


def unlabelled(edge: int = 4) -> Tensor:
    return torch.zeros(2, edge, edge, edge, dtype=torch.long)


# Affinity


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_affinity_by_hand(temperature: float) -> None:
    means = torch.tensor([[4.0, 2.0], [2.0, 4.0]])  # around (3, 3), in opposite directions
    voxels = of_voxels((5.0, 3.0), (3.0, 3.5), (4.0, 4.0), (3.0, 3.0))
    affinity = Calibration(temperature).affinity(voxels, means, EVERY[:2])
    assert affinity.shape == (1, 2, 4)
    odds = math.exp(2 * math.sqrt(0.5) / temperature)  # cosines are ± sqrt(1/2), then the same the other way round
    first = torch.tensor([odds / (1 + odds), 1 / (1 + odds), 0.5, 0.5])
    assert torch.allclose(affinity[0], torch.stack([first, 1 - first]), atol=1e-5)


def test_features_are_compared_around_the_mean_prototype_and_not_by_their_length() -> None:
    means, features = torch.randn(3, FEATURES).abs() + 10, random_logits(FEATURES).abs() + 10
    calibration, centre = Calibration(), means.mean(0)[:, None, None, None]
    affinity = calibration.affinity(features, means, EVERY)
    longer = calibration.affinity(centre + 3 * (features - centre), means, EVERY)
    elsewhere = calibration.affinity(features - 10, means - 10, EVERY)
    assert torch.allclose(affinity, longer, atol=1e-4) and torch.allclose(affinity, elsewhere, atol=1e-4)
    assert torch.allclose(affinity.sum(1), torch.ones(2, 64)) and affinity.max() > 0.9


def test_classes_without_a_prototype_get_no_affinity_and_do_not_matter() -> None:
    features, means = random_logits(FEATURES), torch.randn(3, FEATURES, generator=torch.Generator().manual_seed(0))
    known = torch.tensor([True, False, True])
    affinity = Calibration().affinity(features, means, known)
    assert not affinity[:, 1].any()
    assert torch.allclose(affinity[:, [0, 2]], Calibration().affinity(features, means[[0, 2]], EVERY[:2]))


# Region


def test_region_weights_by_hand() -> None:
    affinity, q = torch.tensor([[[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]]]), torch.tensor([[[1.0, 0.5, 0.1], [0.0, 0.5, 0.9]]])
    counted = torch.tensor([[True, True, False]])
    known = torch.tensor([True, True])
    linear = Calibration(gamma=1.0).region(affinity, q, counted, known)
    assert torch.allclose(linear, torch.tensor([[0.9, 0.5, 0.5]]) / 0.7)
    squared = Calibration(gamma=2.0).region(affinity, q, counted, known)
    assert torch.allclose(squared, torch.tensor([[0.81, 0.34, 0.25]]) / 0.575)
    trusting = Calibration().region(affinity, q, counted, torch.tensor([True, False]))
    assert torch.allclose(trusting, torch.tensor([[0.9, 0.6, 0.95]]) / 0.75)  # nothing speaks against the second class


def test_gamma_zero_trusts_every_voxel_alike() -> None:
    affinity, q = (random_logits(OLD + i, dtype=torch.float64)[:, :OLD].flatten(2).softmax(1) for i in range(2))
    affinity[:, 1] = 0
    counted, known = random_labels(2).flatten(1) > 0, torch.ones(OLD, dtype=torch.bool)
    assert (Calibration(gamma=0.0).region(affinity, q, counted, known) - 1).abs().max() < 1e-12


# Channels and feature distillation


def test_channel_weights_by_hand() -> None:
    means, variances = torch.tensor([[1.0, 1.0], [4.0, 0.0]]), torch.tensor([[3.0, 0.5], [6.0, 0.5]])
    found = Calibration.channels(means, variances)
    first, second = 3 / math.sqrt(9), 1 / math.sqrt(1)
    assert found[0].tolist() == [1, 1]
    assert found[1].tolist() == pytest.approx(
        [first / ((first + second) / 2), second / ((first + second) / 2)], abs=1e-4
    )
    unequal = Calibration.channels(torch.tensor([[0.0, 0.0], [1.0, 3.0], [0.0, 0.0]]), torch.ones(3, 2))
    assert torch.allclose(unequal, torch.tensor([[1.0, 1.0], [0.5, 1.5], [0.0, 0.0]]))


def test_feature_distillation_by_hand() -> None:
    ours, theirs = of_voxels((1.0, 2.0), (0.0, 0.0)), of_voxels((3.0, 1.0), (0.0, 4.0))  # squares 4, 1 and 0, 16
    affinity = torch.tensor([[[1.0, 0.25], [0.0, 0.75]]])
    channels, scale = torch.tensor([[1.0, 1.0], [0.4, 1.6]]), torch.tensor([2.0, 4.0])
    loss = CalibratedFeatureDistillation()(ours, theirs, affinity, channels, scale)
    assert loss.item() == pytest.approx((4 / 2 + 1 / 4 + 0 + (0.25 + 0.75 * 1.6) * 16 / 4) / 4, abs=1e-4)
    assert CalibratedFeatureDistillation()(theirs, theirs, affinity, channels, scale) == 0


# Weighted distillation


def perfect(teacher: Tensor, new: int) -> Tensor:
    """Logits of a student that says what the teacher says: the background's mass split over the new classes."""
    background = teacher[:, :1] - math.log(new + 1)
    return torch.cat([background, teacher[:, 1:], background.expand(-1, new, -1, -1, -1)], 1)


def test_with_weights_of_one_it_is_unbiased_distillation_to_the_last_digit() -> None:
    student, teacher = random_logits(CLASSES), random_logits(OLD)
    ours = UnbiasedDistillation(label_guided=True)(student, teacher, unlabelled(), torch.ones(2, 64))
    assert ours == UnbiasedDistillation()(student, teacher, unlabelled())


@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_student_feels_nothing_whatever_the_weights(seed: int) -> None:
    teacher = random_logits(OLD, dtype=torch.float64)
    weight = 10 * torch.rand(2, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss, student = UnbiasedDistillation(label_guided=True), perfect(teacher, 2)
    assert gradient(lambda x: loss(x, teacher, unlabelled(), weight), student).abs().max() < 1e-12
    student[:, 1] += 1
    assert gradient(lambda x: loss(x, teacher, unlabelled(), weight), student).abs().max() > 1e-3


def test_a_weight_scales_its_voxels_share() -> None:
    student, teacher = random_logits(CLASSES), random_logits(OLD)
    weight = torch.rand(2, 64, generator=torch.Generator().manual_seed(0))
    loss = UnbiasedDistillation()
    weighted, plain = (gradient(lambda x, w=w: loss(x, teacher, unlabelled(), w), student) for w in (weight, None))
    assert torch.allclose(weighted, plain * weight.reshape(2, 1, 4, 4, 4), atol=1e-7)


# Precision and shapes


def test_gradients_are_exact() -> None:
    student, teacher = (random_logits(n, edge=2, dtype=torch.float64) for n in (CLASSES, OLD))
    weight, target = torch.rand(2, 8, dtype=torch.float64), random_labels(CLASSES, edge=2)
    weighted = UnbiasedDistillation(label_guided=True)
    assert torch.autograd.gradcheck(lambda x: weighted(x, teacher, target, weight), (student.requires_grad_(),))
    affinity, scale = teacher.softmax(1).flatten(2), torch.rand(CLASSES, dtype=torch.float64)
    channels, theirs = torch.rand(OLD, CLASSES, dtype=torch.float64), student.detach().flip(1)
    loss = CalibratedFeatureDistillation()
    assert torch.autograd.gradcheck(lambda x: loss(x, theirs, affinity, channels, scale), (student,))


def test_refuses_shapes_that_do_not_fit() -> None:
    features, affinity, channels = torch.zeros(1, 4, 2, 2, 2), torch.zeros(1, 3, 8), torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"features \(1, 4, 2, 2, 2\), prototypes \(3, 5\)"):
        Calibration().affinity(features, torch.zeros(3, 5), EVERY)
    with pytest.raises(ValueError, match=r"features \(1, 4, 2, 2, 2\), prototypes \(2, 4\)"):
        Calibration().affinity(features, torch.zeros(2, 4), EVERY)
    for shapes in ((features[:, :3], affinity, channels), (features, affinity[:, :2], channels)):
        with pytest.raises(ValueError, match=r"features .* affinity \(1, [23], 8\), channels \(3, 4\)"):
            CalibratedFeatureDistillation()(features, *shapes, torch.ones(4))
    with pytest.raises(ValueError, match=r"weight \(2, 63\)"):
        UnbiasedDistillation()(random_logits(CLASSES), random_logits(OLD), unlabelled(), torch.ones(2, 63))
