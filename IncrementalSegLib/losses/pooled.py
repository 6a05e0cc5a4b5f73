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
        a, b = (_strips(at_least_float32(maps).contiguous().square(), scales) for maps in (ours, theirs))
        return torch.stack([(x - y).norm(dim=1).mean() for x, y in zip(a, b, strict=True)]).mean()


def _strips(maps: Tensor, scales: Sequence[int]) -> list[Tensor]:
    """Per scale the means along each axis of each of its blocks, all three axes as one unit vector (B, features).

    Means over large blocks are means of those over small ones: every axis of a map is gone through once.
    """
    means = [_block_means(maps, axis, scales) for axis in (2, 3, 4)]
    return [
        nn.functional.normalize(torch.cat([part.flatten(1) for part in one], 1), dim=1)
        for one in zip(*means, strict=True)
    ]


def _block_means(maps: Tensor, axis: int, scales: Sequence[int]) -> list[Tensor]:
    """Per scale the means over each of its blocks along an axis, in place of that axis."""
    finest, length = max(scales), maps.shape[axis]
    if length % finest or any(finest % scale for scale in scales):
        return [torch.stack([part.mean(axis) for part in maps.tensor_split(s, axis)], axis) for s in scales]
    fine = maps.unflatten(axis, (finest, length // finest)).mean(axis + 1)
    return [fine.unflatten(axis, (scale, finest // scale)).mean(axis + 1) for scale in scales]
