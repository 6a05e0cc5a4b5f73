"""Strategies by name: what `-without-` and `-with-` switch, what is refused, and that prototypes survive a stop."""

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
from IncrementalSegLib.jobs import Job
from IncrementalSegLib.models.checkpoint import load_state
from IncrementalSegLib.models.networks import build_network
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.models.widen import widen
from IncrementalSegLib.prototypes import Prototypes, RunningPrototypes, grown
from IncrementalSegLib.running import prepare
from IncrementalSegLib.training import update as training
from IncrementalSegLib.training.guidance import Guidance
from IncrementalSegLib.training.objectives import IncrementalObjective
from IncrementalSegLib.training.patches import Batch
from IncrementalSegLib.training.strategies import DEFAULT, PARTS, STRATEGIES, Strategy, strategy_named

pytestmark = pytest.mark.usefixtures("one_thread")
OLD, CLASSES = 4, 5

# Names


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_found_by_its_name(name: str) -> None:
    assert strategy_named(name) is STRATEGIES[name] and STRATEGIES[name].name == name


OFF = {
    "inversion": "replay",
    "pseudo-labels": "pseudo_labels",
    "fusion": "fusion",
    "calibration": "calibrated",
    "settling": "settle",
}
ON = {"region": "region", "channel": "channel", "local-to-global": "to_global", "local-to-old-local": "to_old_local"}


@pytest.mark.parametrize("part", [*OFF, *ON])
def test_full_can_be_had_without_what_is_in_it_and_with_what_is_not(part: str) -> None:
    assert {*OFF, *ON, "prototypes"} == PARTS.keys() and DEFAULT == "full"
    word, setting = ("without", OFF[part]) if part in OFF else ("with", ON[part])
    full, other = strategy_named("full"), strategy_named(f"full-{word}-{part}")
    changed = {f.name for f in fields(Strategy) if getattr(full, f.name) != getattr(other, f.name)}
    assert changed == {"name", "summary", setting} and bool(getattr(other, setting)) == (part not in OFF)
    assert other.name == f"full-{word}-{part}" and other.summary == f"full {word} {part}"


def test_prototypes_are_all_four_of_their_parts() -> None:
    guided = strategy_named("full-with-prototypes")
    assert guided.guided and not strategy_named("full").guided
    plain = STRATEGIES["pgcd-dapd"]
    assert all(getattr(guided, setting) == getattr(plain, setting) for setting in ON.values())
    assert not strategy_named("pgcd-dapd-without-prototypes").guided


def test_other_strategies_can_do_without_what_they_have() -> None:
    assert strategy_named("pgcd-dapd-without-region") == replace(
        STRATEGIES["pgcd-dapd"], name="pgcd-dapd-without-region", summary="pgcd-dapd without region", region=False
    )
    assert strategy_named("mosinversion-without-inversion").replay == 0


@pytest.mark.parametrize("name", ["best", "", "fuller-without-region", "-without-region", "full with region"])
def test_an_unknown_strategy_is_a_sentence_with_those_there_are(name: str) -> None:
    whole = name.partition("-without-")[0]
    with pytest.raises(InputError, match=rf"^Strategy '{whole}' is not known: choose one of fine-tune, .*, joint\.$"):
        strategy_named(name)


@pytest.mark.parametrize("part", ["magic", "", "name", "Region", "region-without-channel"])
def test_an_unknown_part_is_a_sentence_with_those_there_are(part: str) -> None:
    able = "inversion, pseudo-labels, fusion, calibration, settling"
    sentence = rf"^Strategy 'full' cannot be had without '{part}', only without {able}\.$"
    with pytest.raises(InputError, match=sentence):
        strategy_named(f"full-without-{part}")


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("mib-without-region", "nothing"),
        ("joint-without-inversion", "nothing"),
        ("plop-without-region", "pseudo-labels"),
        ("mosinversion-without-channel", "inversion"),
        ("pgcd-dapd-without-fusion", "region, channel, local-to-global, local-to-old-local, prototypes"),
        ("full-with-inversion", "region, channel, local-to-global, local-to-old-local, prototypes"),
    ],
)
def test_a_part_that_a_strategy_lacks_is_a_sentence(name: str, has: str) -> None:
    word = "without" if "-without-" in name else "with"
    whole, part = name.split(f"-{word}-")
    with pytest.raises(InputError, match=rf"^Strategy '{whole}' cannot be had {word} '{part}', only {word} {has}\.$"):
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
    "pseudo-labels": {"seg"},  # and other targets
    "fusion": set(),  # after the step
    "settling": {"seg", "kd"},  # other intensities
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
    batch = Batch(0.5 * image, image, target, torch.tensor([[True, False, False, False, True]] * 2))
    prototypes = Prototypes(torch.rand(OLD, 4), torch.rand(OLD, 4), torch.ones(OLD))
    guidance = Guidance(strategy, RunningPrototypes(prototypes)).eval() if strategy.guided else None
    return IncrementalObjective(old.network, strategy, OLD, CLASSES, torch.full((OLD,), 0.5), guidance)(network, batch)


@pytest.mark.parametrize("part", EFFECTS)
def test_switching_a_part_changes_that_part_of_the_loss_and_no_other(old: Model, part: str) -> None:
    word = "with" if part in ON else "without"
    full, other = losses(old, "full"), losses(old, f"full-{word}-{part}")
    assert full.keys() == {"seg", "kd"}
    assert {name for name in other if name not in full or full[name] != other[name]} == EFFECTS[part]


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
    name = "full-with-prototypes"
    whole = update(old, two_cases, tmp_path / "whole", name)
    with pytest.raises(Cancelled):
        update(old, two_cases, tmp_path / "halted", name, cancel_at("update", step))
    saved, ended = (load_state(tmp_path / run / "checkpoint" / "training.pt") for run in ("halted", "whole"))
    assert (saved["step"], ended["step"]) == (step, CONFIG.steps)
    before, after = (state["carried"]["prototypes.mean"] for state in (saved, ended))
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1:], after[1:])
    resumed = update(old, two_cases, tmp_path / "halted", name)
    assert same_weights(resumed.network, whole.network)
    found, expected = (model.memory["prototypes"] for model in (resumed, whole))
    assert all(torch.equal(found[part], expected[part]) for part in ("mean", "variance", "count"))
    assert len(grew) == 2 and all(torch.equal(prototypes.mean, after) for prototypes in grew)
