"""A step with every strategy: its own losses, its teacher, its scans."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from training_runs import CONFIG, train, update

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inversion.recipes import RECIPES
from IncrementalSegLib.organs import organ_named
from IncrementalSegLib.training import workspace
from IncrementalSegLib.training.patches import PatchSampler
from IncrementalSegLib.training.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _short_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fast", "grounded"):
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], iterations=2))


LOSSES = {
    "fine-tune": {"seg"},
    "lwf": {"seg", "lwf"},
    "mib": {"seg", "kd"},
    "ilt": {"seg", "lwf", "encoder"},
    "plop": {"seg", "pod"},
    "mosinversion": {"seg", "kd"},
    "pgcd-dapd": {"seg", "kd", "features", "prototypes"},
    "full": {"seg", "kd"},
    "locked": {"seg"},
    "specialist": {"seg"},
    "joint": {"seg"},
}


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_trains_with_its_own_losses(parent, two_cases, tmp_path, name):
    events: list[dict] = []
    model = update(parent, two_cases, tmp_path, name, Reporter(events.append, every=0))
    losses = [event["loss"] for event in events if event.get("phase") in ("update", "train")]
    assert len(losses) == CONFIG.steps
    assert all(loss.keys() == LOSSES[name] | {"total"} for loss in losses)
    assert all(loss["total"] == pytest.approx(sum(loss[part] for part in LOSSES[name]), abs=1e-3) for loss in losses)
    assert model.organs.names == (["Stomach"] if name == "specialist" else ["Liver", "Spleen", "Stomach"])
    assert model.history[-1]["strategy"] == name
    assert model.history[-1]["parent"] == parent.hash


def test_fine_tuning_never_asks_the_old_model_and_distillation_does(parent, two_cases, tmp_path, monkeypatch):
    def asked(strategy: str) -> bool:
        calls: list[Tensor] = []
        hook = parent.network.register_forward_hook(lambda module, inputs, output: calls.append(output))
        update(parent, two_cases, tmp_path / strategy, strategy)
        hook.remove()
        return bool(calls)

    assert not asked("fine-tune")
    assert asked("full")


def test_base_training_and_a_step_see_warped_copies_of_their_scans(parent, two_cases, tmp_path, monkeypatch):
    pools: list[int] = []
    real = workspace.PatchSampler
    monkeypatch.setattr(workspace, "PatchSampler", lambda pool, *a, **k: pools.append(len(pool)) or real(pool, *a, **k))
    train(two_cases, tmp_path / "base")
    update(parent, two_cases, tmp_path / "step")
    assert pools == [2 * (1 + CONFIG.augmentation.copies)] * 2


def test_every_step_of_a_sequence_draws_patches_of_its_own(parent, two_cases, tmp_path, monkeypatch):
    drawn: list[Tensor] = []
    real = PatchSampler.batch
    monkeypatch.setattr(PatchSampler, "batch", lambda *a: drawn.append((batch := real(*a)).image) or batch)
    for number, history in enumerate([parent.history, parent.history, parent.history * 2]):
        drawn.append(torch.empty(0))
        update(replace(parent, history=history), two_cases, tmp_path / str(number))
    starts = [index + 1 for index, image in enumerate(drawn) if not image.numel()]
    first, again, next_step = (drawn[start] for start in starts)
    assert torch.equal(first, again) and not torch.equal(first, next_step)


def test_joint_training_refuses_cases_without_the_old_organs(parent, two_cases, tmp_path):
    stomach_only = [case.restricted([organ_named("Stomach").key]) for case in two_cases]
    with pytest.raises(InputError, match="'Liver' is annotated in none of the 2 cases"):
        update(parent, stomach_only, tmp_path, "joint")
    assert not (tmp_path / "checkpoint").exists()
