"""A few voxels for tests of losses: logits, labels, and a loss's gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

OLD, CLASSES = 3, 5


def logits_of(probabilities: list[list[float]]) -> Tensor:
    """Voxels along x, each a list of class probabilities, as logits (1, C, n, 1, 1)."""
    return torch.tensor(probabilities).log().T.reshape(1, len(probabilities[0]), len(probabilities), 1, 1)


def labels_of(*labels: int) -> Tensor:
    return torch.tensor(labels).reshape(1, -1, 1, 1)


def hidden_of(*channels: int, classes: int, batch: int = 1) -> Tensor:
    hidden = torch.zeros(batch, classes, dtype=torch.bool)
    hidden[:, list(channels)] = True
    return hidden


def random_logits(classes: int, *, batch: int = 2, edge: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(classes)
    return torch.randn(batch, classes, edge, edge, edge, generator=generator, dtype=torch.float64).to(dtype) * 2


def random_labels(classes: int, *, batch: int = 2, edge: int = 4) -> Tensor:
    return torch.randint(0, classes, (batch, edge, edge, edge), generator=torch.Generator().manual_seed(9))


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of a loss at this tensor."""
    at = at.clone().requires_grad_()
    return torch.autograd.grad(loss(at), at)[0]
