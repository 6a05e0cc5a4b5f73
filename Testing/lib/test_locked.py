"""Locked models: old organs stay bit for bit what they were, whatever the branches learn."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ConfigParser
from packages import small_model
from torch import Tensor, nn
from training_runs import COARSE, CONFIG, same_weights

from IncrementalSegLib.cases import Case
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.inference import predict_label_map, probabilities
from IncrementalSegLib.inversion import memory
from IncrementalSegLib.models.locked import LockedNetwork
from IncrementalSegLib.models.networks import place
from IncrementalSegLib.models.package import Model, load_model, save_package
from IncrementalSegLib.models.tap import features_and_logits
from IncrementalSegLib.models.widen import folded_probabilities
from IncrementalSegLib.organs import organ_named
from IncrementalSegLib.phantom import PhantomConfig, make_phantom
from IncrementalSegLib.preprocessing import on_model_grid
from IncrementalSegLib.training.strategies import STRATEGIES
from IncrementalSegLib.training.update import update_model
from IncrementalSegLib.training.workspace import Workspace
from IncrementalSegLib.volumes import to_array

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
REFUSED = [name for name, strategy in STRATEGIES.items() if not strategy.lock and not strategy.from_scratch]


@pytest.fixture(scope="module", autouse=True)
def _small_memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "ANATOMIES", 1)
        yield


@pytest.fixture(scope="module")
def ct() -> sitk.Image:
    """A patient on a finer grid than the model's."""
    return make_phantom(np.random.default_rng(7), PhantomConfig((48, 42, 42), (8.0, 8.0, 8.0)))[0]


@pytest.fixture(scope="module")
def image(ct: sitk.Image) -> Tensor:
    """That patient as a network sees it, (1, 1, 32, 32, 32)."""
    hu = to_array(on_model_grid(ct, COARSE))
    missing = [part for n in reversed(hu.shape) for part in (0, 32 - n)]
    return nn.functional.pad(torch.from_numpy(COARSE.normalise(hu)), missing, value=-1.0)[None, None]


@pytest.fixture(scope="module")
def old(image: Tensor) -> Model:
    """An untrained model that finds its organs, one inside another, all over that patient; nothing may change it."""
    model = replace(small_model(), preprocessing=COARSE, patch=(32, 32, 32), memory={}, hash="old")
    head = model.network.get_submodule("head")
    assert isinstance(head, nn.Conv3d) and head.bias is not None
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(3)))
        found = model.network(image).flatten(2)[0]
        head.weight.div_(found.std(1)[:, None, None, None, None])
        head.bias.sub_(found.mean(1)).div_(found.std(1))
    return model


def step(parent: Model, cases: list[Case], folder: Path, organ: str = "Stomach", strategy: str = "locked") -> Model:
    new, workspace = [organ_named(organ)], Workspace(folder)
    return update_model(parent, cases, new, CONFIG, STRATEGIES[strategy], workspace, heldout=cases, allow_overlap=True)


@pytest.fixture(scope="module")
def once(old: Model, two_cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The old model with a branch for the stomach."""
    return step(old, two_cases, tmp_path_factory.mktemp("once"))


@pytest.fixture(scope="module")
def twice(once: Model, two_cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """And a second branch for the spleen."""
    return step(once, two_cases, tmp_path_factory.mktemp("twice"), "Spleen")


def locked(model: Model) -> LockedNetwork:
    assert isinstance(model.network, LockedNetwork)
    return model.network


def greedy(model: Model) -> Model:
    """The same with a last branch that wants every voxel."""
    network = deepcopy(locked(model))
    last = [module for module in network.branches[-1].modules() if getattr(module, "out_channels", 0) == 2][-1]
    assert isinstance(last.bias, Tensor)
    with torch.no_grad():
        last.bias += torch.tensor([-1e3, 1e3])
    return replace(model, network=network)


def logits(model: Model, image: Tensor) -> Tensor:
    with torch.no_grad():
        return place(model.network, CPU)(image)


# Weights and logits


def test_old_logits_are_bit_identical_before_and_after_training(old, once, twice, image) -> None:
    before, start = logits(old, image), logits(old.with_branch(2), image)  # in training mode, as it was built
    assert start.shape[1] == 6 and torch.equal(start[:, 1:4], before[:, 1:])
    for model, classes in ((once, 5), (twice, 6)):
        after = logits(model, image)
        assert after.shape[1] == classes == model.classes and torch.equal(after[:, 1:4], before[:, 1:])
    assert torch.equal(logits(twice, image)[:, 4], logits(once, image)[:, 4])


def test_training_mode_does_not_reach_the_old_network(old: Model, once: Model, image: Tensor) -> None:
    network = deepcopy(locked(once)).train()
    assert torch.equal(place(network, CPU)(image)[:, 1:4], logits(old, image)[:, 1:])
    assert same_weights(network.core, old.network) and not same_weights(network, once.network)


def test_the_folded_background_is_the_old_one_to_rounding(old: Model, twice: Model, image: Tensor) -> None:
    assert torch.allclose(folded_probabilities(logits(twice, image), 4), logits(old, image).softmax(1), atol=1e-6)


def test_training_moves_the_last_branch_and_nothing_else(old: Model, once: Model, twice: Model) -> None:
    first, (again, second) = locked(once).branches[0], locked(twice).branches
    assert same_weights(locked(once).core, old.network) and same_weights(locked(twice).core, old.network)
    assert same_weights(first, again)
    torch.manual_seed(CONFIG.seed)
    for model, branch in ((old, first), (once, second)):
        torch.manual_seed(CONFIG.seed)
        fresh = locked(model.with_branch(1)).branches[-1].state_dict()
        assert not any(torch.equal(branch.state_dict()[key], fresh[key]) for key in fresh if fresh[key].numel() > 1)
    assert once.spec.branches == (1,) and twice.spec.branches == (1, 1)
    assert twice.organs.names == [*old.organs.names, "Stomach", "Spleen"]
    assert [(record["strategy"], record.get("fusion")) for record in twice.history[1:]] == [("locked", None)] * 2


def test_the_last_branch_alone_takes_gradients_and_learns_statistics(once: Model, image: Tensor) -> None:
    network = locked(once.with_branch(2)).train()
    before = deepcopy(network.state_dict())
    network(image[..., :16, :16, :16]).square().sum().backward()
    names = {name for name, _ in network.named_parameters() if name.startswith("branches.1.")}
    assert {name for name, parameter in network.named_parameters() if parameter.grad is not None} == names != set()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith("branches.1.") for name in moved)


def test_an_image_gets_the_old_organs_gradients_as_inversion_needs(old: Model, once: Model, image: Tensor) -> None:
    found = []
    for model in (old, once):
        at = image[..., :16, :16, :16].clone().requires_grad_()
        features, scores = features_and_logits(place(model.network, CPU), at)
        found.append(torch.autograd.grad(scores[:, 1:4].square().sum() + features.sum(), at)[0])
    assert torch.allclose(*found, atol=1e-5) and found[0].any()


# The label map


@pytest.mark.parametrize("patch", [32, 16])  # a single window, and many that overlap
@pytest.mark.parametrize("connected", [False, True])
def test_the_old_organs_label_map_is_identical(old, once, twice, ct, patch: int, connected: bool) -> None:
    def predicted(model: Model) -> np.ndarray:
        keys = tuple(model.organs.keys) if connected else ()
        return to_array(predict_label_map(replace(model, patch=(patch,) * 3, connected=keys), ct, CPU))

    before, (*labels, stomach, spleen) = predicted(old), (organ.label for organ in twice.organs)
    assert {0, *labels} == set(np.unique(before))
    for model in (once, greedy(once), twice, greedy(twice)):
        after = predicted(model)
        assert np.array_equal(after[before > 0], before[before > 0])
        assert set(np.unique(after[before == 0])) <= {0, stomach, spleen}
    first, second = predicted(greedy(once)), predicted(greedy(twice))
    assert (first == stomach).sum() > 20 and (second == spleen).sum() > 20
    assert (second[predicted(once) == stomach] == stomach).all()  # an earlier branch goes before a later one


def test_probabilities_add_up_and_give_new_organs_old_background_alone(old: Model, twice: Model, image: Tensor) -> None:
    model, volume = greedy(twice), image[0, 0]
    before, after = (probabilities(m.network, volume, (16, 16, 16), CPU) for m in (old, model))
    assert torch.allclose(after.sum(0), torch.ones(volume.shape), atol=1e-5)
    assert torch.equal(after[1:4], before[1:])
    assert torch.allclose(after[0] + after[4] + after[5], before[0], atol=1e-6)
    new = after.argmax(0) > 3
    assert new.sum() > 100 and (before.argmax(0)[new] == 0).all()
    single = probabilities(model.network, volume, (32, 32, 32), CPU)
    assert torch.allclose(single, logits(model, image)[0].softmax(0), atol=1e-5)


# What is refused


@pytest.mark.parametrize("strategy", REFUSED)
def test_other_strategies_refuse_a_locked_model_before_anything_is_computed(once, two_cases, tmp_path, strategy):
    with pytest.raises(InputError, match="keeps its old organs locked: add organs to it with --strategy locked"):
        step(once, two_cases, tmp_path, "Spleen", strategy)
    assert not list(tmp_path.iterdir())


def test_refuses_a_structure_inside_a_locked_organ(old, once, two_cases, tmp_path) -> None:
    inside = [replace(organ_named("Spleen"), parent=old.organs.find("Liver").key)]
    for model in (old, once):
        with pytest.raises(InputError, match="lies inside an old organ, which is locked: choose another"):
            update_model(model, two_cases, inside, CONFIG, STRATEGIES["locked"], Workspace(tmp_path))
    assert not list(tmp_path.iterdir())


# Packages


@pytest.fixture(scope="module")
def package(twice: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "model"
    save_package(twice, folder)
    return folder


def test_a_package_keeps_a_locked_model(twice: Model, package: Path, image: Tensor) -> None:
    loaded = load_model(package)
    assert loaded.spec == twice.spec and same_weights(loaded.network, twice.network)
    assert torch.equal(logits(loaded, image), logits(twice, image))
    assert not loaded.network.training and not any(p.requires_grad for p in locked(loaded).core.parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_monai_builds_a_locked_model_from_its_bundle(package: Path, image: Tensor) -> None:
    parser = ConfigParser()
    parser.read_config(package / "configs" / "inference.json")
    parser.update({"bundle_root": str(package), "device": "cpu"})
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(package / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(network.eval()(image), load_model(package).network(image))
