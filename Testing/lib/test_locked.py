"""Locked models: old organs stay bit for bit what they were, whatever the branches learn."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ConfigParser
from packages import small_model
from torch import Tensor
from training_runs import COARSE, CONFIG, same_weights

from IncrementalSegLib.cases import Case
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.inference import predict_label_map, probabilities
from IncrementalSegLib.models.locked import LockedNetwork
from IncrementalSegLib.models.networks import features_and_logits, place
from IncrementalSegLib.models.package import Model, load_model, save_package
from IncrementalSegLib.models.widen import folded_probabilities
from IncrementalSegLib.organs import organ_named
from IncrementalSegLib.phantom import PhantomConfig, make_phantom
from IncrementalSegLib.training.strategies import STRATEGIES, strategy_named
from IncrementalSegLib.training.update import update_model
from IncrementalSegLib.training.workspace import Workspace
from IncrementalSegLib.volumes import model_grid, resample, to_array

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
REFUSED = [name for name, strategy in STRATEGIES.items() if not strategy.lock and not strategy.from_scratch]


def step(parent: Model, cases: list[Case], folder: Path, organ: str = "Stomach", strategy: str = "locked") -> Model:
    new = [organ_named(organ)]
    return update_model(
        parent, cases, new, CONFIG, strategy_named(strategy), Workspace(folder), heldout=cases, allow_overlap=True
    )


@pytest.fixture(scope="module")
def ct() -> sitk.Image:
    """A patient on a finer grid than the model's."""
    return make_phantom(np.random.default_rng(7), PhantomConfig((48, 42, 42), (8.0, 8.0, 8.0)))[0]


@pytest.fixture(scope="module")
def old(ct: sitk.Image) -> Model:
    """An untrained model that finds its organs, one inside another, all over a scan; nothing may change it."""
    model = replace(small_model(), preprocessing=COARSE, patch=(32, 32, 32), memory={}, hash="old")
    head = model.network.get_submodule("head")
    assert isinstance(head, torch.nn.Conv3d) and head.bias is not None
    small = model.preprocessing.normalise(to_array(resample(ct, model_grid(ct, (12.0, 12.0, 12.0)))))[:32, :24, :24]
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(2)) * 3)
        head.bias -= model.network(torch.from_numpy(small)[None, None]).mean((0, 2, 3, 4))
    return model


@pytest.fixture(scope="module")
def once(old: Model, two_cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The old model with a branch for the stomach."""
    return step(old, two_cases, tmp_path_factory.mktemp("once"))


@pytest.fixture(scope="module")
def twice(once: Model, two_cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """And a second branch for the spleen."""
    return step(once, two_cases, tmp_path_factory.mktemp("twice"), "Spleen")


def greedy(model: Model) -> Model:
    """The same with a last branch that wants every voxel."""
    network = deepcopy(model.network)
    assert isinstance(network, LockedNetwork)
    last = [module for module in network.branches[-1].modules() if getattr(module, "out_channels", 0) == 2][-1]
    assert isinstance(last.bias, Tensor)
    with torch.no_grad():
        last.bias += torch.tensor([-1e3, 1e3])
    return replace(model, network=network)


def image(*size: int) -> Tensor:
    return torch.randn(1, 1, *(size or (32, 32, 32)), generator=torch.Generator().manual_seed(1))


def logits(model: Model) -> Tensor:
    with torch.no_grad():
        return place(model.network, CPU)(image())


# The weights and logits


def test_old_logits_are_bit_identical_before_and_after_training(old: Model, once: Model, twice: Model) -> None:
    before, start = logits(old), logits(old.with_branch(2))
    assert start.shape[1] == 6 and torch.equal(start[:, 1:4], before[:, 1:])
    for model, classes in ((once, 5), (twice, 6)):
        after = logits(model)
        assert after.shape[1] == classes == model.classes and torch.equal(after[:, 1:4], before[:, 1:])
    assert torch.equal(logits(twice)[:, 4], logits(once)[:, 4])
    model = replace(once, network=deepcopy(once.network).train())
    assert torch.equal(logits(model)[:, 1:4], before[:, 1:])


def test_the_folded_background_is_the_old_one_to_rounding(old: Model, twice: Model) -> None:
    assert torch.allclose(folded_probabilities(logits(twice), 4), logits(old).softmax(1), atol=1e-6)


def test_training_moves_the_last_branch_and_nothing_else(old: Model, once: Model, twice: Model) -> None:
    assert same_weights(once.network.core, old.network) and same_weights(twice.network.core, old.network)
    torch.manual_seed(CONFIG.seed)
    fresh = old.with_branch(1).network.branches[0]
    assert not same_weights(once.network.branches[0], fresh)
    assert len(twice.network.branches) == 2 and same_weights(twice.network.branches[0], once.network.branches[0])
    assert once.spec.branches == (1,) and twice.spec.branches == (1, 1)
    assert twice.organs.names == [*old.organs.names, "Stomach", "Spleen"]
    assert [record["strategy"] for record in twice.history[1:]] == ["locked", "locked"]


def test_the_last_branch_alone_takes_gradients_and_learns_statistics(once: Model) -> None:
    network = once.with_branch(2).network.train()
    before = deepcopy(network.state_dict())
    network(image(16, 16, 16)).square().sum().backward()
    learned = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in network.named_parameters() if name.startswith("branches.1.")}
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith("branches.1.") for name in moved)


def test_an_image_gets_gradients_from_old_organs_as_inversion_needs(old: Model, once: Model) -> None:
    found = []
    for model in (old, once):
        at = image(16, 16, 16).requires_grad_()
        features, scores = features_and_logits(place(model.network, CPU), at)
        found.append(torch.autograd.grad((scores[:, 1:4].sum() + features.sum()), at)[0])
    assert torch.equal(*found) and found[0].any()


# The label map


@pytest.mark.parametrize("patch", [32, 16])  # a single window, and many that overlap
@pytest.mark.parametrize("connected", [False, True])
def test_the_old_organs_label_map_is_identical(old, once, twice, ct, patch: int, connected: bool) -> None:
    def predicted(model: Model) -> np.ndarray:
        keys = model.organs.keys if connected else ()
        return to_array(predict_label_map(replace(model, patch=(patch,) * 3, connected=tuple(keys)), ct, CPU))

    before, (kidney, *_) = predicted(old), (organ.label for organ in old.organs if organ.name == "Right kidney")
    assert all((before == label).sum() > 50 for label in (0, *(organ.label for organ in old.organs)))
    stomach, spleen = (organ.label for organ in list(twice.organs)[3:])
    for model in (once, greedy(once), twice, greedy(twice)):
        after = predicted(model)
        assert np.array_equal(after[before > 0], before[before > 0])
        assert set(np.unique(after[before == 0])) <= {0, stomach, spleen}
    first, second = predicted(greedy(once)), predicted(greedy(twice))
    assert (first == stomach).sum() > 50 and (second == spleen).sum() > 50 and (before == kidney).any()
    by_first = predicted(once) == stomach
    assert (second[by_first] == stomach).all()  # an earlier branch goes before a later one


def test_probabilities_add_up_and_give_new_organs_the_old_background_alone(old: Model, twice: Model) -> None:
    volume = image(24, 40, 32)[0, 0]
    model = greedy(twice)
    before, after = (probabilities(m.network, volume, (16, 16, 16), CPU) for m in (old, model))
    assert torch.allclose(after.sum(0), torch.ones(24, 40, 32), atol=1e-5)
    assert torch.equal(after[1:4], before[1:])
    assert torch.allclose(after[0] + after[4] + after[5], before[0], atol=1e-6)
    new = after.argmax(0) > 3
    assert new.sum() > 50 and (before.argmax(0)[new] == 0).all()
    single = probabilities(model.network, volume[:16, :16, :16], (16, 16, 16), CPU)
    with torch.no_grad():
        direct = place(model.network, CPU)(volume[None, None, :16, :16, :16])[0].softmax(0)
    assert torch.allclose(single, direct, atol=1e-5)


# What is refused


@pytest.mark.parametrize("strategy", REFUSED)
def test_other_strategies_refuse_a_locked_model_before_anything_is_computed(once, two_cases, tmp_path, strategy):
    with pytest.raises(InputError, match="keeps its old organs locked: add organs to it with --strategy locked"):
        step(once, two_cases, tmp_path, "Spleen", strategy)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("locked", [False, True])
def test_refuses_a_structure_inside_a_locked_organ(old, once, two_cases, tmp_path, locked: bool) -> None:
    inside = replace(organ_named("Spleen"), parent=old.organs.find("Liver").key)
    with pytest.raises(InputError, match="'Spleen' lies inside an old organ, which is locked: choose another strategy"):
        update_model(once if locked else old, two_cases, [inside], CONFIG, STRATEGIES["locked"], Workspace(tmp_path))
    assert not list(tmp_path.iterdir())


# Packages


@pytest.fixture(scope="module")
def package(twice: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "model"
    save_package(twice, folder)
    return folder


def test_a_package_keeps_a_locked_model(twice: Model, package: Path) -> None:
    loaded = load_model(package)
    assert loaded.spec == twice.spec and isinstance(loaded.network, LockedNetwork)
    assert same_weights(loaded.network, twice.network) and torch.equal(logits(loaded), logits(twice))
    assert not loaded.network.training and not any(p.requires_grad for p in loaded.network.core.parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_monai_builds_a_locked_model_from_its_bundle(package: Path) -> None:
    parser = ConfigParser()
    parser.read_config(package / "configs" / "inference.json")
    parser.update({"bundle_root": str(package), "device": "cpu"})
    network = parser.get_parsed_content("network")
    network.load_state_dict(parser.get_parsed_content("weights"))
    ours: Callable[[Tensor], Tensor] = load_model(package).network
    with torch.no_grad():
        assert torch.equal(network.eval()(image()), ours(image()))
