"""CT and label map I/O and geometry checks.

Volumes are SimpleITK images outside and numpy arrays indexed ``(x, y, z)`` in LPS orientation inside (x grows to the
patient's left, y to the back, z to the head).
"""

from __future__ import annotations

import gzip
import itertools
import math
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .storage import write_atomically

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_SAME_PLACE = 0.1  # of a voxel: how far the corners of two grids may be apart that count as one
_LITTLE_ENDIAN = (b"\x5c\x01", b"\x1c\x02")  # how the header of a NIfTI-1 or NIfTI-2 file begins: its size
_PADDING_HU = -1500.0  # what lies below is no tissue but filling outside of the field of view
_LARGEST_HU = 100_000.0


def read_volume(path: Path | str) -> sitk.Image:
    """A 3D scalar image from NIfTI, NRRD, MHA or a folder that holds one DICOM series.

    Raises:
        InputError: nothing readable there, damaged, several series, missing slices, 2D, 4D, single slice, colour.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name.")
    try:
        image = _read_dicom(path) if path.is_dir() else sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path} cannot be read as an image: give a NIfTI, NRRD or MHA file or a DICOM series folder that opens "
            "elsewhere."
        ) from error
    if path.name.endswith((".nii", ".nii.gz")) and image.HasMetaDataKey("vox_offset"):
        _refuse_spoiled_nifti(image, path)
    return _checked(image, path)


def _refuse_spoiled_nifti(image: sitk.Image, path: Path) -> None:
    """ITK reads a NIfTI file that ends too early as if it were whole, and NaN or infinity in it as 0."""
    extents = [int(image.GetMetaData(f"dim[{i}]")) for i in range(1, 1 + int(image.GetMetaData("dim[0]")))]
    missing = math.prod(extents) * int(image.GetMetaData("bitpix")) // 8
    kind, finite = {"16": "f4", "64": "f8"}.get(image.GetMetaData("datatype")), True
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(int(float(image.GetMetaData("vox_offset"))))
            order = "<" if header[:2] in _LITTLE_ENDIAN else ">"
            while missing > 0 and (part := file.read(min(missing, 1 << 20))):
                missing -= len(part)
                if kind:
                    finite = finite and bool(np.isfinite(np.frombuffer(part, order + kind)).all())
    except (OSError, EOFError, zlib.error, ValueError):
        missing = 1
    if missing > 0:
        raise InputError(f"{path} is damaged or cut short: copy or download it again.")
    if not finite:
        raise InputError(f"{path} contains NaN or infinite values: export it again from its DICOM series.")


def _read_dicom(folder: Path) -> sitk.Image:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = "no DICOM series" if not series else f"{len(series)} DICOM series"
        raise InputError(f"{folder} holds {found}: give a folder with exactly one CT series.")
    reader = sitk.ImageSeriesReader()
    files = reader.GetGDCMSeriesFileNames(str(folder), series[0])
    reader.SetFileNames(files)
    image = reader.Execute()
    if image.GetDimension() == 3 and min(image.GetSize()) > 1:
        end = image.TransformIndexToPhysicalPoint((0, 0, image.GetSize()[2] - 1))
        tilt = math.dist(end, sitk.ReadImage(files[-1]).GetOrigin())
        if image.HasMetaDataKey("ITK_non_uniform_sampling_deviation") or tilt > 0.5 * min(image.GetSpacing()):
            raise InputError(
                f"{folder} holds slices that do not make one even stack (some are missing or doubled, several phases, "
                "or a tilted gantry): export one complete phase, resampled to an upright volume."
            )
    return image


def _checked(image: sitk.Image, path: Path) -> sitk.Image:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        layers = image.GetNumberOfComponentsPerPixel() != 1
        kind = "an image of several values per voxel" if layers else f"a {image.GetDimension()}D image"
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
    lowest, high = float(values.min()), float(values.max())
    low = float(values.min(where=values > _PADDING_HU, initial=values.max()))
    if low > -50 or high < 50 or max(-lowest, high) > _LARGEST_HU:
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
        InputError: the name ends in no format that holds a volume in one file.
        StorageError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    require_volume_name(path)
    write_atomically(path, lambda partial: _write_whole(image, partial))


def require_volume_name(path: Path) -> None:
    """Refuse the name of a file that cannot hold a volume.

    Raises:
        InputError: the name ends in no format that holds a volume in one file.
    """
    if not path.name.endswith(EXTENSIONS) or path.suffix == ".mhd":
        raise InputError(f"{path}: choose a name that ends in .nii.gz, .nii, .nrrd or .mha.")


def _write_whole(image: sitk.Image, path: Path) -> None:
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        written = sitk.ReadImage(str(path))  # ITK does not always report a full disk
    except RuntimeError as error:
        raise OSError("the writing failed; is the disk full?") from error
    if not np.array_equal(sitk.GetArrayViewFromImage(written), sitk.GetArrayViewFromImage(image)):
        raise OSError("it does not read back as it was; is the disk full?")


def to_array(image: sitk.Image) -> np.ndarray:
    """Voxels indexed (x, y, z), a contiguous copy."""
    return np.array(sitk.GetArrayViewFromImage(image).transpose(2, 1, 0), order="C")


def to_image(array: np.ndarray, like: sitk.Image) -> sitk.Image:
    """An (x, y, z) array as an image with the geometry of ``like``."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.CopyInformation(like)
    return image


def same_geometry(a: sitk.Image, b: sitk.Image) -> bool:
    """Whether the sizes are equal and origin, spacing and direction put no corner 0.1 voxel or more elsewhere."""
    if a.GetSize() != b.GetSize():
        return False
    return bool(np.abs(_corners(a, b) - _corners(b, b)).max() < _SAME_PLACE)


def conform_label_map(label: sitk.Image, ct: sitk.Image, label_name: str, ct_name: str) -> sitk.Image:
    """The label map on the CT's grid: as it is, or resampled (nearest) when both grids share the frame.

    Two grids share the frame when they cover the same box with other axes or spacings (within the coarser voxel), or
    when the label map is an aligned crop that does not begin at the CT's first voxel: grids that agree in their first
    voxel and spacing but not in their size are two patients' rather than one's.

    Raises:
        InputError: the grids do not share the frame, so the label map may be another patient's.
    """
    if same_geometry(label, ct):
        same = sitk.Image(label)
        same.CopyInformation(ct)
        return same
    upright = oriented(label), oriented(ct)
    if not (_same_extent(*upright) or _aligned_crop(*upright)):
        raise InputError(
            f"{label_name} does not lie on the grid of {ct_name} ({_grid(label)} against {_grid(ct)}): it may belong "
            "to another patient; export the segmentation with this CT as its reference volume."
        )
    return sitk.Resample(label, ct, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def _grid(image: sitk.Image) -> str:
    size = "×".join(map(str, image.GetSize()))
    spacing = "×".join(f"{s:.3g}" for s in image.GetSpacing())
    return f"{size} voxels of {spacing} mm at {tuple(round(o, 1) for o in image.GetOrigin())}"


def _corners(image: sitk.Image, seen_from: sitk.Image) -> np.ndarray:
    """The 8 outer corners of ``image`` as continuous voxel indices of ``seen_from``."""
    outer = itertools.product(*((-0.5, n - 0.5) for n in image.GetSize()))
    points = (image.TransformContinuousIndexToPhysicalPoint(corner) for corner in outer)
    return np.array([seen_from.TransformPhysicalPointToContinuousIndex(point) for point in points])


def _same_extent(label: sitk.Image, ct: sitk.Image) -> bool:
    spacings = np.array([label.GetSpacing(), ct.GetSpacing()])
    alike = np.isclose(spacings[0], spacings[1], rtol=1e-3, atol=0)
    if (alike & (np.array(label.GetSize()) != ct.GetSize())).any():
        return False
    apart_mm = np.abs(_corners(label, ct) - _corners(ct, ct)) * spacings[1]
    return bool((apart_mm <= spacings.max(0)).all())


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
