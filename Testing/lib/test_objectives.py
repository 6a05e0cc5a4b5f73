"""Objectives: what every strategy minimises, pseudo-labels, and that only the student learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from teachers import (
    CLASSES,
    OLD,
    SPEC,
    THRESHOLDS,
    batch_of,
    gradient_norm,
    objective_of,
    student_of,
    teacher,
)
from torch import Tensor, nn

from IncrementalSegLib.losses.unbiased import UnbiasedSegmentationLoss
from IncrementalSegLib.models.networks import build_network
from IncrementalSegLib.training import objectives
from IncrementalSegLib.training.objectives import (
    IncrementalObjective,
    SupervisedObjective,
    class_balance,
)
from IncrementalSegLib.training.strategies import STRATEGIES, Strategy, strategy_named

pytestmark = pytest.mark.usefixtures("one_thread")

INCREMENTAL = [name for name, strategy in STRATEGIES.items() if not strategy.from_scratch and not strategy.lock]

# Every strategy


@pytest.mark.parametrize("name", INCREMENTAL)
def test_every_strategy_returns_its_parts_and_only_the_student_learns(name: str) -> None:
    strategy, old = STRATEGIES[name], teacher()
    student, before = student_of(old), {key: tensor.clone() for key, tensor in old.state_dict().items()}
    parts = objective_of(strategy, old)(student, batch_of())
    expected = {"seg"} | {part for part, weight in _weights(strategy).items() if weight}
    assert parts.keys() == expected
    assert all(torch.isfinite(part) and part.dim() == 0 and part.requires_grad for part in parts.values())
    torch.stack(list(parts.values())).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in old.parameters())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in student.parameters())
    assert all(torch.equal(tensor, old.state_dict()[key]) for key, tensor in before.items())


def _weights(strategy: Strategy) -> dict[str, float]:
    return {
        "kd": strategy.distillation,
        "lwf": strategy.lwf,
        "pod": strategy.pooled,
        "encoder": strategy.encoder,
        "features": strategy.channel,
        "prototypes": strategy.to_global + strategy.to_old_local,
    }


@pytest.mark.parametrize("name,share", [("mib", 10.0 / 5), ("full", 2.0)])
def test_distillation_fades_with_the_number_of_old_organs_only_where_mib_has_it(name: str, share: float) -> None:
    for old_classes, expected in ((5, share), (10, share / 2 if name == "mib" else share)):
        old = build_network(SPEC, old_classes)
        objective = IncrementalObjective(old, STRATEGIES[name], old_classes, old_classes + 2)
        objective.distillation = lambda *args: torch.ones(())  # type: ignore[assignment]
        student, batch = build_network(SPEC, old_classes + 2), batch_of()
        batch = replace(batch, annotated=torch.zeros(2, old_classes + 2, dtype=torch.bool), target=batch.target * 0)
        assert objective(student, batch)["kd"].item() == pytest.approx(expected)


def test_the_strategies_differ() -> None:
    old = teacher()
    student = student_of(old)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    names = [name for name in INCREMENTAL if name != "mosinversion"]  # MiB's loss on other patches
    totals = {
        name: round(sum(p.item() for p in objective_of(STRATEGIES[name], old)(student, batch_of()).values()), 5)
        for name in names
    }
    assert len(set(totals.values())) == len(totals), totals


@pytest.mark.parametrize("name", ["mib", "full-with-prototypes", "plop"])
def test_at_the_start_of_a_step_distillation_asks_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "_POOLED_LOGITS", 0.0)  # PLOP's plain logits feel the split of the background
    old, batch = teacher(), batch_of(annotate=False)
    batch = replace(batch, image=batch.plain)
    parts = objective_of(strategy_named(name), old)(student := student_of(old), batch)
    kinds = parts.keys() - {"seg"}
    assert kinds and gradient_norm(student, torch.stack([parts[kind] for kind in kinds]).sum()) < 1e-4


def test_lwf_is_at_rest_on_old_logits_whatever_the_new_ones_are() -> None:
    old, batch = teacher(), batch_of(annotate=False)
    student = student_of(old)
    objective, batch = objective_of(STRATEGIES["lwf"], old), replace(batch, image=batch.plain)
    assert gradient_norm(student, objective(student, batch)["lwf"]) > 1e-2  # the split background is another logit
    with torch.no_grad():
        student.get_submodule("head").bias[0] = old.get_submodule("head").bias[0]  # type: ignore[index, operator]
    assert gradient_norm(student, objective(student, batch)["lwf"]) < 1e-4


def test_a_student_that_moved_is_pulled_back() -> None:
    old = teacher()
    student, batch = student_of(old), batch_of(annotate=False)
    with torch.no_grad():
        student.get_submodule("head").bias[1] += 1  # type: ignore[operator, index]
    assert gradient_norm(student, objective_of(STRATEGIES["mib"], old)(student, batch)["kd"]) > 0.1


def test_fine_tuning_is_the_plain_loss_with_nothing_hidden_and_without_a_teacher() -> None:
    class Untouchable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("fine-tuning has no teacher")

    student, batch = student_of(teacher()), batch_of()
    parts = objective_of(STRATEGIES["fine-tune"], Untouchable())(student, batch)
    logits = student(batch.image)
    nothing_hidden = torch.zeros(len(batch.target), CLASSES, dtype=torch.bool)
    expected = UnbiasedSegmentationLoss()(logits, batch.target, nothing_hidden)
    assert list(parts) == ["seg"]
    assert parts["seg"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_unbiased_loss_does_not_punish_old_organs_on_unlabelled_voxels() -> None:
    old = teacher()
    student, batch = student_of(old), batch_of(annotate=False)
    logits = student(batch.image).detach()
    sure = logits.clone()
    sure[:, 1] += 20
    segmentation = {}
    for name in ("fine-tune", "mib"):
        objective = objective_of(STRATEGIES[name], old)
        hidden = objective._hidden(batch)
        segmentation[name] = [objective.segmentation(z, batch.target, hidden).item() for z in (logits, sure)]
    assert segmentation["mib"][1] < segmentation["mib"][0]
    assert segmentation["fine-tune"][1] > segmentation["fine-tune"][0] + 5


def test_the_background_is_no_old_organ_in_scans_that_were_surveyed_and_may_be_one_in_synthetic_ones() -> None:
    old = teacher()
    objective, batch = objective_of(STRATEGIES["full"], old), batch_of()
    synthetic = torch.tensor([[True, False, False, False, False]])
    mixed = replace(batch, annotated=torch.cat([batch.annotated[:1], synthetic]))
    assert objective._surveyed(mixed).tolist() == [[True, True, True, False, False], [False] * 5]
    assert not objective_of(STRATEGIES["mib"], old)._surveyed(mixed).any()
    logits = student_of(old)(batch.image).detach()
    sure = logits + 20 * (torch.arange(CLASSES) == 1)[:, None, None, None]  # an old organ where the survey saw none
    empty, losses = torch.zeros_like(batch.target), []
    for this in (batch, replace(batch, annotated=synthetic.expand(2, -1))):
        folding = objective._hidden(this), 0.0, objective._surveyed(this)
        losses += [objective.segmentation(z, empty, *folding).item() for z in (logits, sure)]
    assert losses[1] > losses[0] + 5 and max(losses[2:]) < 1e-6


def test_the_default_strategy_shows_the_teacher_unchanged_intensities() -> None:
    seen: list[Tensor] = []
    old, batch = teacher(), batch_of()
    for name, expected in (("full", batch.plain), ("mib", batch.image)):
        objective, student = objective_of(STRATEGIES[name], old), student_of(old)
        hook = old.get_submodule("trunk").register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        objective(student, batch)
        hook.remove()
        assert seen.pop() is expected and not seen


def test_plops_pseudo_labels_change_the_segmentation_loss_and_spare_the_annotation() -> None:
    old, batch = teacher(), batch_of()
    objective = objective_of(STRATEGIES["plop"], old)
    labels = objective._with_pseudo_labels(batch.target, old(batch.image).softmax(1))
    assert torch.equal(labels[batch.target > 0], batch.target[batch.target > 0])
    assert {1, 2} & set(labels.unique().tolist())
    without = objective_of(replace(STRATEGIES["plop"], pseudo_labels=""), old)
    student = student_of(old)
    assert objective(student, batch)["seg"] != without(student, batch)["seg"]
    assert objective(student, batch)["pod"] == without(student, batch)["pod"]


def test_the_supervised_loss_hides_what_was_not_annotated() -> None:
    network = teacher(classes=CLASSES)
    batch = batch_of()
    known = replace(batch, annotated=torch.ones_like(batch.annotated))
    assert SupervisedObjective()(network, batch)["seg"] < SupervisedObjective()(network, known)["seg"]


def test_the_class_balance_fades_until_the_middle_of_the_run() -> None:
    assert [class_balance(done) for done in (0.0, 0.2, 0.5, 1.0)] == pytest.approx([0.5, 0.3, 0.0, 0.0])
    old = teacher()
    student, batch = student_of(old), batch_of()
    for objective in (SupervisedObjective(), objective_of(STRATEGIES["fine-tune"], old)):
        losses = [objective(student, batch, done)["seg"].item() for done in (0.0, 0.5, 1.0)]
        assert losses[0] != losses[1] == losses[2]


def test_the_last_patches_of_a_step_are_seen_with_the_intensities_that_scans_have() -> None:
    old, batch = teacher(), batch_of()
    student = student_of(old)
    images: list[Tensor] = []
    student.get_submodule("trunk").register_forward_pre_hook(lambda module, inputs: images.append(inputs[0]))
    for settle, steps in ((0, 300), (120, 1200), (120, 30)):
        strategy = replace(STRATEGIES["full"], settle=settle)
        objective = IncrementalObjective(old, strategy, OLD, CLASSES, THRESHOLDS, steps=steps)
        for done in (0.0, 0.5, 0.7, 0.95):
            objective(student, batch, done)
    shown = [torch.equal(image, batch.plain) for image in images]
    assert shown == [False] * 4 + [False] * 3 + [True] + [False] * 2 + [True] * 2


def test_a_strategy_may_keep_some_of_the_class_balance_to_the_end() -> None:
    assert class_balance(0.3, least=0.1) == pytest.approx(0.2) and class_balance(1.0, least=0.1) == 0.1
    old = teacher()
    student, batch = student_of(old), batch_of()
    ours, without = (objective_of(replace(STRATEGIES["full"], balance=share), old) for share in (0.05, 0.0))
    assert STRATEGIES["full"].balance == ours.strategy.balance
    assert ours(student, batch, 0.0)["seg"] == without(student, batch, 0.0)["seg"]
    assert ours(student, batch, 1.0)["seg"] != without(student, batch, 1.0)["seg"]
