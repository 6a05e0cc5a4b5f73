"""The features before the classes, which prototypes and branches read, of any network that this software knows."""

from __future__ import annotations

from torch import Tensor, nn


def features_and_logits(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Features before the head (B, F, x, y, z) and logits (B, 1 + K, x, y, z) of an image (B, 1, x, y, z)."""
    if isinstance(network, nn.Sequential):
        features = network[:-1](image)
        return features, network[-1](features)
    found: tuple[Tensor, Tensor] = network.features_and_logits(image)  # type: ignore[operator]
    return found
