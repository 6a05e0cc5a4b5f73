"""DAPD: prototypes of a batch, and their alignment with the stored and the old model's: golden numbers, gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from voxels import CLASSES, OLD, gradient, random_labels, random_logits

from IncrementalSegLib.losses.dual_aligned import DualAlignment
from IncrementalSegLib.losses.unbiased import IGNORE, UnbiasedSegmentationLoss
from IncrementalSegLib.prototypes import Prototypes, RunningPrototypes, local_means
from IncrementalSegLib.training.guidance import Guidance
from IncrementalSegLib.training.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("one_thread")
EVERY = torch.tensor([True, True, True])


def prototypes(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def distance(a: Tensor, b: Tensor) -> float:
    return 1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


# Sums over the voxels of a batch


def test_means_of_a_batch_are_those_of_its_voxels() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 4, 5, 6), generator=generator)
    labels[labels == 2] = IGNORE
    means, present = local_means(features, labels, 4)
    assert present.tolist() == [True, True, False, True] and not means[2].any()
    together = features.transpose(0, 1)
    for c in (0, 1, 3):
        assert torch.allclose(means[c], together[:, labels == c].mean(1), rtol=1e-12)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_half_precision_neither_overflow_nor_lose_digits(dtype: torch.dtype, autocast: bool) -> None:
    features = (3 + torch.rand(2, 2, 32, 32, 32, generator=torch.Generator().manual_seed(0))).to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):  # sums of 32,768 voxels: more than float16 can count
        means, _ = local_means(features, torch.zeros(2, 32, 32, 32, dtype=torch.long), 2)
    assert means.dtype == torch.float32
    assert torch.allclose(means[0], features.double().mean((0, 2, 3, 4)).float(), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_sum_the_voxels_of_segmentation_in_half_precision(dtype: torch.dtype) -> None:
    logits, target = random_logits(CLASSES, edge=48), random_labels(CLASSES, edge=48)  # 110,592 voxels a sample
    logits[:, 0] += 5
    hidden, found = torch.zeros(2, CLASSES, dtype=torch.bool), []
    for autocast in (False, True):
        at = logits.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=autocast):
            loss = UnbiasedSegmentationLoss()(at, target, hidden)
        found.append((loss, torch.autograd.grad(loss, at)[0]))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1]) and found[0][1].any()


# The loss


def test_alignment_by_hand() -> None:
    local = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    old_local = torch.tensor([[0.0, 3.0], [2.0, 2.0], [0.0, 1.0]])  # 90°, 0° and 0° away
    stored = torch.tensor([[-2.0, 0.0], [5.0, 0.0], [3.0, 3.0]])  # 180°, 45° and 45° away
    loss = DualAlignment(to_global=0.5, to_old_local=2.0)(local, old_local, stored, EVERY, EVERY)
    near = 1 - math.sqrt(0.5)
    assert loss.item() == pytest.approx((0.5 * (2 + near + near) + 2.0 * 1) / 3, abs=1e-6)


def test_without_the_second_term_it_matches_prototypes_as_sdr_does() -> None:
    local, old_local, stored = (prototypes(seed) for seed in range(3))
    present = torch.tensor([True, False, True])
    loss = DualAlignment(1.0, 0.0)(local, old_local, stored, present, EVERY)
    assert loss.item() == pytest.approx((distance(local[0], stored[0]) + distance(local[2], stored[2])) / 2)


def test_without_the_first_term_it_matches_the_old_models_prototypes() -> None:
    local, old_local, stored = (prototypes(seed) for seed in range(3))
    loss = DualAlignment(0.0, 1.0)(local, old_local, stored, EVERY, EVERY)
    assert loss.item() == pytest.approx(sum(distance(local[c], old_local[c]) for c in range(3)) / 3)


def test_the_second_term_is_at_rest_where_both_models_have_the_same_features() -> None:
    local = prototypes(0)
    loss, other = DualAlignment(0.0, 1.0), prototypes(1)
    assert loss(local, local.clone(), other, EVERY, EVERY).item() == pytest.approx(0, abs=1e-12)
    assert gradient(lambda x: loss(x, local, other, EVERY, EVERY), local).abs().max() < 1e-12
    assert gradient(lambda x: loss(x, local, other, EVERY, EVERY), other).abs().max() > 0.01


def test_absent_classes_are_skipped() -> None:
    local, old_local, stored = (prototypes(seed) for seed in range(3))
    present = torch.tensor([False, True, False])
    loss = DualAlignment(1.0, 1.0)
    expected = distance(local[1], stored[1]) + distance(local[1], old_local[1])
    local[0] = old_local[0] = 0  # what an absent class's mean is
    assert loss(local, old_local, stored, present, EVERY).item() == pytest.approx(expected)
    found = gradient(lambda x: loss(x, old_local, stored, present, EVERY), local)
    assert found.isfinite().all() and not found[[0, 2]].any() and found[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_any_class_it_is_zero_and_asks_for_nothing(dtype: torch.dtype) -> None:
    local, nothing = torch.zeros(3, 4, dtype=dtype), torch.zeros(3, dtype=torch.bool)
    loss = DualAlignment()
    assert loss(local, local, prototypes(0, dtype), nothing, EVERY).item() == 0
    assert not gradient(lambda x: loss(x, local, prototypes(0, dtype), nothing, EVERY), local).any()


def test_a_class_that_nobody_stored_is_held_at_the_old_model_only() -> None:
    local, old_local, stored = (prototypes(seed) for seed in range(3))
    stored[1] = 0
    loss = DualAlignment(1.0, 1.0)(local, old_local, stored, EVERY, torch.tensor([True, False, True]))
    globally = distance(local[0], stored[0]) + distance(local[2], stored[2])
    locally = sum(distance(local[c], old_local[c]) for c in range(3))
    assert loss.item() == pytest.approx((globally + locally) / 3)


def test_gradients_are_exact() -> None:
    local, old_local, stored = (prototypes(seed) for seed in range(3))
    present, known = torch.tensor([True, True, False]), torch.tensor([False, True, True])
    loss = DualAlignment(0.7, 1.3)
    assert torch.autograd.gradcheck(lambda x: loss(x, old_local, stored, present, known), (local.requires_grad_(),))


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 4), (3, 5), (3, 4), (3,), (3,)),
        ((3, 4), (3, 4), (2, 4), (3,), (3,)),
        ((3, 4), (3, 4), (3, 4), (2,), (3,)),
        ((3, 4), (3, 4), (3, 4), (3,), (4,)),
    ],
)
def test_refuses_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    vectors, flags = [torch.ones(shape) for shape in shapes[:3]], [torch.ones(s, dtype=torch.bool) for s in shapes[3:]]
    with pytest.raises(ValueError, match=r"prototypes \(3, 4\), \(3, [45]\) and \([23], 4\), classes \([23],\)"):
        DualAlignment()(*vectors, *flags)


# In a step


def alignment_of(ours: Tensor, theirs: Tensor, **weights: float) -> Tensor:
    """The guidance's part, with stored prototypes that are those of the old model in this batch."""
    logits, target = random_logits(OLD, edge=8), random_labels(OLD, edge=8)
    stored, _ = local_means(random_logits(6, edge=8), logits.argmax(1), OLD)
    strategy = replace(STRATEGIES["pgcd-dapd"], region=False, channel=0.0, **weights)
    running = RunningPrototypes(Prototypes(stored, torch.ones_like(stored), torch.ones(OLD)))
    return Guidance(strategy, running).eval()(ours, theirs, logits, target).parts["prototypes"]


def test_at_the_start_of_a_step_only_the_stored_prototypes_pull() -> None:
    features = random_logits(6, edge=8).abs()
    assert alignment_of(features, features, to_global=0.0, to_old_local=1.0).item() == pytest.approx(0, abs=1e-6)
    assert alignment_of(features, features, to_global=1.0, to_old_local=0.0) > 0.01
    assert alignment_of(features.flip(1), features, to_global=0.0, to_old_local=1.0) > 0.01


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_close(dtype: torch.dtype, autocast: bool) -> None:
    theirs = random_logits(6, edge=8).abs() * 1000
    ours = theirs + random_logits(6, edge=8).flip(1) * 500
    both = {"to_global": 1.0, "to_old_local": 1.0}
    full = alignment_of(ours, theirs, **both).item()
    with torch.autocast("cpu", dtype, enabled=autocast):
        half = alignment_of(ours.to(dtype), theirs.to(dtype), **both).item()
        found = gradient(lambda x: alignment_of(x, theirs.to(dtype), **both), ours.to(dtype))
    assert half == pytest.approx(full, rel=1e-2) and found.isfinite().all() and found.any()


def test_annotated_voxels_belong_to_no_old_class() -> None:
    logits, target = random_logits(OLD, edge=16), random_labels(OLD, edge=16)
    target[:, :8] = CLASSES - 1
    features, running = random_logits(6, edge=16).abs(), torch.rand(OLD, 6)
    guidance = Guidance(
        replace(STRATEGIES["pgcd-dapd"], region=False, channel=0.0, to_global=1.0, to_old_local=1.0),
        RunningPrototypes(Prototypes(running, torch.ones(OLD, 6), torch.ones(OLD))),
    ).eval()
    found = gradient(lambda x: guidance(x, features.flip(1), logits, target).parts["prototypes"], features)
    assert not found[:, :, :8].any() and found[:, :, 8::4, ::4, ::4].abs().sum(1).min() > 0
    labels = torch.where(target < OLD, logits.argmax(1), IGNORE)[..., ::4, ::4, ::4]
    local, old_local = (local_means(x[..., ::4, ::4, ::4], labels, OLD)[0] for x in (features, features.flip(1)))
    pairs = [(local[c], running[c]) for c in range(OLD)] + [(local[c], old_local[c]) for c in range(OLD)]
    expected = sum(distance(a, b) for a, b in pairs) / OLD
    assert guidance(features, features.flip(1), logits, target).parts["prototypes"].item() == pytest.approx(expected)
