"""Widening: organ logits stay bit-identical and folded probabilities equal, whatever the network."""

from __future__ import annotations

from collections.abc import Callable

import monai.networks.nets as nets
import pytest
import torch
from torch import Tensor, nn

from IncrementalSegLib.errors import PackageError
from IncrementalSegLib.models.networks import PRESETS, NetworkSpec, build_network
from IncrementalSegLib.models.widen import folded_probabilities, widen

pytestmark = pytest.mark.usefixtures("one_thread")

Build = Callable[[int], nn.Module]
OLD = 4
RAW: dict[str, Build] = {
    "UNet without residual units": lambda c: nets.UNet(3, 1, c, (8, 16, 32), (2, 2), norm="batch"),
    "UNet with residual units": lambda c: nets.UNet(3, 1, c, (8, 16, 32), (2, 2), num_res_units=2, norm="batch"),
    "SegResNet": lambda c: nets.SegResNet(3, 8, 1, c, norm="batch"),
    "SegResNetDS": lambda c: nets.SegResNetDS(3, 8, 1, c),
    "DynUNet": lambda c: nets.DynUNet(3, 1, c, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 32]),
    "DynUNet with deep supervision": lambda c: nets.DynUNet(
        3, 1, c, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8, 16, 32, 32], deep_supervision=True, deep_supr_num=2
    ),
    "SwinUNETR": lambda c: nets.SwinUNETR(1, c, feature_size=12),
    "BasicUNet": lambda c: nets.BasicUNet(3, 1, c, (8, 8, 8, 16, 16, 8), norm="batch"),
    "AttentionUnet": lambda c: nets.AttentionUnet(3, 1, c, (8, 16, 32), (2, 2)),
    "VNet": lambda c: nets.VNet(3, 1, c, dropout_prob_down=None, dropout_prob_up=(None, 0.0)),
}


def preset(name: str) -> Build:
    return lambda classes: build_network(NetworkSpec.preset(name), classes)


NETWORKS = {f"{name} trunk": preset(name) for name in PRESETS} | RAW


def randomised(network: nn.Module) -> nn.Module:
    """The network in evaluation mode with every weight and statistic away from its initial value."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in (state := network.state_dict()).items():
        if not tensor.is_floating_point():
            continue
        noise = torch.rand(tensor.shape, generator=generator) * 3.4 - 1.7
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.dim() < 2:
            tensor.copy_(noise * 0.5 + name.endswith("weight"))
        else:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
    network.load_state_dict(state)
    return network.eval()


def scan(name: str) -> Tensor:
    sizes = {"SwinUNETR": (64, 32, 32), "VNet": (16, 16, 16)}  # Swin halves five times, then normalises
    return torch.randn(1, 1, *sizes.get(name.split()[0], (32, 32, 32)), generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def assert_same_function(before: Tensor, new: nn.Module, image: Tensor) -> None:
    after, classes = new.eval()(image), before.shape[1]
    assert before.std() > 0.01, "a network that says nothing proves nothing"
    assert torch.equal(after[:, 1:classes], before[:, 1:])
    assert after.shape[1] > classes
    assert (folded_probabilities(after, classes) - before.softmax(1)).abs().max() < 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_organ_logits_stay_bit_identical_and_folded_probabilities_equal(name: str) -> None:
    build, image = NETWORKS[name], scan(name)
    old = randomised(build(OLD))
    state = {key: tensor.clone() for key, tensor in old.state_dict().items()}
    with torch.inference_mode():
        before = old(image)
    assert_same_function(before, widen(build, state, OLD, OLD + 4), image)
    one = widen(build, state, OLD, OLD + 1)
    assert_same_function(before, one, image)
    assert all(torch.equal(tensor, old.state_dict()[key]) for key, tensor in state.items())
    if name.endswith("trunk"):
        grown = {key for key, tensor in one.state_dict().items() if tensor.shape != state[key].shape}
        assert grown == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["UNet trunk", "UNet with residual units", "SegResNet"])
def test_widens_again(name: str) -> None:
    build = NETWORKS[name]
    first = widen(build, randomised(build(OLD)).state_dict(), OLD, OLD + 1).eval()
    with torch.inference_mode():
        before = first(scan(name))
    assert_same_function(before, widen(build, first.state_dict(), OLD + 1, OLD + 3), scan(name))


@pytest.mark.parametrize("name", ["UNet trunk", *list(RAW)[:3], "AttentionUnet"])
def test_new_organs_learn(name: str) -> None:
    build = NETWORKS[name]
    network = widen(build, randomised(build(OLD)).state_dict(), OLD, OLD + 2).eval()
    for new in (OLD, OLD + 1):
        network.zero_grad()
        network(scan(name)).log_softmax(1)[:, new].mean().neg().backward()
        grown = [p.grad for p in network.parameters() if OLD + 2 in p.shape[:2] and p.grad is not None]
        assert grown and all(torch.isfinite(gradient).all() for gradient in grown)
        assert any(gradient[new].abs().sum() > 0 for gradient in grown if gradient.shape[0] == OLD + 2)


def test_every_new_organ_starts_as_likely_as_background() -> None:
    build = preset("UNet")
    network = widen(build, randomised(build(OLD)).state_dict(), OLD, OLD + 3).eval()
    with torch.inference_mode():
        logits = network(scan("UNet"))
    assert torch.equal(logits[:, OLD:], logits[:, :1].expand(-1, 3, -1, -1, -1))


def test_refuses_weights_of_another_network() -> None:
    other = preset("SegResNet")(OLD).state_dict()
    with pytest.raises(PackageError, match="do not fit a network with 4 classes"):
        widen(preset("UNet"), other, OLD, OLD + 1)


def test_refuses_weights_with_another_number_of_classes() -> None:
    with pytest.raises(PackageError, match="do not fit a network with 4 classes"):
        widen(preset("UNet"), preset("UNet")(OLD + 1).state_dict(), OLD, OLD + 2)


def test_refuses_weights_that_lack_a_tensor() -> None:
    state = dict(preset("UNet")(OLD).state_dict())
    del state["head.bias"]
    with pytest.raises(PackageError, match="do not fit"):
        widen(preset("UNet"), state, OLD, OLD + 1)


def test_refuses_a_head_without_bias() -> None:
    def build(classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv3d(1, 4, 1), nn.Conv3d(4, classes, 1, bias=False))

    with pytest.raises(PackageError, match="no bias"):
        widen(build, build(OLD).state_dict(), OLD, OLD + 1)


@pytest.mark.parametrize("new", [OLD, OLD - 1])
def test_refuses_to_widen_to_no_more_classes(new: int) -> None:
    with pytest.raises(ValueError, match="more classes"):
        widen(preset("UNet"), preset("UNet")(OLD).state_dict(), OLD, new)


def test_folding_adds_new_classes_to_background() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().reshape(1, 4, 1, 1, 1)
    folded = folded_probabilities(logits, 2).flatten()
    assert torch.allclose(folded, torch.tensor([0.8, 0.2]))
