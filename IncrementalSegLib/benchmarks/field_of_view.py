"""Scans cut so that one organ is in none of them: nothing in the step shows the model that organ (method §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..cases import Case
from ..errors import InputError
from ..organs import Organ, organ_named
from ..volumes import to_array, write_volume

_MARGIN = 6.0  # mm left out around the organ: annotations end a voxel or two off


def cases_without(cases: Sequence[Case], organ: str, folder: Path) -> list[Case]:
    """The cases, each cut to the largest box that leaves ``organ`` out; cut scans are kept in ``folder``.

    Raises:
        InputError: the organ is not annotated in a case, or reaches through all of it.
        StorageError: a scan cannot be written.
    """
    return [_cut(case, organ_named(organ), folder) for case in cases]


def _cut(case: Case, organ: Organ, folder: Path) -> Case:
    if organ.key not in case.annotated:
        raise InputError(f"'{organ.name}' is not annotated in case '{case.name}': nobody knows where to cut.")
    stem = f"{case.name}_{organ.key}_{case.fingerprint()[:16]}"
    ct_path, label_path = folder / f"{stem}_ct.nii.gz", folder / f"{stem}_seg.nii.gz"
    if not (ct_path.exists() and label_path.exists()):
        ct, label = case.read()
        assert label is not None
        margin = [int(np.ceil(_MARGIN / edge)) for edge in ct.GetSpacing()]
        box = largest_box_without(to_array(label) == case.labels.find(organ.key).label, margin)
        if box is None:
            raise InputError(f"'{organ.name}' reaches through all of case '{case.name}': leave another organ out.")
        write_volume(ct[box], ct_path)
        write_volume(label[box], label_path)
    return replace(case, ct=ct_path, label=label_path)


def largest_box_without(mask: np.ndarray, margin: Sequence[int]) -> tuple[slice, slice, slice] | None:
    """The largest box on one side of all True voxels and a ``margin`` (voxels per axis); None where nothing is left.

    Without a True voxel it is the whole volume.
    """
    whole = (slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2]))
    found = np.argwhere(mask)
    if not len(found):
        return whole
    sides = []
    for axis, edge in enumerate(mask.shape):
        before = slice(0, max(0, int(found[:, axis].min()) - margin[axis]))
        behind = slice(min(edge, int(found[:, axis].max()) + 1 + margin[axis]), edge)
        sides += [((side.stop - side.start) / edge, axis, side) for side in (before, behind)]
    share, axis, side = max(sides, key=lambda option: option[0])
    if not share:
        return None
    first, second, third = (side if number == axis else cut for number, cut in enumerate(whole))
    return first, second, third
