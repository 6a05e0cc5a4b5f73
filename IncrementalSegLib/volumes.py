"""CT and label map I/O, geometry checks, resampling to the model's grid and back.

Volumes are SimpleITK images outside and numpy arrays indexed ``(x, y, z)`` in LPS orientation inside (x grows to the
patient's left, y to the back, z to the head).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError, StorageError

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_GEOMETRY_TOLERANCE = 1e-3  # of a voxel for origins, absolute for direction cosines
_LARGEST_HU = 100_000.0


@dataclass(frozen=True)
class Preprocessing:
    """What a model does to a CT before its network: orientation LPS, ``spacing`` in mm (x, y, z), HU ``window`` to [-1, 1]."""

    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0)
    window: tuple[float, float] = (-125.0, 275.0)

    def normalise(self, hu: np.ndarray) -> np.ndarray:
        """HU of any shape, clipped to the window and scaled to [-1, 1], as float32."""
        low, high = self.window
        return (np.clip(hu.astype(np.float32), low, high) - low) * np.float32(2 / (high - low)) - 1


def read_volume(path: Path | str) -> sitk.Image:
    """A 3D scalar image from NIfTI, NRRD, MHA or a folder that holds one DICOM series.

    Raises:
        InputError: nothing readable there, several series, 2D, 4D, single slice, colour, or NaN.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name.")
    try:
        image = _read_dicom(path) if path.is_dir() else sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path} cannot be read as an image: give a NIfTI, NRRD or MHA file or a DICOM series folder that opens elsewhere."
        ) from error
    return _checked(image, path)


def _read_dicom(folder: Path) -> sitk.Image:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = "no DICOM series" if not series else f"{len(series)} DICOM series"
        raise InputError(f"{folder} holds {found}: give a folder with exactly one CT series.")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series[0]))
    return reader.Execute()


def _checked(image: sitk.Image, path: Path) -> sitk.Image:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        kind = "a colour image" if image.GetNumberOfComponentsPerPixel() != 1 else f"a {image.GetDimension()}D image"
        raise InputError(f"{path} is {kind}: export one 3D volume (for a time series, one phase) and use that.")
    if min(image.GetSize()) < 2:
        raise InputError(f"{path} has a single slice (size {image.GetSize()}): a volume of several slices is needed.")
    return image


def read_ct(path: Path | str) -> sitk.Image:
    """A CT volume in HU.

    Raises:
        InputError: as `read_volume`; also when values are not finite or cannot be HU.
    """
    image = read_volume(path)
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        raise InputError(f"{path} contains NaN or infinite values: export the CT again from its DICOM series.")
    low, high = float(values.min()), float(values.max())
    if low > -50 or high < 50 or max(-low, high) > _LARGEST_HU:
        raise InputError(
            f"{path} is not in Hounsfield units (values {low:g} to {high:g}; a CT has air or fat below -50 and tissue "
            "above 50): apply the rescale slope and intercept, or export it from DICOM again."
        )
    return image


def read_label_map(path: Path | str) -> sitk.Image:
    """A label map of whole, non-negative values, as uint16.

    Raises:
        InputError: as `read_volume`; also for values that are no labels.
    """
    image = read_volume(path)
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535 or (values != np.round(values)).any():
        raise InputError(f"{path} is not a label map: its values must be whole numbers from 0 to 65535.")
    return sitk.Cast(image, sitk.sitkUInt16)


def write_volume(image: sitk.Image, path: Path | str) -> None:
    """Write ``image`` so that ``path`` is either the whole file or untouched.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    suffix = next((e for e in EXTENSIONS if path.name.endswith(e)), None)
    if suffix is None or suffix == ".mhd":
        raise InputError(f"{path}: choose a name that ends in .nii.gz, .nii, .nrrd or .mha.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=suffix, prefix=".partial_", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror}): choose another folder or free space."
        ) from error
    partial = Path(name)
    try:
        sitk.WriteImage(image, name, useCompression=True)
        if not np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(name)), sitk.GetArrayViewFromImage(image)):
            raise OSError(28, "what was written does not read back")  # ITK does not report a full disk
        os.chmod(name, 0o644)
        os.replace(name, path)
    except (RuntimeError, OSError) as error:
        raise StorageError(
            f"{path} could not be written completely (is the disk full?): free space and try again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def to_array(image: sitk.Image) -> np.ndarray:
    """Voxels indexed (x, y, z), a contiguous copy."""
    return np.array(sitk.GetArrayViewFromImage(image).transpose(2, 1, 0), order="C")


def to_image(array: np.ndarray, like: sitk.Image) -> sitk.Image:
    """An (x, y, z) array as an image with the geometry of ``like``."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.CopyInformation(like)
    return image


def same_geometry(a: sitk.Image, b: sitk.Image) -> bool:
    """Whether size, spacing, origin and direction agree (0.001 voxel, 0.001 in direction cosines)."""
    if a.GetSize() != b.GetSize():
        return False
    voxel = np.asarray(b.GetSpacing())
    offset = np.abs(np.subtract(a.GetOrigin(), b.GetOrigin())) / voxel.min()
    stretch = np.abs(np.subtract(a.GetSpacing(), b.GetSpacing())) * np.asarray(a.GetSize()) / voxel
    turn = np.abs(np.subtract(a.GetDirection(), b.GetDirection()))
    return bool(max(offset.max(), stretch.max(), turn.max()) <= _GEOMETRY_TOLERANCE * 10)


def conform_label_map(label: sitk.Image, ct: sitk.Image, label_name: str, ct_name: str) -> sitk.Image:
    """The label map on the CT's grid: as it is, or resampled (nearest) when both grids share the frame.

    Two grids share the frame when they cover the same box (within a voxel), or when the label map is an aligned crop.

    Raises:
        InputError: the grids do not share the frame, so the label map may be another patient's.
    """
    if same_geometry(label, ct):
        label.CopyInformation(ct)
        return label
    if not (_same_extent(label, ct) or _aligned_crop(label, ct)):
        raise InputError(
            f"{label_name} does not lie on the grid of {ct_name} ({_grid(label)} against {_grid(ct)}): it may belong to "
            "another patient; export the segmentation with this CT as its reference volume."
        )
    return sitk.Resample(label, ct, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def _grid(image: sitk.Image) -> str:
    size = "×".join(map(str, image.GetSize()))
    spacing = "×".join(f"{s:.3g}" for s in image.GetSpacing())
    return f"{size} voxels of {spacing} mm at {tuple(round(o, 1) for o in image.GetOrigin())}"


def _box(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    size = np.asarray(image.GetSize())
    corners = np.array([[-0.5 if i >> axis & 1 else size[axis] - 0.5 for axis in range(3)] for i in range(8)])
    points = np.array([image.TransformContinuousIndexToPhysicalPoint(c.tolist()) for c in corners])
    return points.min(0), points.max(0)


def _same_extent(a: sitk.Image, b: sitk.Image) -> bool:
    tolerance = max(max(a.GetSpacing()), max(b.GetSpacing()))
    return all(np.abs(x - y).max() <= tolerance for x, y in zip(_box(a), _box(b), strict=True))


def _aligned_crop(label: sitk.Image, ct: sitk.Image) -> bool:
    if not np.allclose(label.GetDirection(), ct.GetDirection(), atol=1e-3):
        return False
    if not np.allclose(label.GetSpacing(), ct.GetSpacing(), rtol=1e-3):
        return False
    first = np.array(ct.TransformPhysicalPointToContinuousIndex(label.GetOrigin()))
    inside = (first > -0.05).all() and (first + label.GetSize() <= np.add(ct.GetSize(), 0.05)).all()
    return bool(inside and np.abs(first - first.round()).max() < 0.05 and first.round().any())


def oriented(image: sitk.Image) -> sitk.Image:
    """The image with its axes flipped and swapped to LPS, values untouched."""
    return sitk.DICOMOrient(image, "LPS")


def model_grid(ct: sitk.Image, spacing: tuple[float, float, float]) -> sitk.Image:
    """An empty image on the model's grid: LPS, same first voxel centre, ``spacing`` mm, same extent to half a voxel."""
    lps = oriented(ct)
    extent = [(n - 1) * s for n, s in zip(lps.GetSize(), lps.GetSpacing(), strict=True)]
    grid = sitk.Image([round(e / s) + 1 for e, s in zip(extent, spacing, strict=True)], sitk.sitkUInt8)
    grid.SetSpacing(spacing)
    grid.SetOrigin(lps.GetOrigin())
    grid.SetDirection(lps.GetDirection())
    return grid


def resample(image: sitk.Image, grid: sitk.Image, *, label: bool = False, outside: float = 0.0) -> sitk.Image:
    """``image`` on ``grid``, linear (float32) or nearest for label maps; up to one voxel beyond its edge it is extended."""
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(grid)
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if label else sitk.sitkLinear)
    resampler.SetUseNearestNeighborExtrapolator(True)
    resampler.SetDefaultPixelValue(outside)
    resampler.SetOutputPixelType(image.GetPixelID() if label else sitk.sitkFloat32)
    return resampler.Execute(image)
