"""What is where in a body, without intensities: organ channels, and the tissue that surrounds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError

AIR, FAT, SOFT, BONE, GAS = range(5)
PIECE = 0.2  # share of an organ's largest piece from which another piece belongs to it (two kidneys in one label)
Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]

_FLAT = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)[:, :, None]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What is where, without intensities.

    ``organs`` (x, y, z) holds channels 0..K, 0 for none of them; ``tissue`` (x, y, z) what the body is made of: 0 air
    outside, 1 fat, 2 soft tissue, 3 bone, 4 gas inside.

    Raises:
        InputError: the two do not belong together.
    """

    organs: Labels
    tissue: Labels

    def __post_init__(self) -> None:
        """Refuse arrays that cannot be one anatomy."""
        same = self.organs.shape == self.tissue.shape and self.organs.ndim == 3 and self.organs.size > 0
        if not same or self.organs.dtype != np.uint8 or self.tissue.dtype != np.uint8:
            raise InputError(
                f"Organs {self.organs.shape} {self.organs.dtype} and tissue {self.tissue.shape} {self.tissue.dtype} "
                "are no anatomy: give two uint8 volumes of the same shape."
            )
        if self.tissue.max() > GAS or self.organs[self.tissue == AIR].any():
            raise InputError("An anatomy has organs outside of the body or an unknown tissue: check the label map.")

    @classmethod
    def of(
        cls, image_hu: npt.NDArray[np.generic], organs: npt.NDArray[np.integer], spacing: Spacing = (3.0, 3.0, 3.0)
    ) -> Anatomy:
        """The anatomy of a CT (HU, also when clipped to [-125, 275]) with its organ channels, both (x, y, z).

        ``spacing`` (mm) tells how thick the table is, which is not body. What is brighter than 200 HU is bone, be it
        oral contrast in an unlabelled bowel; inside organs there is only soft tissue and gas. Small bubbles are fat.

        Raises:
            InputError: shapes differ, a channel is above 255, or there is no body.
        """
        hu = np.asarray(image_hu, np.float32)
        if hu.shape != organs.shape or hu.ndim != 3 or organs.min() < 0 or organs.max() > 255:
            raise InputError(
                f"A CT of {hu.shape} voxels does not fit organ channels of {organs.shape} voxels with values up to "
                f"{organs.max(initial=0)}: give both on one grid and channels from 0 to 255."
            )
        channels = np.asarray(organs, np.uint8)
        body = _body(hu > -124, spacing) | (channels > 0)
        tissue = np.where(hu < -20, FAT, SOFT).astype(np.uint8)
        tissue[_closed(hu > 200, 6, spacing) & (hu > 50)] = BONE
        tissue[channels > 0] = SOFT
        tissue[_opened(hu <= -124, 3, spacing)] = GAS
        tissue[~body] = AIR
        return cls(channels, tissue)

    @property
    def channels(self) -> list[int]:
        """The organs that are there, as channels."""
        return [int(channel) for channel in np.flatnonzero(np.bincount(self.organs.ravel())) if channel]


def _closed(mask: Mask, mm: float, spacing: Spacing) -> Mask:
    """Slice by slice with gaps narrower than twice ``mm`` filled."""
    voxels = round(2 * mm / (spacing[0] + spacing[1]))
    if not voxels:
        return mask
    padded = np.pad(mask, [(voxels, voxels), (voxels, voxels), (0, 0)])
    return ndimage.binary_closing(padded, _FLAT, voxels)[voxels:-voxels, voxels:-voxels]


def _opened(mask: Mask, mm: float, spacing: Spacing) -> Mask:
    """Without what is thinner than twice ``mm``; beyond the border it goes on. Thick slices are seen one by one."""
    flat = (spacing[0] + spacing[1]) / 2
    voxels = round(mm / flat)
    if not voxels:
        return mask
    cross = _FLAT if spacing[2] > 2 * flat else ndimage.generate_binary_structure(3, 1)
    opened = ndimage.binary_opening(np.pad(mask, voxels, mode="edge"), cross, voxels)
    return opened[(slice(voxels, -voxels),) * 3]


def _body(dense: Mask, spacing: Spacing) -> Mask:
    """The largest piece of what is denser than air, lungs and bowel filled slice by slice, without the thin table.

    A lung that the edge of the scan cuts counts as outside.
    """
    trunk = ndimage.binary_fill_holes(_closed(largest_pieces(dense), 3, spacing), _FLAT)
    trunk = largest_pieces(_opened(trunk, 6, spacing))
    if not trunk.any():
        raise InputError("The CT shows no body: nothing in it is denser than air. Check that its values are in HU.")
    return trunk


def largest_pieces(mask: Mask, share: float = 1.0) -> Mask:
    """The largest connected piece, and all others with at least ``share`` of its size."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return mask & (sizes >= max(share * sizes.max(), 1))[pieces]


def cutoff(shares: npt.NDArray[np.floating], voxels: float) -> float:
    """The share of a voxel above which a structure takes it so that it fills this many; 0.5 unless it is thin."""
    taken, count = shares[shares > 0.1], round(voxels)
    return min(0.5, float(np.partition(taken, -count)[-count])) if 0 < count <= taken.size else 0.1


def without(anatomy: Anatomy, channels: Sequence[int]) -> Anatomy:
    """The anatomy with these organs' places given to fat or soft tissue, whichever prevails around them."""
    gone = np.isin(anatomy.organs, channels)
    organs = np.where(gone, np.uint8(0), anatomy.organs)
    return Anatomy(organs, filled(anatomy.tissue, gone, organs > 0))


def filled(tissue: Labels, where: Mask, organs: Mask) -> Labels:
    """Tissue (x, y, z) whose pieces of ``where`` became fat or soft, as two voxels around each, outside ``organs``."""
    tissue = tissue.copy()
    pieces, _ = ndimage.label(where)
    free = ~where & ~organs
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        room = tuple(slice(max(part.start - 2, 0), part.stop + 2) for part in box)
        piece = pieces[room] == number
        around = tissue[room][ndimage.binary_dilation(piece, iterations=2) & free[room]]
        tissue[room][piece] = FAT if (around == FAT).sum() > (around == SOFT).sum() else SOFT
    return tissue
