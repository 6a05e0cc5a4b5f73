"""Feature statistics: golden numbers of R by hand, exact recording, sources and their order, storage, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from watched import CPU, batchnorms, hooks, noise, preset, scan, toy, trained_segresnet

from IncrementalSegLib.errors import InputError, PackageError
from IncrementalSegLib.inversion.layers import layer_names
from IncrementalSegLib.inversion.statistics import (
    FeatureStatistics,
    distance_per_layer,
    feature_distance,
    published_distance,
    record_statistics,
    statistics_of,
    watch,
)
from IncrementalSegLib.models.checkpoint import load_state, save_state

pytestmark = pytest.mark.usefixtures("one_thread")


def two_layers() -> tuple[dict[str, tuple[Tensor, Tensor]], FeatureStatistics]:
    seen = {
        "a": (torch.tensor([3.0, 8.0]), torch.tensor([4.0, 20.0])),
        "b": (torch.tensor([2.0]), torch.tensor([6.0])),
    }
    stored = {
        "a": (torch.tensor([0.0, 0.0]), torch.tensor([1.0, 4.0])),
        "b": (torch.tensor([1.0]), torch.tensor([4.0])),
    }
    return seen, FeatureStatistics("training", stored)


def test_feature_distance_by_hand() -> None:
    seen, statistics = two_layers()
    # Layer a: means are 3 and 4 deviations off, variances 3 and 4 times too large: rms 5/√2 each. Layer b: 0.5 each.
    expected = {"a": 10 / math.sqrt(2), "b": 1.0}
    assert distance_per_layer(seen, statistics) == pytest.approx(expected, rel=1e-4)
    assert feature_distance(seen, statistics).item() == pytest.approx((10 * expected["a"] + 1) / 2, rel=1e-4)
    assert feature_distance(seen, statistics, 1.0).item() == pytest.approx((expected["a"] + 1) / 2, rel=1e-4)


def test_published_distance_by_hand() -> None:
    seen, statistics = two_layers()
    a, b = (math.sqrt(9 + 64) + math.sqrt(9 + 256)) / 2, 1.0 + 2.0
    assert published_distance(seen, statistics).item() == pytest.approx(10 * a + b)
    assert published_distance(seen, statistics, 2.0).item() == pytest.approx(2 * a + b)


def test_a_channel_that_was_always_zero_does_not_outweigh_the_others() -> None:
    _, statistics = two_layers()
    statistics.layers["a"][1][0] = 0
    seen = {name: (mean, variance + 1e-6) for name, (mean, variance) in statistics.layers.items()}
    assert feature_distance(seen, statistics).item() < 1


def test_equal_statistics_are_at_distance_zero_with_a_finite_gradient() -> None:
    for distance in (feature_distance, published_distance):
        _, statistics = two_layers()
        seen = {n: (m.clone().requires_grad_(), v.clone().requires_grad_()) for n, (m, v) in statistics.layers.items()}
        r = distance(seen, statistics)
        r.backward()
        gradients = [moment.grad for pair in seen.values() for moment in pair]
        assert r.item() == 0 and all(g is not None and torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("distance", [feature_distance, published_distance, distance_per_layer])
def test_distances_refuse_what_was_not_seen_or_does_not_fit(distance: Callable[..., Any]) -> None:
    seen, statistics = two_layers()
    with pytest.raises(ValueError, match="layer b was not seen"):
        distance({"a": seen["a"]}, statistics)
    with pytest.raises(ValueError, match=r"layer b: seen \(2,\) channels against \(1,\)"):
        distance({**seen, "b": seen["a"]}, statistics)


def test_r_of_the_recorded_scan_is_zero_and_grows_with_a_shift() -> None:
    network, image = toy(), scan(1)
    statistics = record_statistics(network, [image], "training", CPU)
    r = []
    with watch(network, statistics) as seen, torch.no_grad():
        for shift in (0.0, 0.5, 1.0, 2.0):
            network(image + shift)
            r.append(feature_distance(seen, statistics).item())
    assert r[0] < 1e-4 and r == sorted(r) and r[1] > 0.1


def test_r_does_not_depend_on_the_scale_of_a_layer_but_the_published_form_does() -> None:
    network = toy()
    found: dict[str, list[float]] = {"ours": [], "published": []}
    for scale in (1.0, 7.0):
        with torch.no_grad():
            network[0].weight.mul_(scale)  # type: ignore[operator, union-attr]
            network[0].bias.mul_(scale)  # type: ignore[operator, union-attr]
        statistics = record_statistics(network, [scan(1), scan(2)], "training", CPU)
        with watch(network, statistics) as seen, torch.no_grad():
            network(scan(3) + 0.3)
        found["ours"].append(feature_distance(seen, statistics).item())
        found["published"].append(published_distance(seen, statistics).item())
    assert found["ours"][1] == pytest.approx(found["ours"][0], rel=0.01)
    assert found["published"][1] > 3 * found["published"][0]


def test_a_scan_like_the_recorded_ones_is_much_nearer_than_noise() -> None:
    network = preset("DynUNet")
    statistics = record_statistics(network, [scan(seed) for seed in range(6)], "training", CPU)
    with watch(network, statistics) as seen, torch.no_grad():
        network(torch.cat([scan(seed) for seed in range(20, 24)]))
        similar = feature_distance(seen, statistics).item()
        network(noise(4, 1, 16, 16, 16))
        assert 5 * similar < feature_distance(seen, statistics).item()


def test_batchnorm_statistics_are_the_running_ones() -> None:
    network = trained_segresnet()
    statistics = statistics_of(network, {"statistics": "not looked at"}, None)
    running = batchnorms(network)
    assert statistics.source == "batchnorm" and set(statistics.layers) == set(running) and len(running) == 26
    for name, (mean, variance) in statistics.layers.items():
        assert torch.equal(mean, running[name][0]) and torch.equal(variance, running[name][1])
        assert mean.any()
    with torch.no_grad():
        network.train()(noise(2, 1, 16, 16, 16))
    mean, _ = statistics.layers["activation.0"]
    assert torch.equal(mean, running["activation.0"][0])  # a copy: training goes on without it


def test_recorded_statistics_are_those_of_all_voxels_together() -> None:
    network = toy()
    batches = [noise(2, 1, 8, 8, 8, seed=0) + 50, noise(1, 1, 12, 9, 8, seed=1) * 3, noise(3, 1, 8, 7, 9, seed=2) - 4]
    statistics = record_statistics(network, iter(batches), "training", CPU)
    for name, before in (("1", network[:1]), ("4", network[:4])):
        with torch.no_grad():
            features = torch.cat([before(batch).transpose(0, 1).flatten(1) for batch in batches], 1).double()
        mean, variance = statistics.layers[name]
        assert mean.dtype == variance.dtype == torch.float32
        assert mean.numpy() == pytest.approx(features.mean(1).numpy(), rel=1e-5, abs=1e-6)
        assert variance.numpy() == pytest.approx(features.var(1, correction=0).numpy(), rel=1e-5)


def test_recording_leaves_modes_running_statistics_and_gradients_alone() -> None:
    network = trained_segresnet().train()
    network.get_submodule("activation").eval()
    modes, before = [m.training for m in network.modules()], batchnorms(network)
    statistics = record_statistics(network, [scan(7)], "scans", CPU)
    assert [m.training for m in network.modules()] == modes and hooks(network) == 0
    assert all(torch.equal(a, b) for n, p in batchnorms(network).items() for a, b in zip(p, before[n], strict=True))
    assert not any(moment.requires_grad for pair in statistics.layers.values() for moment in pair)


def test_the_recording_is_taken_before_scans_are_asked_for() -> None:
    network = preset("DynUNet")
    recorded = record_statistics(network, [scan(0)], "training", CPU)
    asked: list[int] = []

    def scans() -> Iterator[Tensor]:
        asked.append(1)
        yield scan(1)

    found = statistics_of(network, {"statistics": recorded.to_state()}, scans)
    assert found.source == "training" and len(found.layers) == 15 and asked == []
    measured = statistics_of(network, {}, scans)
    assert measured.source == "scans" and list(measured.layers) == list(found.layers) and asked == [1]


def test_refuses_a_model_without_statistics_and_without_scans() -> None:
    with pytest.raises(InputError, match=r"carries no feature statistics .* give some scans"):
        statistics_of(preset("DynUNet"), {}, None)
    with pytest.raises(InputError, match="no BatchNorm with running statistics"):
        FeatureStatistics.of_batchnorm(toy())


def test_refuses_scans_that_are_none_or_not_finite_or_too_small() -> None:
    network = toy()
    with pytest.raises(InputError, match="no scan to measure"):
        record_statistics(network, [], "scans", CPU)
    with pytest.raises(InputError, match="not finite numbers"):
        record_statistics(network, [scan(0), scan(1) / 0], "scans", CPU)
    with pytest.raises(InputError, match="cannot process a volume of 2×2×2 voxels"):
        record_statistics(network, [noise(1, 1, 2, 2, 2)], "scans", CPU)
    with pytest.raises(InputError, match="no normalisation and no convolution"):
        layer_names(nn.Sequential(nn.Linear(32, 2)))


def test_refuses_the_statistics_of_another_network() -> None:
    network = toy()
    state = record_statistics(network, [scan(0)], "training", CPU).to_state()
    state["layers"]["4"] = (torch.zeros(5), torch.ones(5))
    with pytest.raises(PackageError, match=r"do not belong to its network \(layer 4\)"):
        statistics_of(network, {"statistics": state}, None)


def test_statistics_survive_a_checkpoint(tmp_path: Path) -> None:
    statistics = record_statistics(toy(), [scan(0)], "training", CPU)
    save_state(tmp_path / "statistics.pt", statistics.to_state())
    loaded = FeatureStatistics.from_state(load_state(tmp_path / "statistics.pt"))
    assert loaded.source == "training" and list(loaded.layers) == list(statistics.layers)
    for name, (mean, variance) in statistics.layers.items():
        assert torch.equal(loaded.layers[name][0], mean) and torch.equal(loaded.layers[name][1], variance)
    assert loaded.to(CPU).layers.keys() == loaded.layers.keys() and loaded.to(CPU).source == "training"


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {},
        {"source": "training"},
        {"source": "training", "layers": {}},
        {"source": "elsewhere", "layers": {"a": (torch.zeros(2), torch.ones(2))}},
        {"source": "training", "layers": {"a": torch.zeros(3)}},
        {"source": "training", "layers": {"a": (torch.zeros(2), torch.ones(3))}},
        {"source": "training", "layers": {"a": (torch.zeros(2, 2), torch.ones(2, 2))}},
        {"source": "training", "layers": {"a": (torch.zeros(0), torch.ones(0))}},
        {"source": "training", "layers": {"a": (torch.zeros(2), -torch.ones(2))}},
        {"source": "training", "layers": {"a": (torch.full((2,), torch.nan), torch.ones(2))}},
        {"source": "training", "layers": {"a": ([0.0], [1.0])}},
    ],
)
def test_refuses_damaged_statistics(state: Any) -> None:
    with pytest.raises(PackageError, match=r"feature statistics .* are damaged"):
        FeatureStatistics.from_state(state)
