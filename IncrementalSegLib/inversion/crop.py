"""A box around an organ, cut from an anatomy and whatever lies on the same grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .anatomy import AIR, Anatomy


@dataclass(frozen=True)
class Crop:
    """``shape`` voxels from ``starts`` on; a volume that is smaller lies in the middle of it."""

    starts: tuple[int, ...]
    shape: tuple[int, ...]

    def array(self, whole: npt.NDArray[np.generic], outside: float) -> npt.NDArray[np.generic]:
        """The box of a volume (x, y, z), ``outside`` beyond its borders."""
        box = tuple(slice(max(a, 0), a + n) for a, n in zip(self.starts, self.shape, strict=True))
        each = zip(self.starts, self.shape, whole.shape, strict=True)
        return np.pad(whole[box], [(max(-a, 0), max(a + n - size, 0)) for a, n, size in each], constant_values=outside)

    def anatomy(self, whole: Anatomy) -> Anatomy:
        """The box of an anatomy, air beyond its borders."""
        organs, tissue = (self.array(part, AIR).astype(np.uint8) for part in (whole.organs, whole.tissue))
        return Anatomy(organs, tissue)


def draw_crop(
    anatomy: Anatomy, shape: Sequence[int], generator: np.random.Generator, channel: int | None = None
) -> Crop:
    """A box with a voxel of an organ near its middle: of ``channel`` where it is there, else of any organ, evenly."""
    size = anatomy.organs.shape
    centre = np.array(size) / 2
    if present := anatomy.channels:
        chosen = channel if channel in present else present[generator.integers(len(present))]
        voxels = np.argwhere(anatomy.organs == chosen)
        centre = voxels[generator.integers(len(voxels))] + generator.uniform(-0.25, 0.25, 3) * np.array(shape)
    starts = (
        int(np.clip(round(c - n / 2), 0, full - n)) if full > n else (full - n) // 2
        for c, n, full in zip(centre, shape, size, strict=True)
    )
    return Crop(tuple(starts), tuple(shape))
