"""Watching features: which layers, their moments and gradients, what a pass leaves behind, hooks that go."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from watched import CPU, batchnorms, hooks, noise, preset, scan, seeded, toy, trained_segresnet

from IncrementalSegLib.errors import InputError, PackageError
from IncrementalSegLib.inversion.layers import layer_names, moments
from IncrementalSegLib.inversion.statistics import FeatureStatistics, feature_distance, record_statistics, watch
from IncrementalSegLib.models.networks import NetworkSpec, build_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("axis", [1, -1])
def test_moments_and_their_gradient_are_those_of_torch(axis: int) -> None:
    x = noise(2, 3, 4, 5, 6).double().requires_grad_() + 10
    axes = [i for i in range(5) if i != axis % 5]
    variance, mean = torch.var_mean(x, axes, correction=0)
    found = moments(x, axis)
    assert torch.allclose(found[0], mean) and torch.allclose(found[1], variance)
    expected = torch.autograd.grad((mean.cos() * variance).sum(), x)[0]
    assert torch.allclose(torch.autograd.grad((found[0].cos() * found[1]).sum(), x)[0], expected)


def test_half_precision_is_summed_in_float32() -> None:
    x = (noise(2, 3, 8, 8, 8) * 300).half().requires_grad_()
    mean, variance = moments(x, 1)
    assert variance.dtype == torch.float32 and variance.min() > 65504 and mean.dtype == torch.float32
    assert variance.detach().numpy() == pytest.approx(x.detach().double().var((0, 2, 3, 4), correction=0).numpy())
    assert torch.autograd.grad(mean.sum(), x)[0].dtype == torch.half
    network, image = toy(), scan(0)
    statistics = record_statistics(network, [image], "training", CPU)
    with watch(network, statistics) as seen, torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert network(image).isfinite().all()
        assert {moment.dtype for pair in seen.values() for moment in pair} == {torch.float32}
        assert feature_distance(seen, statistics).item() < 0.1


def test_the_gradient_of_r_reaches_the_image_and_lowers_r() -> None:
    network = preset("DynUNet").requires_grad_(False)
    statistics = record_statistics(network, [scan(0), scan(1)], "training", CPU)
    image = (scan(2) + 1).requires_grad_()
    r = []
    with watch(network, statistics) as seen:
        for _ in range(2):
            network(image)
            r.append(feature_distance(seen, statistics))
            (gradient,) = torch.autograd.grad(r[-1], image)
            image = (image.detach() - 0.01 * gradient / gradient.abs().mean()).requires_grad_()
    assert gradient.abs().min() > 0 and torch.isfinite(gradient).all() and r[1] < r[0]


def test_watching_sees_the_input_before_it_is_changed_in_place() -> None:
    class Careless(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            features = self[0](x)
            normal = self[1](features)
            features.zero_()
            return normal

    network = Careless(*toy()[:2])
    image = scan(0)
    statistics = record_statistics(network, [image], "training", CPU)
    expected = network[0](image).mean((0, 2, 3, 4))
    assert expected.abs().min() > 0 and torch.allclose(statistics.layers["1"][0], expected, atol=1e-6)


def test_every_pass_overwrites_what_the_one_before_left() -> None:
    network = toy()
    statistics = record_statistics(network, [scan(0)], "training", CPU)
    with watch(network, statistics) as seen, torch.no_grad():
        network(scan(5))
        first = {name: pair[0].clone() for name, pair in seen.items()}
        network(scan(6))
        network[:-1](scan(5))  # a part of the network leaves its layers alone
        assert torch.equal(seen["1"][0], first["1"]) and not torch.equal(seen["4"][0], first["4"])
    assert list(seen) == ["1", "4"]


def test_watching_changes_no_running_statistics_and_leaves_no_hooks() -> None:
    network = trained_segresnet()
    before = batchnorms(network)
    statistics = FeatureStatistics.of_batchnorm(network)
    with watch(network, statistics):
        network(noise(1, 1, 16, 16, 16))
        assert hooks(network) == len(before)
    assert hooks(network) == 0
    assert all(torch.equal(a, b) for n, p in batchnorms(network).items() for a, b in zip(p, before[n], strict=True))


def test_hooks_are_removed_after_an_error() -> None:
    network = toy()
    statistics = record_statistics(network, [scan(0)], "training", CPU)
    with pytest.raises(RuntimeError), watch(network, statistics):
        network(noise(1, 3, 8, 8, 8))  # three channels where one is expected
    with pytest.raises(InputError), watch(network, statistics):
        record_statistics(network, [noise(1, 3, 8, 8, 8)], "scans", CPU)
    assert hooks(network) == 0
    damaged = FeatureStatistics("training", {**statistics.layers, "none": statistics.layers["1"]})
    with pytest.raises(PackageError, match="layer none"), watch(network, damaged):
        pass
    assert hooks(network) == 0


def test_batchnorms_are_watched_where_most_normalisations_are_batchnorms() -> None:
    for name, batch, others in (("SegResNet", 26, 0), ("AttentionUnet", 21, 0), ("DynUNet", 1, 14)):
        network = preset(name)
        kinds = [type(network.get_submodule(layer)).__name__ for layer in layer_names(network)]
        assert (kinds.count("BatchNorm3d"), kinds.count("InstanceNorm3d")) == (batch, others)
        assert kinds[-1] == "BatchNorm3d"  # the one before the head comes last


def test_convolutions_are_watched_where_nothing_is_normalised() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(inplace=True), nn.ConvTranspose3d(2, 3, 2))
    image = scan(1)
    statistics = record_statistics(network, [image], "scans", CPU)
    assert {name: len(mean) for name, (mean, _) in statistics.layers.items()} == {"0": 1, "2": 2}
    assert statistics.layers["0"][0].item() == pytest.approx(image.mean().item(), abs=1e-6)


class Odd(nn.Module):
    """Layers registered in another order than they run in, one run twice, one never, one over two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.never = nn.BatchNorm3d(3), nn.BatchNorm3d(3)
        self.twice, self.first = nn.BatchNorm3d(3), nn.BatchNorm3d(3)
        self.plane = nn.LayerNorm([8, 8])
        self.conv = nn.Conv3d(1, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.conv(x[..., :8, :8, :8]))
        return self.last(self.plane(self.twice(self.twice(x))))


def test_layers_come_in_forward_order_and_only_those_with_one_input() -> None:
    network = Odd().train()
    assert layer_names(network) == ["first", "last"]
    assert list(FeatureStatistics.of_batchnorm(network).layers) == ["first", "last"]
    assert list(record_statistics(network, [scan(0)], "scans", CPU).layers) == ["first", "last"]
    assert all(m.training for m in network.modules())
    assert all(not mean.any() for mean, _ in batchnorms(network).values())


def test_swinunetr_is_watched_with_the_channels_of_its_layernorms_last() -> None:
    pytest.importorskip("einops")
    small = NetworkSpec("SwinUNETR", {"spatial_dims": 3, "feature_size": 12, "depths": [1, 1, 1, 1]})
    network = seeded(lambda: build_network(small, 3))
    image = nn.functional.interpolate(scan(0), size=(64, 32, 32))
    inputs: list[Tensor] = []
    layer = "trunk.swinViT.layers1.0.blocks.0.norm1"
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    statistics = record_statistics(network, [image], "training", CPU)
    handle.remove()
    kinds = {type(network.get_submodule(name)).__name__ for name in statistics.layers}
    assert kinds == {"LayerNorm", "InstanceNorm3d", "BatchNorm3d"} and len(statistics.layers) == 39
    assert torch.allclose(statistics.layers[layer][0], inputs[-1].mean((0, 1, 2, 3)), atol=1e-5)
