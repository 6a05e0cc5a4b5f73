"""Abdominal CT of made-up patients with exact label maps: for tests, the demo, and as mask generator of inversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..errors import InputError
from ..organs import OrganTable
from ..storage import write_json
from ..volumes import to_array, to_image, write_volume
from .anatomy import PHANTOM_ORGANS, draw_patient
from .canvas import Body

__all__ = ["PHANTOM_ORGANS", "PhantomConfig", "make_label_map", "make_phantom", "phantom_table", "write_phantom_cases"]

SOURCE = "synthetic phantom, made by IncrementalSegLib.phantom"


@dataclass(frozen=True)
class PhantomConfig:
    """The grid of a phantom and how its CT was taken.

    ``size`` in voxels and ``spacing`` in mm are (x, y, z); the grid's middle is the middle of the abdomen.
    ``noise_hu`` and ``blur_mm`` are the standard deviations of the noise (deep in the body) and of the blur.

    Raises:
        InputError: a size or spacing is not above 0, or noise or blur is negative.
    """

    size: tuple[int, int, int] = (96, 80, 80)
    spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)
    noise_hu: float = 12.0
    blur_mm: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a grid or an acquisition that cannot be."""
        if min(self.size) < 1 or min(self.spacing) <= 0 or self.noise_hu < 0 or self.blur_mm < 0:
            raise InputError(f"{self} cannot be made: give sizes and spacings above 0, noise and blur of 0 or more.")

    @property
    def axes(self) -> list[npt.NDArray[np.float64]]:
        """Coordinates of the voxel centres along x, y and z in mm, LPS."""
        pairs = zip(self.size, self.spacing, strict=True)
        return [np.float64(step) * (np.arange(count) - (count - 1) / 2) for count, step in pairs]


DEFAULT_CONFIG = PhantomConfig()


def phantom_table() -> OrganTable:
    """The organs of a phantom with their label values, 1, 2, 3 … in the order of `PHANTOM_ORGANS`."""
    return OrganTable.from_names(PHANTOM_ORGANS)


def _patient(generator: np.random.Generator, config: PhantomConfig) -> tuple[Body, np.random.Generator]:
    """The next patient of this generator, and the generator of the noise in the scan; draws one number."""
    anatomy, noise = np.random.default_rng(generator.integers(2**63)).spawn(2)
    return draw_patient(anatomy, config.axes), noise


def make_label_map(generator: np.random.Generator, config: PhantomConfig = DEFAULT_CONFIG) -> npt.NDArray[np.uint8]:
    """Organ labels (x, y, z) of the next patient: the label map that `make_phantom` gives at this generator's state."""
    return _patient(generator, config)[0].labels


def make_phantom(
    generator: np.random.Generator, config: PhantomConfig = DEFAULT_CONFIG
) -> tuple[sitk.Image, sitk.Image]:
    """CT (int16, HU) and label map (uint8, values of `phantom_table`) of the next patient of this generator, in LPS."""
    body, rng = _patient(generator, config)
    hu = _scanned(body.hu, rng, config)
    return _image(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), config), _image(body.labels, config)


def _scanned(hu: npt.NDArray[np.float32], rng: np.random.Generator, config: PhantomConfig) -> npt.NDArray[np.float32]:
    """What a scanner makes of tissue: blurred, with the band-limited noise of filtered back-projection."""
    from scipy import ndimage

    blurred = ndimage.gaussian_filter(hu, [config.blur_mm / step for step in config.spacing])
    white = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(white, 0.6) - 0.7 * ndimage.gaussian_filter(white, 1.5)
    inner = 0.4 + 0.6 * ndimage.gaussian_filter((hu > -500).astype(np.float32), [25 / step for step in config.spacing])
    return blurred + noise * inner * np.float32(config.noise_hu / max(float(noise.std()), 1e-6))


def _image(array: npt.NDArray[np.generic], config: PhantomConfig) -> sitk.Image:
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(config.spacing)
    image.SetOrigin([float(axis[0]) for axis in config.axes])
    return image


def write_phantom_cases(
    folder: Path,
    names: Sequence[str],
    seed: int,
    config: PhantomConfig = DEFAULT_CONFIG,
    organs: Sequence[str] | None = None,
) -> None:
    """Write a dataset folder: ``<name>_ct.nii.gz`` and ``<name>_seg.nii.gz`` per case, and ``dataset.json``.

    The patient follows from ``seed`` and the name's place in ``names``. ``organs`` are those annotated (all of them by
    default); the others are background in the label maps and not listed.

    Raises:
        InputError: the phantom has no such organ.
        StorageError: the folder cannot be written.
    """
    table = phantom_table()
    chosen = [table.find(name) for name in organs] if organs is not None else list(table)
    shown = [organ.label for organ in chosen]
    for index, name in enumerate(names):
        ct, label = make_phantom(np.random.default_rng([seed, index]), config)
        values = to_array(label)
        write_volume(ct, folder / f"{name}_ct.nii.gz")
        write_volume(to_image(np.where(np.isin(values, shown), values, 0), label), folder / f"{name}_seg.nii.gz")
    annotated = [organ.name for organ in chosen]
    labels = {"0": "background"} | {str(organ.label): organ.name for organ in chosen}
    cases = [{"case": name, "annotated": annotated} for name in names]
    write_json(folder / "dataset.json", {"labels": labels, "cases": cases, "source": SOURCE})
