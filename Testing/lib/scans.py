"""Small scans for the tests: images in space, and DICOM series."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SIZE = (12, 10, 8)
SPACING = (2.0, 2.5, 5.0)
# Directions of the three axes as columns, row by row: upright ones with axes flipped and permuted, and a tilted head.
RAS = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
PIR = (0, 0, -1, 1, 0, 0, 0, -1, 0)
OBLIQUE = tuple(float(cosine) for cosine in sitk.Euler3DTransform((0, 0, 0), 0.2, -0.1, 0.3).GetMatrix())
DIRECTIONS = {"LPS": (1, 0, 0, 0, 1, 0, 0, 0, 1), "RAS": RAS, "PIR": PIR, "oblique": OBLIQUE}


def placed(
    array: np.ndarray,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = (-20.0, 7.5, 100.0),
    direction: Sequence[float] = DIRECTIONS["LPS"],
) -> sitk.Image:
    """An (x, y, z) array as an image in space."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def ct(size: Sequence[int] = SIZE, **place: Sequence[float]) -> sitk.Image:
    hu = np.random.default_rng(0).integers(-1000, 1500, size).astype(np.int16)
    return placed(hu, **place)


def label_map(size: Sequence[int] = SIZE, **place: Sequence[float]) -> sitk.Image:
    return placed(np.random.default_rng(1).integers(0, 4, size).astype(np.uint8), **place)


def write_dicom(
    folder: Path,
    hu: np.ndarray,
    series: str = "1.2.826.0.1.3680043.2.1125.1",
    *,
    step: Sequence[float] = (0.0, 0.0, 2.5),
    leave_out: Sequence[int] = (),
    phases: int = 1,
) -> None:
    """A CT series, a file per axial slice, stored with offset 1024 and file names against the order of the slices."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for phase, index in itertools.product(range(phases), range(hu.shape[2])):
        if index in leave_out:
            continue
        image = sitk.GetImageFromArray(np.ascontiguousarray(hu[:, :, index].T))
        image.SetSpacing((0.8, 0.9))
        position = np.add((-10.0, -20.0, 30.0), np.multiply(step, index))
        tags = {
            "0008|0018": f"{series}.{phase}.{index}",
            "0008|0060": "CT",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.99",
            "0020|000e": series,
            "0020|0013": str(index + 1),
            "0020|0032": "\\".join(f"{p:g}" for p in position),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}_{phase}_{99 - index}.dcm"))
        writer.Execute(image)
