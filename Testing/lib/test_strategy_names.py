"""Strategies by name: what `-without-` switches off, what is refused, and that `full` is resumed where it stopped."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from packages import SPEC, small_model
from torch import Tensor
from training_runs import COARSE, CONFIG, cancel_at, same_weights, update

from IncrementalSegLib.cases import Case
from IncrementalSegLib.errors import Cancelled, InputError
from IncrementalSegLib.inversion import memory
from IncrementalSegLib.jobs import Job, prepare
from IncrementalSegLib.models.checkpoint import load_state
from IncrementalSegLib.models.networks import build_network
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.models.widen import widen
from IncrementalSegLib.prototypes import Prototypes, RunningPrototypes, grown
from IncrementalSegLib.training import update as training
from IncrementalSegLib.training.guidance import Guidance
from IncrementalSegLib.training.objectives import IncrementalObjective, Thresholds
from IncrementalSegLib.training.patches import Batch
from IncrementalSegLib.training.strategies import DEFAULT, PARTS, STRATEGIES, Strategy, strategy_named

pytestmark = pytest.mark.usefixtures("one_thread")
OLD, CLASSES = 4, 5

# Names


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_found_by_its_name(name: str) -> None:
    assert strategy_named(name) is STRATEGIES[name] and STRATEGIES[name].name == name


SWITCHED = {
    "inversion": "replay",
    "region": "region",
    "channel": "channel",
    "local-to-global": "to_global",
    "local-to-old-local": "to_old_local",
    "pseudo-labels": "pseudo_labels",
    "fusion": "fusion",
}


@pytest.mark.parametrize("part", SWITCHED)
def test_full_can_do_without_every_part_and_that_part_alone(part: str) -> None:
    assert SWITCHED.keys() == PARTS.keys() and DEFAULT == "full"
    full, reduced = strategy_named("full"), strategy_named(f"full-without-{part}")
    changed = {f.name for f in fields(Strategy) if getattr(full, f.name) != getattr(reduced, f.name)}
    assert changed == {"name", "summary", SWITCHED[part]} and not getattr(reduced, SWITCHED[part])
    assert reduced.name == f"full-without-{part}" and reduced.summary == f"full without {part}"


def test_other_strategies_can_do_without_what_they_have() -> None:
    assert strategy_named("pgcd-dapd-without-region") == replace(
        STRATEGIES["pgcd-dapd"], name="pgcd-dapd-without-region", summary="pgcd-dapd without region", region=False
    )
    assert strategy_named("mosinversion-without-inversion").replay == 0


@pytest.mark.parametrize("name", ["best", "", "fuller-without-region", "-without-region", "full-with-region"])
def test_an_unknown_strategy_is_a_sentence_with_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match=rf"^Strategy '{name}' is not known: choose one of fine-tune, .*, joint\.$"):
        strategy_named(name)


@pytest.mark.parametrize("part", ["magic", "", "name", "Region", "region-without-channel"])
def test_an_unknown_part_is_a_sentence_with_those_there_are(part: str) -> None:
    with pytest.raises(InputError, match=rf"^Strategy 'full' has no part '{part}': it can do without inversion, .*\.$"):
        strategy_named(f"full-without-{part}")


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("mib-without-region", "none"),
        ("joint-without-inversion", "none"),
        ("plop-without-region", "pseudo-labels"),
        ("mosinversion-without-channel", "inversion"),
        ("pgcd-dapd-without-fusion", "region, channel, local-to-global, local-to-old-local"),
    ],
)
def test_a_part_that_a_strategy_lacks_is_a_sentence(name: str, has: str) -> None:
    whole, part = name.split("-without-")
    with pytest.raises(InputError, match=rf"^Strategy '{whole}' has no part '{part}': it can do without {has}\.$"):
        strategy_named(name)


def test_a_specialist_is_no_way_to_add_an_organ(patients: Path, base_job: Path, tmp_path: Path) -> None:
    job = Job("add-organ", str(patients), ("Stomach",), model=str(base_job / "model"), strategy="specialist")
    with pytest.raises(InputError, match="specialist knows none of the old organs: train one with  incrementalseg tr"):
        prepare(job, tmp_path)
    with pytest.raises(InputError, match="'best' is not known"):
        prepare(replace(job, strategy="best"), tmp_path)


# Losses

EFFECTS = {
    "inversion": set(),  # other patches
    "region": {"kd"},
    "channel": {"features"},
    "local-to-global": {"prototypes"},
    "local-to-old-local": {"prototypes"},
    "pseudo-labels": {"seg"},
    "fusion": set(),  # after the step
}


@pytest.fixture(scope="module")
def old() -> Model:
    """An untrained model that finds its organs all over a scan, and remembers nothing; nothing may change it."""
    model = replace(small_model(), preprocessing=COARSE, patch=(32, 32, 32), memory={}, hash="old")
    head = model.network.get_submodule("head")
    assert isinstance(head, torch.nn.Conv3d) and head.bias is not None
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(3)))
        found = model.network(torch.rand(1, 1, 32, 32, 32) * 2 - 1).flatten(2)[0]
        head.weight.div_(found.std(1)[:, None, None, None, None])
        head.bias.sub_(found.mean(1)).div_(found.std(1))
    return model


def losses(old: Model, name: str) -> dict[str, Tensor]:
    """The parts of a batch's loss for a student that has moved away from the old model."""
    torch.manual_seed(4)
    strategy = strategy_named(name)
    network = widen(lambda n: build_network(SPEC, n), old.network.state_dict(), OLD, CLASSES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    image, target = torch.rand(2, 1, 16, 16, 16) * 2 - 1, torch.zeros(2, 16, 16, 16, dtype=torch.long)
    target[:, :4] = CLASSES - 1
    batch = Batch(image, image, target, torch.tensor([[True, False, False, False, True]] * 2))
    prototypes = Prototypes(torch.rand(OLD, 4), torch.rand(OLD, 4), torch.ones(OLD))
    guidance = Guidance(strategy, RunningPrototypes(prototypes)).eval() if strategy.guided else None
    thresholds = Thresholds(torch.full((OLD,), 0.5), torch.full((OLD,), 0.5))
    return IncrementalObjective(old.network, strategy, OLD, CLASSES, thresholds, guidance)(network, batch)


@pytest.mark.parametrize("part", EFFECTS)
def test_without_a_part_that_part_of_the_loss_changes_and_no_other(old: Model, part: str) -> None:
    full, reduced = losses(old, "full"), losses(old, f"full-without-{part}")
    assert full.keys() == {"seg", "kd", "features", "prototypes"}
    assert {name for name in full if name not in reduced or full[name] != reduced[name]} == EFFECTS[part]
    assert full.keys() - reduced.keys() == ({"features"} if part == "channel" else set())


def test_without_both_alignments_there_is_none() -> None:
    assert not replace(strategy_named("full-without-region"), channel=0.0, to_global=0.0, to_old_local=0.0).guided
    assert strategy_named("full-without-region").guided and not strategy_named("mib").guided


# A stopped run


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ANATOMIES", 1)


@pytest.mark.parametrize("step", [1, 4])
def test_a_stopped_run_of_full_ends_at_the_same_weights_and_background(
    old: Model, two_cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    grew: list[Prototypes] = []
    monkeypatch.setattr(training, "grown", lambda known, *seen: grew.append(known) or grown(known, *seen))
    whole = update(old, two_cases, tmp_path / "whole", "full")
    with pytest.raises(Cancelled):
        update(old, two_cases, tmp_path / "halted", "full", cancel_at("update", step))
    saved, ended = (load_state(tmp_path / run / "checkpoint" / "training.pt") for run in ("halted", "whole"))
    assert (saved["step"], ended["step"]) == (step, CONFIG.steps)
    before, after = (state["carried"]["prototypes.mean"] for state in (saved, ended))
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1:], after[1:])
    resumed = update(old, two_cases, tmp_path / "halted", "full")
    assert same_weights(resumed.network, whole.network)
    found, expected = (model.memory["prototypes"] for model in (resumed, whole))
    assert all(torch.equal(found[part], expected[part]) for part in ("mean", "variance", "count"))
    assert len(grew) == 2 and all(torch.equal(prototypes.mean, after) for prototypes in grew)
