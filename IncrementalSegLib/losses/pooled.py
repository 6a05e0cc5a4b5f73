"""PLOP's pooled strips: multi-scale distillation of feature maps (Douillard et al. 2021, §3.2), in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .unbiased import at_least_float32


class PooledStripDistillation(nn.Module):
    """L2 distance between the normalised strip averages of teacher and student features.

    At scale s every map is cut into s³ blocks; in each, the mean along each axis gives three strips. As in PLOP,
    features are squared before pooling.
    """

    def __init__(self, scales: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        self.scales = tuple(scales)

    def forward(self, features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Mean over stages of the distance; every map is (B, C, x, y, z), equal shapes in both lists.

        Raises:
            ValueError: no stage, another number or shape of stages, or a map smaller than every scale.
        """
        if len(features) != len(teacher_features) or not features:
            raise ValueError(f"{len(features)} stages against {len(teacher_features)} of the teacher")
        return torch.stack([self._stage(a, b) for a, b in zip(features, teacher_features, strict=True)]).mean()

    def _stage(self, ours: Tensor, theirs: Tensor) -> Tensor:
        if ours.shape != theirs.shape:
            raise ValueError(f"features {tuple(ours.shape)} against {tuple(theirs.shape)} of the teacher")
        scales = [scale for scale in self.scales if scale <= min(ours.shape[2:])]
        if not scales:
            raise ValueError(f"features {tuple(ours.shape)} are smaller than every scale of {self.scales}")
        a, b = at_least_float32(ours) ** 2, at_least_float32(theirs) ** 2
        return torch.stack([(self._strips(a, s) - self._strips(b, s)).norm(dim=1).mean() for s in scales]).mean()

    @staticmethod
    def _strips(maps: Tensor, scale: int) -> Tensor:
        """Means along each axis of each of its ``scale`` blocks, all three axes as one unit vector (B, features)."""
        strips = [
            torch.stack([block.mean(axis) for block in maps.tensor_split(scale, axis)], axis).flatten(1)
            for axis in (2, 3, 4)
        ]
        return nn.functional.normalize(torch.cat(strips, 1), dim=1)
