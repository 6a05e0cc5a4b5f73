"""Organs in one piece: what was connected in every annotated scan is predicted connected.

Keeping the largest component where that suits the training data is nnU-Net's post-processing (Isensee et al., Nature
Methods 18, 2021). It decides by cross-validated DSC; we decide by the annotations alone, since an update must not need
predictions of organs that nobody annotated (our formulation).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .organs import OrganTable

_ENOUGH = 3  # annotated scans that show the organ
_WHOLE = 0.99  # share of an organ's voxels that makes one piece; the rest is noise of the annotation
_NEIGHBOURS = np.ones((3, 3, 3), bool)

LabelMap = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def connected_organs(channels: Iterable[LabelMap], organs: OrganTable) -> tuple[str, ...]:
    """Keys of the organs that are one piece wherever these maps of channels (x, y, z) show them, three times or more.

    A structure inside an organ may be many (tumours), and cuts its organ: neither is counted.
    """
    pieces: dict[int, list[bool]] = {}
    for target in channels:
        for channel, box in enumerate(ndimage.find_objects(target, len(organs)), start=1):
            if box is not None:
                pieces.setdefault(channel, []).append(_in_one_piece(target[box] == channel))
    nested = {channel for pair in organs.parent_channels().items() for channel in pair}
    return tuple(
        organ.key
        for channel, organ in enumerate(organs, start=1)
        if channel not in nested and len(pieces.get(channel, ())) >= _ENOUGH and all(pieces[channel])
    )


def _in_one_piece(organ: Mask) -> bool:
    return bool(_largest(organ).sum() >= _WHOLE * organ.sum())


def keep_largest_pieces(label_map: LabelMap, values: Iterable[int]) -> None:
    """Set to 0, in place, what is not of the largest piece of each of these values; voxels that touch are connected."""
    wanted = set(values)
    for value, box in enumerate(ndimage.find_objects(label_map, max(wanted)) if wanted else (), start=1):
        if box is not None and value in wanted:
            part = label_map[box]
            organ = part == value
            part[organ & ~_largest(organ)] = 0


def _largest(organ: Mask) -> Mask:
    pieces, count = ndimage.label(organ, _NEIGHBOURS)
    if count < 2:
        return organ
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
