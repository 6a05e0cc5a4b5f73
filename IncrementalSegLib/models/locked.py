"""A locked model: the old network untouched, a light branch beside it for every later step (our formulation).

A branch is a small U-Net on the CT and the old network's features. It only ever divides what the old model calls
background: in a voxel that the old model gives to an organ, no branch has a say. So the logits and the label map of old
organs stay bit for bit what they were, whatever the branches learn; an earlier branch goes before a later one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from .foreign import ForeignNetwork
from .tap import features_and_logits

CHANNELS, STRIDES = (16, 32, 64, 128), (2, 2, 2)


class LockedNetwork(nn.Module):
    """A frozen ``core`` with ``1 + K`` outputs and branches with ``1 + N`` outputs each.

    Args:
        core: the old network; it stays in evaluation mode and never learns.
        features: feature channels F before its head.
        new: number of new organs of every branch, in the order of their steps.

    ``outputs`` are the output channels of the core and of every branch.
    """

    def __init__(self, core: nn.Sequential | ForeignNetwork, features: int, new: Sequence[int]) -> None:
        super().__init__()
        old = core.classes if isinstance(core, ForeignNetwork) else core.get_parameter("head.weight").shape[0]
        self.outputs = [old, *(1 + n for n in new)]
        self.core = core.requires_grad_(False)
        self.branches = nn.ModuleList(
            UNet(3, 1 + features, 1 + n, CHANNELS, STRIDES, norm="batch", act=("relu", {"inplace": True})) for n in new
        )
        self.train()

    def train(self, mode: bool = True) -> LockedNetwork:
        """Training or evaluation mode of the last branch; all else is as it was learned."""
        super().train(False)
        self.branches[-1].train(mode)
        return self

    def features_and_scores(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features (B, F, …), and logits of the core (B, 1 + K, …) and of every branch (B, 1 + N, …)."""
        features, old = features_and_logits(self.core, image)
        seen = torch.cat([image, features], 1)
        return features, [old, *(branch(seen) for branch in self.branches)]

    def features_and_logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F, …) and the logits of all classes: old organs' as they were, background's divided."""
        features, (logits, *branches) = self.features_and_scores(image)
        for scores in branches:
            share = logits[:, :1] + scores.log_softmax(1)  #                                                  B,1+N,…
            logits = torch.cat([share[:, :1], logits[:, 1:], share[:, 1:]], 1)
        return features, logits

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, C, x, y, z) of all classes."""
        return self.features_and_logits(image)[1]

    def only_last_learns(self) -> LockedNetwork:
        """The same network, of which the last branch alone takes gradients."""
        self.requires_grad_(False)
        self.branches[-1].requires_grad_(True)
        return self
