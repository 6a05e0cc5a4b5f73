"""What tests of feature statistics watch: smooth scans, noise, small networks with known normalisations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from IncrementalSegLib.models.networks import NetworkSpec, build_network

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scan(seed: int, edge: int = 16) -> Tensor:
    """A smooth grey volume (1, 1, edge, edge, edge) that is no noise."""
    coarse = noise(1, 1, 4, 4, 4, seed=seed)
    return nn.functional.interpolate(coarse, size=(edge, edge, edge), mode="trilinear")


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build().eval()


def preset(name: str) -> nn.Module:
    return seeded(lambda: build_network(NetworkSpec.preset(name), 3))


def toy() -> nn.Sequential:
    """Two convolutions, an InstanceNorm and a GroupNorm, activations in place."""
    network = seeded(
        lambda: nn.Sequential(
            nn.Conv3d(1, 4, 3), nn.InstanceNorm3d(4), nn.ReLU(inplace=True), nn.Conv3d(4, 6, 3), nn.GroupNorm(2, 6)
        )
    )
    assert isinstance(network, nn.Sequential)
    return network


def trained_segresnet() -> nn.Module:
    """A SegResNet whose BatchNorms have seen two smooth scans."""
    network = preset("SegResNet").train()
    with torch.no_grad():
        for seed in range(2):
            network(torch.cat([scan(seed), scan(seed + 10)]))
    return network.eval()


def batchnorms(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    found = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm3d)}
    return {n: (m.running_mean.clone(), m.running_var.clone()) for n, m in found.items()}  # type: ignore[union-attr]


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in network.modules())
