"""Synthetic volumes on disk: images and label maps marked as synthetic, contact sheet, quality table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..figures import Sheet, plot_contact_sheet
from ..losses.unbiased import IGNORE
from ..models.package import Model
from ..storage import write_json
from ..volumes import write_volume
from .quality import Synthetic

MARK = "SYNTHETIC: made from a model by IncrementalSeg, no patient"
_ON_SHEET = 12


def write_synthetic(samples: Sequence[Synthetic], model: Model, quality: dict[str, Any], folder: Path) -> None:
    """Write ``synthetic_001_ct.nii.gz`` (HU), ``…_seg`` (what the model sees), ``…_requested``, ``dataset.json``,
    ``quality.json`` and ``contact_sheet.png`` into ``folder``.

    Organs that did not come out are left out of ``…_seg``. Every image says in its header that it is synthetic.

    Raises:
        StorageError: the folder cannot be written.
    """
    for number, sample in enumerate(samples, start=1):
        name, sheet = f"synthetic_{number:03}", _sheet(sample, model, number)
        write_volume(_marked(sheet.image, model.preprocessing.spacing), folder / f"{name}_ct.nii.gz")
        for part, values in {"seg": sheet.predicted, "requested": sheet.requested}.items():
            write_volume(_marked(values, model.preprocessing.spacing), folder / f"{name}_{part}.nii.gz")
    names = {"0": "background"} | {str(organ.label): organ.name for organ in model.organs}
    write_json(folder / "dataset.json", {"labels": names, "source": MARK})
    write_json(folder / "quality.json", quality)
    plot_synthetic(samples, model, folder / "contact_sheet.png")


def plot_synthetic(samples: Sequence[Synthetic], model: Model, path: Path) -> None:
    """The contact sheet of the first samples in which an organ was asked for.

    Raises:
        InputError: there is none, or matplotlib is missing.  StorageError: the file cannot be written.
    """
    asked = [(number, sample) for number, sample in enumerate(samples, start=1) if sample.requested.any()]
    sheets = [_sheet(sample, model, number) for number, sample in asked[:_ON_SHEET]]
    plot_contact_sheet(sheets, model.organs, model.preprocessing.spacing, path, model.preprocessing.window)


def _sheet(sample: Synthetic, model: Model, number: int) -> Sheet:
    """A sample in HU with label values; organs that did not come out are left out of what the model sees."""
    target = sample.target(len(model.organs))
    maps = sample.requested, np.where(target == IGNORE, 0, target)
    requested, seen = (_label_map(channels, model) for channels in maps)
    return Sheet(f"{number}", in_hu(sample.image, model.preprocessing.window), requested, seen)


def in_hu(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """An image on the [-1, 1] scale as int16 HU."""
    low, high = window
    return np.rint((image + 1) / 2 * (high - low) + low).astype(np.int16)


def _label_map(channels: np.ndarray, model: Model) -> np.ndarray:
    return np.array([0, *(organ.label for organ in model.organs)], np.uint16)[channels]


def _marked(array: np.ndarray, spacing: tuple[float, float, float]) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetMetaData("ITK_FileNotes", MARK)  # the header's "descrip" in NIfTI
    return image
