"""Losses: golden numbers by hand, agreement with torch and MONAI, invariants, gradients, precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from voxels import CLASSES, OLD, gradient, hidden_of, labels_of, logits_of, random_labels, random_logits

from IncrementalSegLib.losses.pooled import PooledStripDistillation
from IncrementalSegLib.losses.unbiased import (
    IGNORE,
    Distillation,
    UnbiasedDistillation,
    UnbiasedSegmentationLoss,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def widened(teacher: Tensor, new: int) -> Tensor:
    """Logits of a student that says exactly what the teacher says: the background's mass split over the new classes."""
    background = teacher[:, :1] - math.log(new + 1)
    return torch.cat([background, teacher[:, 1:], background.expand(-1, new, -1, -1, -1)], 1)


# Segmentation


def test_segmentation_loss_by_hand() -> None:
    logits = logits_of([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]])
    loss = UnbiasedSegmentationLoss(smooth=1.0)(logits, labels_of(0, 1), hidden_of(classes=3))
    cross_entropy = -(math.log(0.5) + math.log(0.7)) / 2
    dice_1 = (2 * 0.7 + 1) / (0.3 + 0.7 + 1 + 1)
    dice_2 = (0 + 1) / (0.2 + 0.2 + 0 + 1)
    assert loss.item() == pytest.approx(cross_entropy + 1 - (dice_1 + dice_2) / 2, abs=1e-6)


def test_segmentation_loss_with_a_hidden_organ_by_hand() -> None:
    logits = logits_of([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]])
    loss = UnbiasedSegmentationLoss(smooth=1.0)(logits, labels_of(0, 2), hidden_of(1, classes=3))
    cross_entropy = -(math.log(0.5 + 0.3) + math.log(0.2)) / 2
    dice_2 = (2 * 0.2 + 1) / (0.2 + 0.2 + 1 + 1)
    assert loss.item() == pytest.approx(cross_entropy + 1 - dice_2, abs=1e-6)


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_a_pseudo_label_of_a_hidden_organ_has_a_dice_of_its_own_and_no_share_in_the_balance(balance: float) -> None:
    logits = logits_of([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.1, 0.1, 0.8]])
    loss = UnbiasedSegmentationLoss(smooth=1.0)(logits, labels_of(0, 1, 2), hidden_of(1, classes=3), balance)
    background, old, new = (-math.log(p) for p in (0.5 + 0.3, 0.7, 0.8))
    over_voxels, over_annotated = (background + old + new) / 3, (background + new) / 2
    dice_1 = (2 * 0.7 + 1) / (0.3 + 0.7 + 0.1 + 1 + 1)
    dice_2 = (2 * 0.8 + 1) / (0.2 + 0.2 + 0.8 + 1 + 1)
    expected = (1 - balance) * over_voxels + balance * over_annotated + (1 - dice_1) + (1 - dice_2)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_background_of_a_scan_with_pseudo_labels_is_no_old_organ() -> None:
    logits = logits_of([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]])
    pseudo = hidden_of(0, 1, classes=3)
    loss = UnbiasedSegmentationLoss(smooth=1.0)(logits, labels_of(0, 1), hidden_of(1, classes=3), pseudo=pseudo)
    cross_entropy = -(math.log(0.5) + math.log(0.7)) / 2
    dice_1 = (2 * 0.7 + 1) / (0.3 + 0.7 + 1 + 1)
    dice_2 = (0 + 1) / (0.2 + 0.2 + 0 + 1)
    assert loss.item() == pytest.approx(cross_entropy + (1 - dice_1) + (1 - dice_2), abs=1e-6)


def test_the_balanced_share_averages_over_classes_present() -> None:
    logits, labels = random_logits(CLASSES), random_labels(CLASSES).clamp(max=CLASSES - 2)
    hidden = hidden_of(classes=CLASSES, batch=2)
    plain, balanced = (UnbiasedSegmentationLoss()(logits, labels, hidden, share).item() for share in (0.0, 1.0))
    nll = nn.functional.cross_entropy(logits, labels, reduction="none")
    per_class = [nll[labels == c].mean().item() for c in range(CLASSES - 1)]
    assert balanced - plain == pytest.approx(sum(per_class) / len(per_class) - nll.mean().item(), abs=1e-5)
    half = UnbiasedSegmentationLoss()(logits, labels, hidden, 0.5).item()
    assert half == pytest.approx((plain + balanced) / 2, abs=1e-5)


def test_with_nothing_hidden_it_is_plain_cross_entropy_and_dice() -> None:
    logits, labels = random_logits(CLASSES), random_labels(CLASSES)
    ours = UnbiasedSegmentationLoss(smooth=1.0)(logits, labels, hidden_of(classes=CLASSES, batch=2))
    dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True, smooth_nr=1.0, smooth_dr=1.0)(
        logits, labels[:, None]
    )
    assert ours.item() == pytest.approx(nn.functional.cross_entropy(logits, labels).item() + dice.item(), abs=1e-6)


def test_ignored_voxels_carry_no_gradient_and_change_nothing() -> None:
    logits, labels = random_logits(CLASSES), random_labels(CLASSES)
    labels[:, :2] = IGNORE
    hidden, loss = hidden_of(1, classes=CLASSES, batch=2), UnbiasedSegmentationLoss()
    found = gradient(lambda x: loss(x, labels, hidden), logits)
    assert found[:, :, :2].abs().max() == 0 and found[:, :, 2:].abs().min() > 0
    other = logits.clone()
    other[:, :, :2] = 50.0
    assert loss(other, labels, hidden) == loss(logits, labels, hidden)


def test_nothing_but_ignored_voxels_gives_zero() -> None:
    labels = torch.full((2, 4, 4, 4), IGNORE)
    loss = UnbiasedSegmentationLoss()
    hidden = hidden_of(classes=CLASSES, batch=2)
    assert loss(random_logits(CLASSES), labels, hidden).item() == pytest.approx(0.0, abs=1e-6)
    assert gradient(lambda x: loss(x, labels, hidden), random_logits(CLASSES)).abs().max() == 0


def test_everything_hidden_and_unlabelled_asks_for_nothing() -> None:
    hidden = hidden_of(1, 2, 3, 4, classes=CLASSES, batch=2)
    labels, loss = torch.zeros(2, 4, 4, 4, dtype=torch.long), UnbiasedSegmentationLoss()
    assert gradient(lambda x: loss(x, labels, hidden), random_logits(CLASSES)).abs().max() < 1e-7


def test_unlabelled_voxels_do_not_choose_between_background_and_hidden_organs() -> None:
    hidden, labels = hidden_of(1, 2, classes=CLASSES, batch=2), torch.zeros(2, 4, 4, 4, dtype=torch.long)
    logits = random_logits(CLASSES)
    found = gradient(lambda x: UnbiasedSegmentationLoss()(x, labels, hidden), logits)
    among = logits[:, :3].softmax(1) * found[:, :3].sum(1, keepdim=True)
    assert torch.allclose(found[:, :3], among, atol=1e-7)  # the folded group moves as a whole


def test_dice_counts_an_organ_only_in_the_samples_that_annotate_it() -> None:
    logits, labels = random_logits(3), torch.zeros(2, 4, 4, 4, dtype=torch.long)
    labels[0, 0] = 1
    hidden = hidden_of(classes=3, batch=2)
    hidden[1, 1] = True  # organ 1 is unknown in the second sample
    loss = UnbiasedSegmentationLoss()
    found = gradient(lambda x: loss(x, labels, hidden), logits)
    other = logits.clone()
    other[1, 0], other[1, 1] = logits[1, 1], logits[1, 0]  # same folded background, another split
    assert loss(other, labels, hidden).item() == pytest.approx(loss(logits, labels, hidden).item(), abs=1e-6)
    assert found[0, 1].abs().max() > 0


@pytest.mark.parametrize(
    ("logits", "target", "hidden"),
    [
        ((1, 3, 4, 4), (1, 4, 4), (1, 3)),
        ((1, 3, 4, 4, 4), (1, 4, 4, 5), (1, 3)),
        ((1, 3, 4, 4, 4), (1, 4, 4, 4), (1, 2)),
    ],
)
def test_segmentation_loss_refuses_shapes_that_do_not_fit(
    logits: tuple[int, ...], target: tuple[int, ...], hidden: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"logits \(1, 3"):
        UnbiasedSegmentationLoss()(
            torch.zeros(logits), torch.zeros(target, dtype=torch.long), torch.zeros(hidden, dtype=torch.bool)
        )


# Distillation


def test_unbiased_distillation_by_hand() -> None:
    student, teacher = logits_of([[0.3, 0.5, 0.2]]), logits_of([[0.6, 0.4]])
    loss = UnbiasedDistillation()(student, teacher, labels_of(0))
    assert loss.item() == pytest.approx(-(0.6 * math.log(0.3 + 0.2) + 0.4 * math.log(0.5)), abs=1e-6)


@pytest.mark.parametrize("new", [1, 2])
def test_a_perfect_student_feels_no_distillation(new: int) -> None:
    teacher = random_logits(OLD, dtype=torch.float64)
    student, target = widened(teacher, new), torch.zeros(2, 4, 4, 4, dtype=torch.long)
    loss = UnbiasedDistillation(label_guided=True)
    assert gradient(lambda x: loss(x, teacher, target), student).abs().max() < 1e-12
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    assert loss(student, teacher, target).item() == pytest.approx(entropy.item(), abs=1e-12)
    wrong = student.clone()
    wrong[:, 1] += 1.0
    assert gradient(lambda x: loss(x, teacher, target), wrong).abs().max() > 1e-4
    assert loss(wrong, teacher, target) > loss(student, teacher, target)


def test_with_no_new_class_it_is_plain_distillation() -> None:
    student, teacher = random_logits(OLD), random_logits(OLD) * 0.3 + 0.1
    ours = UnbiasedDistillation()(student, teacher, random_labels(OLD))
    assert ours.item() == pytest.approx(nn.functional.cross_entropy(student, teacher.softmax(1)).item(), abs=1e-6)


def test_the_teacher_has_no_say_where_a_new_organ_is_annotated() -> None:
    teacher, student = random_logits(OLD), random_logits(CLASSES)
    target = torch.zeros(2, 4, 4, 4, dtype=torch.long)
    target[:, 0], target[:, 1], target[:, 2] = 3, 4, IGNORE
    guided = gradient(lambda x: UnbiasedDistillation(label_guided=True)(x, teacher, target), student)
    plain = gradient(lambda x: UnbiasedDistillation()(x, teacher, target), student)
    assert guided[:, :, :2].abs().max() == 0 < plain[:, :, :2].abs().max()
    assert torch.equal(guided[:, :, 2:], plain[:, :, 2:])


def test_an_annotation_of_an_old_organ_does_not_guide() -> None:
    teacher, student, target = random_logits(OLD), random_logits(CLASSES), random_labels(OLD)
    guided = UnbiasedDistillation(label_guided=True)(student, teacher, target)
    assert guided == UnbiasedDistillation()(student, teacher, target)


def test_learning_without_forgetting_is_kl_divergence_of_old_classes_at_a_temperature() -> None:
    student, teacher, t = random_logits(CLASSES), random_logits(OLD), 2.0
    ours = gradient(lambda x: Distillation(t)(x, teacher), student)
    target = (teacher / t).log_softmax(1)

    def direct(x: Tensor) -> Tensor:
        log_p = (x[:, :OLD] / t).log_softmax(1)
        divergence = nn.functional.kl_div(log_p, target, reduction="none", log_target=True).sum(1).mean()
        return t**2 * (divergence - (target.exp() * target).sum(1).mean())  # KL and the teacher's entropy

    assert Distillation(t)(student, teacher).item() == pytest.approx(direct(student).item(), rel=1e-5)
    assert torch.allclose(ours, gradient(direct, student), atol=1e-7)
    assert ours[:, OLD:].abs().max() == 0


def test_learning_without_forgetting_by_hand() -> None:
    student, teacher = logits_of([[0.2, 0.3, 0.5]]), logits_of([[0.6, 0.4]])
    loss = Distillation(temperature=1.0)(student, teacher)
    assert loss.item() == pytest.approx(-(0.6 * math.log(0.4) + 0.4 * math.log(0.6)), abs=1e-6)


def test_a_student_equal_to_the_teacher_is_left_alone_by_lwf() -> None:
    teacher = random_logits(OLD, dtype=torch.float64)
    student = torch.cat([teacher, torch.ones_like(teacher[:, :1])], 1)
    assert gradient(lambda x: Distillation()(x, teacher), student).abs().max() < 1e-12


@pytest.mark.parametrize("teacher", [(1, 6, 4, 4, 4), (1, 3, 4, 4, 5), (2, 3, 4, 4, 4)])
def test_distillation_refuses_shapes_that_do_not_fit(teacher: tuple[int, ...]) -> None:
    student, target = torch.zeros(1, 5, 4, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="teacher"):
        UnbiasedDistillation()(student, torch.zeros(teacher), target)
    with pytest.raises(ValueError, match="teacher"):
        Distillation()(student, torch.zeros(teacher))


def test_distillation_refuses_an_annotation_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"target \(1, 4, 4, 5\)"):
        UnbiasedDistillation()(torch.zeros(1, 5, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 4, 4, 5))


# All of them


def every_loss(dtype: torch.dtype, edge: int = 4) -> dict[str, Callable[[Tensor], Tensor]]:
    """Each loss as a function of student logits (2, 5, …) alone."""
    target = random_labels(CLASSES, edge=edge)
    target[:, 0, 0] = IGNORE
    hidden, teacher = hidden_of(1, 2, classes=CLASSES, batch=2), random_logits(OLD, edge=edge, dtype=dtype)
    other = random_logits(CLASSES + 1, edge=edge, dtype=dtype)[:, :CLASSES]
    return {
        "segmentation": lambda x: UnbiasedSegmentationLoss()(x, target, hidden),
        "distillation": lambda x: UnbiasedDistillation()(x, teacher, target),
        "guided": lambda x: UnbiasedDistillation(label_guided=True)(x, teacher, target),
        "lwf": lambda x: Distillation()(x, teacher),
        "pooled": lambda x: PooledStripDistillation()([x], [other]),
    }


@pytest.mark.parametrize("name", every_loss(torch.float64))
def test_gradients_are_exact(name: str) -> None:
    student = random_logits(CLASSES, edge=2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(every_loss(torch.float64, edge=2)[name], (student,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", every_loss(torch.float32))
def test_half_precision_is_finite_and_close(name: str, dtype: torch.dtype) -> None:
    student = random_logits(CLASSES, edge=48).to(dtype)  # 110,592 voxels a sample: more than float16 can count
    half, full = every_loss(dtype, edge=48)[name], every_loss(torch.float32, edge=48)[name]
    assert half(student).item() == pytest.approx(full(student.float()).item(), rel=1e-2)
    assert torch.isfinite(gradient(half, student)).all()


@pytest.mark.parametrize("name", every_loss(torch.float32))
def test_extreme_logits_stay_finite(name: str) -> None:
    student = random_logits(CLASSES) * 1000
    loss = every_loss(torch.float32)[name]
    assert torch.isfinite(loss(student)) and torch.isfinite(gradient(loss, student)).all()
