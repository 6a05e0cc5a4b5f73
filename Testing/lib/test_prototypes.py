"""Prototypes: exact sums, every voxel once, what a step makes of them, and their way through a package."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helping import UNAUGMENTED
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from training_runs import CONFIG, train, update

from IncrementalSegLib.cases import Case
from IncrementalSegLib.errors import Cancelled, PackageError
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.losses.unbiased import IGNORE
from IncrementalSegLib.models.checkpoint import load_state, save_state
from IncrementalSegLib.models.networks import PRESETS, NetworkSpec, build_network
from IncrementalSegLib.models.package import Model, load_model, save_package
from IncrementalSegLib.models.tap import features_and_logits
from IncrementalSegLib.prototypes import Moments, Prototypes, RunningPrototypes, collect, grown, local_means
from IncrementalSegLib.training.outcome import recalled

pytestmark = pytest.mark.usefixtures("one_thread")
CPU, PATCH = torch.device("cpu"), (8, 8, 8)


def direct(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C, F) of features (F, …) and count (C,), class by class."""
    values, flat = features.flatten(1).double(), labels.flatten()
    members = [values[:, flat == c] for c in range(classes)]
    mean = [m.mean(1) if m.shape[1] else torch.zeros(len(values)) for m in members]
    variance = [m.var(1, correction=0) if m.shape[1] else torch.zeros(len(values)) for m in members]
    return torch.stack(mean).float(), torch.stack(variance).float(), torch.tensor([m.shape[1] for m in members])


def assert_equal(found: Prototypes, expected: tuple[Tensor, Tensor, Tensor], tolerance: float = 1e-5) -> None:
    assert torch.allclose(found.mean, expected[0], rtol=tolerance, atol=tolerance)
    assert torch.allclose(found.variance, expected[1], rtol=tolerance, atol=tolerance)
    assert torch.equal(found.count, expected[2])
    assert found.mean.dtype == found.variance.dtype == torch.float32


# Sums over voxels


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 3), st.lists(st.integers(0, 30), min_size=1), st.data())
def test_a_stream_is_exact_in_chunks_of_any_size_and_order(seed, classes, channels, sizes, data) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = 100 + torch.randn(channels, sum(sizes), generator=generator)
    labels = torch.randint(0, classes + 2, (sum(sizes),), generator=generator).to(torch.uint8)
    labels[labels == classes + 1] = IGNORE
    chunks = list(zip(features.split(sizes, 1), labels.split(sizes), strict=True))
    moments = Moments(classes, channels)
    for chunk in data.draw(st.permutations(chunks)):
        moments.add(*chunk)
    assert_equal(moments.prototypes(), direct(features, labels, classes))


def test_a_stream_keeps_nothing_of_what_was_added() -> None:
    moments = Moments(3, 2)
    for _ in range(2):
        features = torch.rand(2, 4, 4, 4)
        kept = weakref.ref(features)
        moments.add(features, torch.zeros(4, 4, 4, dtype=torch.uint8))
        del features
        assert kept() is None
    assert (moments.count.numel(), moments.total.numel(), moments.squares.numel()) == (3, 6, 6)


# Collecting


class Powers(nn.Module):
    """Three features of every voxel alone: 1, x, x²; notes what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return torch.cat([torch.ones_like(x), x, x * x], 1)


def headed(trunk: nn.Module, features: int = 3) -> nn.Sequential:
    return nn.Sequential(OrderedDict(trunk=trunk, activation=nn.Identity(), head=nn.Conv3d(features, 3, 1)))


def scan(*size: int, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.choice(np.array([0, 1, 3, IGNORE], np.uint8), size)
    return torch.from_numpy(generator.normal(size=size).astype(np.float32)), labels


@pytest.mark.parametrize("size", [(8, 8, 8), (5, 6, 7), (3, 20, 8), (17, 9, 25), (16, 8, 24)])
def test_every_voxel_of_every_scan_counts_once_whatever_its_size(size: tuple[int, int, int]) -> None:
    network, scans = headed(trunk := Powers()), [scan(*size), scan(8, 8, 8, seed=1)]
    (found,) = collect([network], scans, 4, PATCH, CPU, Reporter())
    image = torch.cat([image.flatten() for image, _ in scans])
    labels = torch.cat([torch.from_numpy(labels).flatten() for _, labels in scans])
    assert_equal(found, direct(torch.stack([torch.ones_like(image), image, image**2]), labels, 4))
    assert found.count.sum() == (labels != IGNORE).sum()
    assert set(trunk.shapes) == {(1, 1, *PATCH)} and len(trunk.shapes) == np.prod([-(-n // 8) for n in size]) + 1


def test_features_are_those_of_the_tiles_of_every_network() -> None:
    looking_around = nn.Sequential(nn.Conv3d(1, 4, 5, padding=2), nn.BatchNorm3d(4))
    networks, (image, labels) = [headed(looking_around, 4), headed(Powers())], scan(13, 5, 8)
    with torch.no_grad():
        padded = nn.functional.pad(image, [0, 0, 0, 3], value=-1.0)[None, None]
        trunk = networks[0].eval()[0]
        first, second = trunk(padded[:, :, :8])[0], trunk(padded[:, :, 5:])[0]
    expected = torch.cat([first, second[:, 3:]], 1)[:, :, :5]
    found = collect([network.train() for network in networks], [(image, labels)], 4, PATCH, CPU, Reporter())
    assert_equal(found[0], direct(expected, torch.from_numpy(labels), 4))
    assert found[1].mean.shape == (4, 3) and torch.equal(found[0].count, found[1].count)
    assert torch.equal(networks[0][0][1].running_mean, torch.zeros(4))  # evaluation mode


@pytest.mark.parametrize("labels", [(0, 1, 3), (IGNORE,)])
def test_an_absent_class_is_zeros(labels: tuple[int, ...]) -> None:
    image, shown = torch.rand(8, 8, 8), np.resize(np.array(labels, np.uint8), PATCH)
    (found,) = collect([headed(Powers())], [(image, shown)], 4, PATCH, CPU, Reporter())
    absent = [c for c in range(4) if c not in labels]
    assert not any(part[absent].any() for part in (found.mean, found.variance, found.count))
    assert found.count.sum() == (shown != IGNORE).sum()


def test_collecting_is_cancelled_before_the_next_patch() -> None:
    network = headed(trunk := Powers())
    reporter = Reporter(cancelled=lambda: len(trunk.shapes) >= 2)
    with pytest.raises(Cancelled):
        collect([network], [scan(32, 8, 8)], 4, PATCH, CPU, reporter)
    assert len(trunk.shapes) == 2


@pytest.mark.parametrize("name", PRESETS)
def test_every_network_gives_its_features(name: str) -> None:
    spec = NetworkSpec.preset(name)
    torch.manual_seed(0)
    network = build_network(spec, 3).eval()
    image = torch.randn(1, 1, *((64, 32, 32) if name == "SwinUNETR" else (32, 16, 16)))
    with torch.no_grad():
        features, logits = features_and_logits(network, image)
        assert torch.equal(network.get_submodule("head")(features), logits)
    assert features.shape == (1, spec.features, *image.shape[2:]) and features.min() == 0 < features.max()
    labels = (image[0, 0] > 0).to(torch.uint8)
    (found,) = collect([network], [(image[0, 0], labels.numpy())], 3, image.shape[2:], CPU, Reporter())
    local, present = local_means(features, labels[None], 3)
    assert found.count.tolist() == [int((labels == c).sum()) for c in range(3)] and present.tolist() == [1, 1, 0]
    if name != "VNet":  # whose dropout MONAI does not let anyone switch off
        assert torch.allclose(found.mean, local, atol=1e-4)


# In the package


def made(classes: int = 3, features: int = 2, seed: int = 0) -> Prototypes:
    generator = torch.Generator().manual_seed(seed)
    mean, variance = torch.randn(2, classes, features, generator=generator)
    return Prototypes(mean, variance.square(), torch.arange(1, classes + 1))


def same(a: Prototypes, b: Prototypes) -> bool:
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("mean", "variance", "count"))


def test_prototypes_survive_a_file(tmp_path: Path) -> None:
    known = made()
    save_state(tmp_path / "prototypes.pt", known.to_state())
    assert same(Prototypes.from_state(load_state(tmp_path / "prototypes.pt"), 3, 2), known)


DAMAGES: dict[str, Any] = {
    "4 classes": (made(4).to_state(), "3 classes of 2 features"),
    "3 features": (made(3, 3).to_state(), "3 classes of 2 features"),
    "not a number": ({**made().to_state(), "mean": torch.full((3, 2), torch.nan)}, "no number"),
    "negative": ({**made().to_state(), "variance": torch.full((3, 2), -1.0)}, "negative variance"),
    "counts": ({**made().to_state(), "count": torch.ones(4)}, "damaged"),
    "no tensor": ({**made().to_state(), "mean": [1.0]}, "damaged"),
    "nothing": ({}, "damaged"),
    "a tensor": (torch.zeros(3, 2), "damaged"),
    "newer": ({**made().to_state(), "format": 2}, "newer IncrementalSeg: update"),
}


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("damage", DAMAGES)
def test_refuses_damaged_prototypes(damage: str) -> None:
    state, sentence = DAMAGES[damage]
    with pytest.raises(PackageError, match=sentence):
        Prototypes.from_state(state, 3, 2)


# After a step


def test_classes_in_view_move_by_their_drift_and_new_ones_are_as_measured() -> None:
    after = grown(known := made(3), old := made(3, seed=1), new := made(5, seed=2))
    assert torch.allclose(after.mean[:3], known.mean + new.mean[:3] - old.mean)
    for ours, before, measured in zip(after.parts[1:], known.parts[1:], new.parts[1:], strict=True):
        assert torch.equal(ours, torch.cat([before, measured[3:]]))
    assert torch.equal(after.mean[3:], new.mean[3:])


def test_a_class_out_of_view_moves_with_those_that_are_like_it() -> None:
    mean = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 1.0]])
    known, old = Prototypes(mean, torch.ones(4, 2), torch.ones(4)), Prototypes(mean, mean, torch.tensor([9, 9, 9, 0]))
    drift = torch.tensor([[0.0, 0.0], [1.0, 2.0], [-3.0, 5.0], [7.0, 7.0]])
    after = grown(known, old, Prototypes(torch.cat([mean + drift, mean[:1]]), mean, torch.ones(5)))
    centred = mean - mean.mean(0)
    likeness = [np.exp(10 * float(torch.cosine_similarity(centred[3], centred[c], 0))) for c in range(3)]
    lent = sum(weight * drift[c] for c, weight in enumerate(likeness)) / sum(likeness)
    assert torch.allclose(after.mean[3], mean[3] + lent, atol=1e-5)
    assert torch.allclose(lent, drift[1], atol=1e-2)  # it lies beside class 1, away from the others
    assert torch.allclose(after.mean[:3], mean[:3] + drift[:3])


def test_a_class_seen_for_the_first_time_is_as_measured() -> None:
    known, new = made(3), made(4, seed=2)
    known.count[2] = 0
    after = grown(known, made(3, seed=1), new)
    assert all(torch.equal(mine[2], measured[2]) for mine, measured in zip(after.parts, new.parts, strict=True))


@pytest.mark.parametrize("unseen", [(), (1,), (0, 1, 2)])
def test_without_drift_nothing_moves(unseen: tuple[int, ...]) -> None:
    known, seen = made(3), made(4, seed=1)
    seen.count[list(unseen)] = 0
    old = Prototypes(seen.mean[:3], seen.variance[:3], seen.count[:3])
    assert torch.equal(grown(known, old, seen).mean[:3], known.mean)


def test_the_background_follows_slowly() -> None:
    running = RunningPrototypes(known := Prototypes(torch.tensor([[1.0, 2], [3, 4]]), torch.ones(2, 2), torch.ones(2)))
    running.follow(torch.tensor([2.0, -8.0]))
    assert torch.allclose(running.mean, torch.tensor([[1.01, 1.9], [3, 4]]))
    assert known.mean[0].tolist() == [1, 2] and torch.equal(running.prototypes().mean, running.mean)
    other = RunningPrototypes(made(2))
    other.load_state_dict(running.state_dict())
    assert torch.equal(other.mean, running.mean) and torch.equal(other.variance, running.variance)


def test_the_scale_is_the_variance_within_and_between_known_classes() -> None:
    mean, variance = torch.tensor([[1.0, 0], [3, 0], [99, 99]]), torch.tensor([[1.0, 2], [3, 4], [99, 99]])
    running = RunningPrototypes(Prototypes(mean, variance, torch.tensor([5, 1, 0])))
    assert running.scale().tolist() == [2 + 1, 3 + 0]


@pytest.fixture(scope="module")
def base(two_cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny model of liver and spleen after a few steps; nothing may change it."""
    return train(two_cases, tmp_path_factory.mktemp("base"), replace(CONFIG, augmentation=UNAUGMENTED))


def prototypes_in(model: Model) -> Prototypes:
    return Prototypes.from_state(model.memory["prototypes"], model.classes, model.spec.features)


def test_training_and_a_step_remember_prototypes(base: Model, two_cases: list[Case], tmp_path: Path) -> None:
    before = prototypes_in(base)
    assert before.mean.shape == (3, 8) and (before.count > 0).all()
    updated = update(base, two_cases, tmp_path / "work", "pgcd-dapd")
    after = prototypes_in(updated)
    assert after.mean.shape == after.variance.shape == (4, 8) and after.count[3] > 0
    assert torch.equal(after.count[:3], before.count) and torch.equal(after.variance[:3], before.variance)
    assert not torch.equal(after.mean[:3], before.mean)
    save_package(updated, tmp_path / "model")
    assert same(prototypes_in(load_model(tmp_path / "model")), after)


def test_a_step_goes_on_from_what_the_parent_remembers_else_from_what_it_sees(
    base: Model, two_cases: list[Case], tmp_path: Path
) -> None:
    hu = np.random.default_rng(0).integers(-125, 275, (20, 32, 40)).astype(np.int16)
    labels = np.resize(np.array([0, 2, 0], np.uint8), hu.shape)
    assert same(recalled(base, [(hu, labels)], CPU, Reporter()), prototypes_in(base))
    bare, image = replace(base, memory={}), torch.from_numpy(base.preprocessing.normalise(hu))
    (expected,) = collect([base.network], [(image, labels)], 3, base.patch, CPU, Reporter())
    assert same(recalled(bare, [(hu, labels)], CPU, Reporter()), expected)
    after = prototypes_in(update(bare, two_cases, tmp_path, "pgcd-dapd"))
    assert after.mean.shape == (4, 8) and after.count[0] > 0 < after.count[3] and after.mean.isfinite().all()


def test_damaged_prototypes_in_a_package_are_a_sentence(base: Model, two_cases: list[Case], tmp_path: Path) -> None:
    state = {**base.memory["prototypes"], "mean": torch.full((3, 8), torch.nan)}
    save_package(replace(base, memory={"prototypes": state}), tmp_path / "model")
    with pytest.raises(PackageError, match=r"prototypes are damaged .*: copy the model package again"):
        update(load_model(tmp_path / "model"), two_cases, tmp_path / "work", "pgcd-dapd")
    assert not (tmp_path / "work" / "checkpoint").exists()
