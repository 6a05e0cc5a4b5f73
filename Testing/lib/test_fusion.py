"""Weight fusion: the average, and that it is dropped where held-out cases speak against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from IncrementalSegLib.cases import Case, read_dataset
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inference import predict_label_map
from IncrementalSegLib.models.networks import NetworkSpec, build_network
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.models.widen import folded_probabilities, widen
from IncrementalSegLib.organs import OrganTable, organ_named
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.training import fusion, update
from IncrementalSegLib.training.config import TrainingConfig
from IncrementalSegLib.training.fusion import fuse
from IncrementalSegLib.training.fusion import fused as fused_with
from IncrementalSegLib.training.strategies import STRATEGIES
from IncrementalSegLib.training.update import update_model
from IncrementalSegLib.training.workspace import Workspace
from IncrementalSegLib.volumes import to_array

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SPEC = NetworkSpec(
    "UNet", {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 0, "norm": "batch"}, 4
)
OLD, CLASSES, SHARE = 3, 5, 0.85
ORGANS = OrganTable.from_names(["Liver", "Spleen", "Pancreas", "Aorta"])


def network_of(classes: int, seed: int) -> nn.Module:
    """A network none of whose weights and statistics is 0 or at its initial value."""
    torch.manual_seed(seed)
    network = build_network(SPEC, classes)
    for name, tensor in (state := network.state_dict()).items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + ("running_var" in name))
        else:
            tensor.fill_(seed)
    network.load_state_dict(state)
    return network.eval()


def model_of(network: nn.Module, organs: OrganTable) -> Model:
    history = ({"step": 0, "organs": organs.keys},)
    return Model(network, SPEC, organs, Preprocessing((12.0, 12.0, 12.0)), (16, 16, 16), history)


def pair() -> tuple[Model, Model]:
    """A parent of two organs and its update with four."""
    parent = model_of(network_of(OLD, 1), OrganTable(list(ORGANS)[: OLD - 1]))
    return parent, model_of(network_of(CLASSES, 2), ORGANS)


def test_fused_weights_are_the_average_where_both_have_them() -> None:
    parent, updated = pair()
    before, after, fused = parent.network.state_dict(), updated.network.state_dict(), fuse(parent, updated, 0.3)
    before["head.bias"] = parent.widened(CLASSES).state_dict()["head.bias"][:OLD]
    assert fused.keys() == after.keys()
    for key, tensor in fused.items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, after[key])
            continue
        overlap = tuple(slice(0, n) for n in before[key].shape)
        assert torch.allclose(tensor[overlap], 0.7 * before[key] + 0.3 * after[key][overlap])
    for name in ("head.weight", "head.bias"):
        assert torch.equal(fused[name][OLD:], after[name][OLD:])
    assert all(torch.equal(tensor, network_of(CLASSES, 2).state_dict()[key]) for key, tensor in after.items())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_the_average_are_the_networks(share: float) -> None:
    parent, updated = pair()
    wanted = (parent.widened(CLASSES) if share == 0 else updated.network).state_dict()
    narrow = parent.network.state_dict()
    for key, tensor in fuse(parent, updated, share).items():
        overlap = tuple(slice(0, n) for n in narrow[key].shape)
        if tensor.is_floating_point():
            assert torch.equal(tensor[overlap], wanted[key][overlap])


def judged(monkeypatch: pytest.MonkeyPatch, without: float, fused: float) -> tuple[Model, Model, Model, list[str]]:
    """Fuse with injected scores: parent, updated, result and what was said."""
    parent, updated = pair()
    texts: list[str] = []

    def merit(old: Model, candidate: Model, heldout: Sequence[Case], *rest: object) -> float:
        assert old is parent and len(heldout) == 1
        return without if candidate.network is updated.network else fused

    monkeypatch.setattr(fusion, "_merit", merit)
    reporter = Reporter(lambda event: texts.append(event["text"]))
    case = Case("held out", Path("absent"))
    return parent, updated, fused_with(parent, updated, SHARE, [case], CPU, reporter), texts


def test_a_better_average_is_kept_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, updated, result, texts = judged(monkeypatch, 0.8, 0.81)
    share, before = SHARE, parent.network.state_dict()
    start = widen(lambda n: build_network(SPEC, n), before, OLD, CLASSES).state_dict()
    after, fused = updated.network.state_dict(), result.network.state_dict()
    for key in ("head.weight", "head.bias"):
        assert torch.allclose(fused[key][:OLD], (1 - share) * start[key][:OLD] + share * after[key][:OLD])
        assert torch.equal(fused[key][OLD:], after[key][OLD:])
    assert fused["head.bias"][0] < ((1 - share) * before["head.bias"] + share * after["head.bias"][:OLD])[0]
    trunk = [key for key in fused if key.startswith("trunk") and fused[key].is_floating_point()]
    assert all(torch.allclose(fused[key], (1 - share) * before[key] + share * after[key]) for key in trunk)
    assert result.history[-1]["fusion"] == share and result.organs == updated.organs
    assert texts == ["Weight fusion kept: hold-out 0.800 without, 0.810 with."]


@pytest.mark.parametrize("fused", [0.79, 0.0])
def test_an_average_that_is_not_better_is_dropped_and_said(monkeypatch: pytest.MonkeyPatch, fused: float) -> None:
    _, updated, result, texts = judged(monkeypatch, 0.8, fused)
    assert result.network is updated.network and result.history[-1]["fusion"] is None
    assert result.history[:-1] == updated.history[:-1] and "not kept" in texts[0]


def test_without_a_hold_out_the_average_is_taken() -> None:
    parent, updated = pair()
    result = fused_with(parent, updated, SHARE, [], CPU, Reporter())
    wanted = fuse(parent, updated, SHARE)
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in result.network.state_dict().items())
    assert result.history[-1]["fusion"] == SHARE and result.network is not updated.network


def test_an_untrained_update_fused_is_the_old_model() -> None:
    parent, updated = pair()
    old, start = parent.network, parent.widened(CLASSES)
    fused = build_network(SPEC, CLASSES)
    fused.load_state_dict(fuse(parent, replace(updated, network=start), 0.4))
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        folded = folded_probabilities(fused.eval()(image), OLD)
        assert (folded - old(image).softmax(1)).abs().max() < 1e-4  # of logits around 100


def says(organs: OrganTable, channel: int) -> Model:
    """A model that calls every voxel this channel."""
    network = network_of(len(organs) + 1, 1)
    with torch.no_grad():
        network.get_submodule("head").weight.zero_()  # type: ignore[operator]
        network.get_submodule("head").bias[channel] += 100  # type: ignore[operator, index]
    return model_of(network, organs)


def test_the_merit_is_the_mean_of_agreement_and_new_organ_dice(dataset: Path) -> None:
    case = read_dataset(dataset)[0]
    case = case.restricted([case.labels.find("Pancreas").key])
    parent_organs = OrganTable(list(ORGANS)[:2])
    liver, pancreas = says(ORGANS, 1), says(ORGANS, 3)
    parent, reporter = says(parent_organs, 1), Reporter()
    assert fusion._merit(parent, liver, [case], CPU, reporter) == pytest.approx((1 + 0) / 2)
    ct, label = case.read()
    assert label is not None and (to_array(predict_label_map(pancreas, ct, CPU)) == 3).any()
    truth = to_array(label) == case.labels.find("Pancreas").label
    covered = to_array(predict_label_map(pancreas, ct, CPU)) == 3
    expected = 2 * (truth & covered).sum() / (truth.sum() + covered.sum())
    assert fusion._merit(parent, pancreas, [case], CPU, reporter) == pytest.approx((0 + expected) / 2)
    assert fusion._merit(parent, liver, [case.restricted([])], CPU, reporter) == 1.0


def step(dataset: Path, folder: Path, strategy: str, heldout: bool, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One tiny update; the held-out cases that fusion was asked to judge, once per call."""
    cases, calls = read_dataset(dataset), list[Any]()

    def recorded(parent: Model, updated: Model, share: float, held: Sequence[Case], *rest: object) -> Model:
        assert share == STRATEGIES[strategy].fusion
        calls.append([case.name for case in held])
        return updated

    monkeypatch.setattr(update, "fused", recorded)
    parent = model_of(network_of(2, 1), OrganTable.from_names(["Liver"]))
    config = TrainingConfig(steps=1, batch=1, patch=(32, 32, 32), precision="float32", device="cpu")
    held = cases[1:] if heldout else []
    chosen, workspace = STRATEGIES[strategy], Workspace(folder)
    update_model(
        parent, cases[:1], [organ_named("Spleen")], config, chosen, workspace, heldout=held, allow_overlap=True
    )
    return calls


def test_a_step_of_the_default_fuses_and_one_of_mib_does_not(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert STRATEGIES["full"].fusion
    assert step(dataset, tmp_path / "a", "full", False, monkeypatch) == [[]]
    assert step(dataset, tmp_path / "b", "full", True, monkeypatch) == [["b"]]
    assert step(dataset, tmp_path / "c", "mib", True, monkeypatch) == []
