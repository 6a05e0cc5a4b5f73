"""Guidance: what prototypes say of a batch, and to whom it applies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from voxels import CLASSES, OLD, gradient, random_labels, random_logits

from IncrementalSegLib.losses.unbiased import IGNORE
from IncrementalSegLib.prototypes import Prototypes, RunningPrototypes
from IncrementalSegLib.training.guidance import Advice, Guidance
from IncrementalSegLib.training.objectives import IncrementalObjective
from IncrementalSegLib.training.patches import Batch
from IncrementalSegLib.training.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("one_thread")
FEATURES, EDGE = 6, 8
PGCD = replace(STRATEGIES["pgcd-dapd"], to_global=1.0, to_old_local=1.0)


def unlabelled(edge: int = 4) -> Tensor:
    return torch.zeros(2, edge, edge, edge, dtype=torch.long)


def guidance_of(strategy: object = PGCD, means: Tensor | None = None) -> Guidance:
    generator = torch.Generator().manual_seed(5)
    means = torch.randn(OLD, FEATURES, generator=generator) if means is None else means
    prototypes = Prototypes(means, 0.5 + torch.rand(OLD, FEATURES, generator=generator), torch.ones(OLD))
    return Guidance(strategy, RunningPrototypes(prototypes))  # type: ignore[arg-type]


def scene(edge: int = EDGE) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the student and of the teacher, and the teacher's logits."""
    theirs = random_logits(FEATURES, edge=edge)
    return theirs + 0.5 * random_logits(FEATURES + 1, edge=edge)[:, 1:], theirs, random_logits(OLD, edge=edge)


def test_with_every_part_off_a_step_is_mib_to_the_last_digit() -> None:
    torch.manual_seed(0)
    teacher, student = (nn.Sequential(nn.Conv3d(1, FEATURES, 3, padding=1), nn.Conv3d(FEATURES, n, 1)) for n in (3, 5))
    image, annotated = random_logits(1, edge=EDGE), torch.tensor([[True, False, False, True, True]] * 2)
    batch = Batch(image, image, unlabelled(EDGE), annotated)
    off = replace(PGCD, region=False, channel=0.0, to_global=0.0, to_old_local=0.0)
    mib, ours = (IncrementalObjective(teacher, s, OLD, CLASSES)(student, batch) for s in (STRATEGIES["mib"], off))
    assert ours == mib and not off.guided
    alike = IncrementalObjective(teacher, replace(off, region=True), OLD, CLASSES, guidance=guidance_of(PGCD))
    assert alike(student, batch)["kd"] != mib["kd"]
    alike.guidance.calibration.gamma = 0.0  # type: ignore[union-attr]
    assert alike(student, batch)["kd"].item() == pytest.approx(mib["kd"].item(), rel=1e-6)


def test_a_teacher_that_is_wrong_in_a_region_gets_less_weight_there() -> None:
    means = 5 + 3 * torch.eye(OLD, FEATURES)
    truth = random_labels(OLD, edge=EDGE)
    features = means[truth].movedim(-1, 1) + 0.2 * random_logits(FEATURES, edge=EDGE)
    logits = 6 * nn.functional.one_hot(truth, OLD).movedim(-1, 1).float()
    right = guidance_of(PGCD, means).eval()(features, features, logits, unlabelled(EDGE)).weight
    logits[:, :, :4] = logits[:, :, :4].roll(1, 1)  # its features stay
    wrong = guidance_of(PGCD, means).eval()(features, features, logits, unlabelled(EDGE)).weight
    assert right is not None and wrong is not None
    right, wrong = (weight.reshape(2, EDGE, EDGE, EDGE) for weight in (right, wrong))
    assert right[:, :4].sum() == pytest.approx(right[:, :4].numel(), rel=0.05)  # what uniform distillation gives it
    assert wrong[:, :4].sum() < 0.2 * wrong[:, :4].numel() and wrong[:, 4:].mean() > 1.8
    assert wrong.mean().item() == pytest.approx(1, abs=1e-5)


def test_gradients_flow_to_the_student_only() -> None:
    inputs = [x.requires_grad_() for x in scene()]
    advice = (guidance := guidance_of())(*inputs, random_labels(OLD, edge=EDGE))
    assert advice.weight is not None and not advice.weight.requires_grad
    assert advice.parts.keys() == {"features", "prototypes"} and min(advice.parts.values()) > 0.1
    ours, theirs, logits = torch.autograd.grad(sum(advice.parts.values()), inputs, allow_unused=True)  # type: ignore[arg-type]
    assert theirs is None and logits is None and ours.isfinite().all()
    assert ours[..., ::4, ::4, ::4].abs().sum(1).min() > 0 and not ours[:, :, 1::4].any()
    assert not any(tensor.requires_grad for tensor in guidance.state_dict(keep_vars=True).values())


def same(a: Advice, b: Advice, where: Tensor | None = None) -> bool:
    assert a.weight is not None and b.weight is not None
    weights = [a.weight, b.weight] if where is None else [a.weight[where.flatten(1)], b.weight[where.flatten(1)]]
    return torch.allclose(*weights, atol=1e-6) and all(torch.equal(a.parts[part], b.parts[part]) for part in b.parts)


def test_annotated_voxels_count_nowhere() -> None:
    target = random_labels(OLD, edge=EDGE)
    target[:, :4], free = CLASSES - 1, torch.ones_like(target, dtype=torch.bool)
    free[:, :4] = False
    found = []
    for factor in (1.0, -100.0):
        ours, theirs, logits = (x.clone() for x in scene())
        for x in (ours, theirs, logits):
            x[:, :, :4] *= factor
        ours[:, :, :4] += factor
        guidance = guidance_of()
        found.append((guidance(ours, theirs, logits, target), guidance.prototypes.mean))
    (one, background), (other, moved) = found
    assert same(one, other, free) and torch.equal(background, moved)
    assert one.weight is not None and one.weight[free.flatten(1)].mean().item() == pytest.approx(1, abs=1e-5)
    everywhere = guidance_of()(*scene(), random_labels(OLD, edge=EDGE))
    assert not same(one, everywhere, free)


def test_ignored_voxels_and_old_labels_count_like_unlabelled_ones() -> None:
    target = random_labels(OLD, edge=EDGE)
    target[:, 2:4] = IGNORE
    assert same(guidance_of()(*scene(), target), guidance_of()(*scene(), unlabelled(EDGE)))


@pytest.mark.parametrize("training", [True, False])
def test_the_background_follows_the_unannotated_background_in_training_only(training: bool) -> None:
    ours, theirs, logits = scene()
    target = unlabelled(EDGE)
    target[:, :, :4] = CLASSES - 1
    guidance = guidance_of().train(training)
    before = guidance.prototypes.mean.clone()
    guidance(ours, theirs, logits, target)
    thin = (..., slice(None, None, 4), slice(None, None, 4), slice(None, None, 4))
    background = (logits.argmax(1) == 0) & (target == 0)
    mean = theirs[thin].movedim(1, -1)[background[thin]].mean(0)
    expected = 0.99 * before[0] + 0.01 * mean if training else before[0]
    assert torch.allclose(guidance.prototypes.mean[0], expected, atol=1e-6)
    assert torch.equal(guidance.prototypes.mean[1:], before[1:]) and not torch.allclose(mean, before[0], atol=0.1)


def test_a_batch_annotated_throughout_is_finite_and_asks_for_nothing() -> None:
    ours, theirs, logits = scene()
    target, guidance = torch.full((2, EDGE, EDGE, EDGE), CLASSES - 1), guidance_of()
    advice = guidance(ours, theirs, logits, target)
    assert advice.weight is not None and advice.weight.isfinite().all()
    assert [part.item() for part in advice.parts.values()] == [0, 0]
    found = gradient(lambda x: sum(guidance(x, theirs, logits, target).parts.values()), ours)  # type: ignore[arg-type, return-value]
    assert not found.any() and torch.equal(guidance.prototypes.mean, guidance_of().prototypes.mean)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_close_and_autocast_leaves_it_alone(dtype: torch.dtype) -> None:
    ours, theirs, logits = scene(64)
    inputs, target = (200 * ours + 3, 200 * theirs + 3, logits), random_labels(OLD, edge=64)  # more than float16 sums
    guidances = [guidance_of() for _ in range(3)]
    full = guidances[0](*inputs, target)
    half = guidances[1](*(x.to(dtype) for x in inputs), target)
    with torch.autocast("cpu", dtype):
        cast = guidances[2](*(x.to(dtype) for x in inputs), target)
    assert full.weight is not None and half.weight is not None and half.weight.dtype == torch.float32
    assert torch.corrcoef(torch.stack([half.weight.flatten(), full.weight.flatten()]))[0, 1] > 0.99
    assert {part: value.item() for part, value in half.parts.items()} == pytest.approx(
        {part: value.item() for part, value in full.parts.items()}, rel=1e-2
    )
    assert same(half, cast)
    means = [guidance.prototypes.mean for guidance in guidances]
    assert torch.allclose(means[0], means[1], atol=0.01) and torch.equal(means[1], means[2])
