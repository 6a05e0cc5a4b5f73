"""Sliding windows as nnU-Net lays and blends them: at even distances, weighted by a Gaussian around their middle.

MONAI's, which everything else here uses, keep one distance and push the last window back. Networks that normalise over
a window see other statistics in other windows, so that an nnU-Net predicts what it did at home in its own only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_SIGMA = 1 / 8  # of the window's edge
_REACH = 4.0  # sigmas


def evenly_windowed(
    image: Tensor, roi: Sequence[int], overlap: float, apply: Callable[[Tensor], Tensor], device: torch.device
) -> Tensor:
    """Scores (1, C, x, y, z) on the CPU of an image (1, 1, x, y, z), averaged over windows of ``roi`` voxels.

    ``apply`` gets a window (1, 1, *roi) on ``device``. Images smaller than a window are padded with 0 on both sides.
    """
    shape = image.shape[2:]
    missing = [max(0, edge - n) for edge, n in zip(roi, shape, strict=True)]
    pads = [part for total in reversed(missing) for part in (total // 2, total - total // 2)]
    image, weight = torch.nn.functional.pad(image, pads), _importance(roi)
    total, weights = torch.zeros(()), torch.zeros(image.shape[2:])
    starts = (_starts(n, edge, overlap) for n, edge in zip(image.shape[2:], roi, strict=True))
    for corner in itertools.product(*starts):
        x, y, z = (slice(start, start + edge) for start, edge in zip(corner, roi, strict=True))
        scores = apply(image[..., x, y, z].to(device)).cpu()
        if not total.dim():
            total = scores.new_zeros((1, scores.shape[1], *image.shape[2:]))
        total[..., x, y, z] += scores * weight
        weights[x, y, z] += weight
    x, y, z = (slice(pad // 2, pad // 2 + n) for pad, n in zip(missing, shape, strict=True))
    return (total / weights)[..., x, y, z]


def _starts(length: int, edge: int, overlap: float) -> list[int]:
    """Where windows begin along an axis."""
    count = math.ceil((length - edge) / (edge * (1 - overlap))) + 1
    return [round(number * (length - edge) / max(1, count - 1)) for number in range(count)]


def _importance(roi: Sequence[int]) -> Tensor:
    """Weights of a window's voxels, cut off at four sigmas; what is cut off has the least of the others."""
    weight = torch.ones(())
    for edge in roi:
        away = (torch.arange(edge) - edge // 2).abs()
        bell = torch.exp(-(away**2) / (2 * (_SIGMA * edge) ** 2)) * (away <= int(_REACH * _SIGMA * edge + 0.5))
        weight = weight[..., None] * bell
    return torch.where(weight > 0, weight, weight[weight > 0].min())
