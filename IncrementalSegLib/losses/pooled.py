"""PLOP's pooled strips: multi-scale distillation of feature maps (Douillard et al. 2021, §3.2), in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PooledStripDistillation(nn.Module):
    """L2 distance between the normalised strip averages of teacher and student features.

    At scale s every map is cut into s³ blocks; in each, the mean along each axis gives three strips. As in PLOP features
    are squared before pooling.
    """

    def __init__(self, scales: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        self.scales = tuple(scales)

    def forward(self, features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Mean over stages of the distance; every map is (B, C, x, y, z), equal shapes in both lists."""
        if len(features) != len(teacher_features) or not features:
            raise ValueError(f"{len(features)} stages against {len(teacher_features)} of the teacher")
        return torch.stack([self._stage(a, b) for a, b in zip(features, teacher_features, strict=True)]).mean()

    def _stage(self, ours: Tensor, theirs: Tensor) -> Tensor:
        if ours.shape != theirs.shape:
            raise ValueError(f"features {tuple(ours.shape)} against {tuple(theirs.shape)} of the teacher")
        terms = []
        for scale in self.scales:
            if min(ours.shape[2:]) < scale:
                continue
            a, b = self._strips(ours.float() ** 2, scale), self._strips(theirs.float() ** 2, scale)
            terms.append((a - b).norm(dim=1).mean())
        return torch.stack(terms).mean()

    @staticmethod
    def _strips(maps: Tensor, scale: int) -> Tensor:
        shape = maps.shape[2:]
        strips = []
        for axis in range(3):
            size = [n if i != axis else scale for i, n in enumerate(shape)]
            pooled = nn.functional.adaptive_avg_pool3d(maps, size)  # mean along one axis, per block of that axis
            strips.append(pooled.flatten(1))
        return nn.functional.normalize(
            torch.cat(strips, 1), dim=1
        )  #                                         B,features
