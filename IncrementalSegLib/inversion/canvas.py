"""The image that is being synthesised: a fixed start plus corrections that cannot hold voxel-sized noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_BINOMIAL = (0.25, 0.5, 0.25)  # answers 0 at the Nyquist frequency: no checkerboard passes


class Canvas(nn.Module):
    """Volumes ``start + Σ_level upsampled(correction)`` inside the body (our formulation).

    The corrections live on grids of ``levels`` voxels per node, coarse ones first; the finest is smoothed with a
    binomial kernel. With ``levels=()`` the voxels themselves are optimised, as the published recipe does. Windows of
    one volume share its corrections, so that volumes larger than the memory come out without seams.

    Args:
        start: (N, 1, x, y, z) on the [-1, 1] scale.
        changeable: bool (N, 1, x, y, z), where corrections act; all voxels when left out.
        levels: voxels per node of every correction grid, for example (8, 4, 2, 1).
    """

    def __init__(self, start: Tensor, changeable: Tensor | None = None, levels: Sequence[int] = ()) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.start: Tensor
        self.changeable: Tensor | None
        self.register_buffer("start", start if levels else torch.zeros_like(start))
        self.register_buffer("changeable", changeable if levels and changeable is not None else None)
        shapes = [[-(-n // level) + 3 for n in start.shape[2:]] for level in self.levels]
        grids = [start.new_zeros(len(start), 1, *shape) for shape in shapes] or [start.clone()]
        self.grids = nn.ParameterList(nn.Parameter(grid) for grid in grids)

    def window(self, number: int, corner: Sequence[int], size: Sequence[int]) -> Tensor:
        """A window (1, 1, *size) of volume ``number``, differentiable in the corrections, clipped to [-1, 1]."""
        box = tuple(slice(a, a + n) for a, n in zip(corner, size, strict=True))
        here = (slice(number, number + 1), slice(None), *box)
        if not self.levels:
            return self.grids[0][here]
        change = torch.stack([self._correction(i, number, corner, size) for i in range(len(self.levels))]).sum(0)
        if self.changeable is not None:
            change = change * self.changeable[here]
        return (self.start[here] + change).clamp(-1, 1)

    def _correction(self, i: int, number: int, corner: Sequence[int], size: Sequence[int]) -> Tensor:
        level, grid = self.levels[i], self.grids[i][number : number + 1]
        first = [a // level for a in corner]
        last = [(a + n - 1) // level + 3 for a, n in zip(corner, size, strict=True)]
        nodes = grid[(slice(None), slice(None), *(slice(a, b) for a, b in zip(first, last, strict=True)))]
        if level == 1:
            return smoothed(nodes)
        fine = functional.interpolate(nodes, scale_factor=level, mode="trilinear", align_corners=False)
        offsets = [a - f * level + level for a, f in zip(corner, first, strict=True)]  # a node of margin on every side
        return fine[(slice(None), slice(None), *(slice(o, o + n) for o, n in zip(offsets, size, strict=True)))]

    def images(self) -> Tensor:
        """The whole volumes (N, 1, x, y, z) as they stand."""
        shape = self.start.shape[2:]
        with torch.no_grad():
            return torch.cat([self.window(number, (0, 0, 0), shape) for number in range(len(self.start))])


def smoothed(nodes: Tensor) -> Tensor:
    """Binomial smoothing of (1, 1, x, y, z), one voxel smaller on every side."""
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 3
        nodes = functional.conv3d(nodes, nodes.new_tensor(_BINOMIAL).view(shape))
    return nodes


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference between neighbours along x, y and z of (B, 1, x, y, z); our formulation."""
    steps = (image.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
    return torch.stack(list(steps)).sum()
