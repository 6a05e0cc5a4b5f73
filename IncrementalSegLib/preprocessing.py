"""What a model does to a CT before its network: its grid, its HU window; and the way back to the CT's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .volumes import oriented

_MARGIN = 10  # voxels
_THICK = 3.0  # a slice that much thicker than its voxels are wide is interpolated within, not between slices (nnU-Net)


@dataclass(frozen=True)
class Preprocessing:
    """What a model does to a CT before its network: LPS, ``spacing`` in mm (x, y, z), HU ``window`` to [-1, 1].

    The other settings are for models of other tools. Without ``clip`` values beyond the window stay beyond [-1, 1].
    The grid begins at the first voxel of the scan when this is turned to ``orientation``; an axis whose spacing differs
    from the model's by no more than the share ``tolerance`` keeps it (Auto3DSeg). With ``spline`` the grid fills the
    scan from edge to edge and clipped values are interpolated by cubic splines (nnU-Net), else linearly. With
    ``whole_scan`` the darkest and brightest voxel of every scan are brought to the window's ends, and HU means that.
    With ``foreground`` the scan ends 10 voxels beyond what is denser than water (Auto3DSeg).
    """

    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0)
    window: tuple[float, float] = (-125.0, 275.0)
    clip: bool = True
    orientation: str = "LPS"
    tolerance: float = 0.0
    spline: bool = False
    whole_scan: bool = False
    foreground: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: a spacing is not above 0 or the window is empty.
        """
        if not min(self.spacing) > 0 or not self.window[0] < self.window[1]:
            raise InputError(
                f"Spacing {self.spacing} mm with HU window {self.window} cannot be: give spacings above 0 and a window "
                "from low to high."
            )

    def normalise(self, hu: np.ndarray) -> np.ndarray:
        """HU of any shape, clipped to the window and scaled to [-1, 1], as float32."""
        low, high = self.window
        values = hu.astype(np.float32)
        return ((np.clip(values, low, high) if self.clip else values) - low) * np.float32(2 / (high - low)) - 1

    def stored(self, hu: np.ndarray) -> np.ndarray:
        """HU as int16, without what the network does not see."""
        low, high = self.window if self.clip else (np.iinfo(np.int16).min, np.iinfo(np.int16).max)
        return np.clip(np.rint(hu), low, high).astype(np.int16)


def on_model_grid(ct: sitk.Image, preprocessing: Preprocessing) -> sitk.Image:
    """The CT, HU as float32, on the model's grid."""
    if preprocessing.foreground:
        ct = foreground(ct)
    grid = model_grid(ct, preprocessing)
    low, high = preprocessing.window
    if preprocessing.whole_scan:
        return sitk.RescaleIntensity(resample(ct, grid), low, high)
    if not preprocessing.spline:
        return resample(ct, grid)
    clipped = sitk.Clamp(oriented(ct), sitk.sitkFloat32, low, high)
    thick = _thick_axis(clipped.GetSpacing()) or _thick_axis(grid.GetSpacing())
    in_slices = _with_axis_of(grid, clipped, "xyz".index(thick)) if thick else grid
    smooth = sitk.Clamp(_resampled(clipped, in_slices, sitk.sitkBSpline), sitk.sitkFloat32, low, high)
    return _resampled(smooth, grid, sitk.sitkNearestNeighbor) if thick else smooth


def foreground(ct: sitk.Image) -> sitk.Image:
    """The box around all that is denser than water, and a margin; the whole scan where nothing is."""
    z, y, x = box_around(sitk.GetArrayViewFromImage(ct) > 0, _MARGIN)
    box = (x, y, z)
    return sitk.RegionOfInterest(ct, [axis.stop - axis.start for axis in box], [axis.start for axis in box])


def box_around(mask: np.ndarray, margin: int) -> tuple[slice, slice, slice]:
    """The box around a mask (3 axes) and a margin in voxels, within the image; the whole image where it is empty."""
    box = []
    for axis, n in enumerate(mask.shape):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(
            slice(max(0, int(used[0]) - margin), min(n, int(used[-1]) + 1 + margin)) if used.size else slice(0, n)
        )
    return box[0], box[1], box[2]


def _thick_axis(spacing: tuple[float, ...]) -> str:
    """The one axis along which voxels are more than three times as long as along the shortest; else none."""
    axes = [axis for axis, mm in zip("xyz", spacing, strict=True) if mm == max(spacing)]
    return axes[0] if len(axes) == 1 and max(spacing) > _THICK * min(spacing) else ""


def _with_axis_of(grid: sitk.Image, other: sitk.Image, axis: int) -> sitk.Image:
    """A grid (LPS) that is that of another image along one axis."""
    size, spacing = list(grid.GetSize()), list(grid.GetSpacing())
    index = [0.0, 0.0, 0.0]
    index[axis] = grid.TransformPhysicalPointToContinuousIndex(other.GetOrigin())[axis]
    size[axis], spacing[axis] = other.GetSize()[axis], other.GetSpacing()[axis]
    mixed = sitk.Image(size, sitk.sitkUInt8)
    mixed.SetSpacing(spacing)
    mixed.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint(index))
    mixed.SetDirection(grid.GetDirection())
    return mixed


def model_grid(ct: sitk.Image, preprocessing: Preprocessing) -> sitk.Image:
    """An empty image on the model's grid: LPS, the model's spacing in mm, the CT's extent to half a voxel.

    It has the CT's first voxel centre, or both its outer edges and the spacing that this takes.
    """
    turned = sitk.DICOMOrient(ct, preprocessing.orientation)
    axes = ["LPSRAI".index(letter) % 3 for letter in preprocessing.orientation]
    size, own = np.array(turned.GetSize()), np.array(turned.GetSpacing())
    spacing = np.array([preprocessing.spacing[axis] for axis in axes])
    spacing = np.where(abs(own / spacing - 1) <= preprocessing.tolerance, own, spacing)
    first = np.zeros(3)
    if preprocessing.spline:
        count = np.maximum(1, np.rint(size * own / spacing).astype(int))
        spacing = size * own / count
        first = (spacing / own - 1) / 2
    else:
        count = np.rint((size - 1) * own / spacing).astype(int) + 1
    grid = sitk.Image(count.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin(turned.TransformContinuousIndexToPhysicalPoint(first.tolist()))
    grid.SetDirection(turned.GetDirection())
    return oriented(grid)


def resample(image: sitk.Image, grid: sitk.Image, *, label: bool = False, outside: float | None = None) -> sitk.Image:
    """``image`` on ``grid``, linear (float32) or nearest for label maps.

    Beyond its edge the image is extended: without end, or by one voxel and then with the value ``outside``.
    """
    if outside is None:
        return _resampled(image, grid, sitk.sitkNearestNeighbor if label else sitk.sitkLinear)
    padded = sitk.ZeroFluxNeumannPad(image, [1, 1, 1], [1, 1, 1])
    return _resampled(padded, grid, sitk.sitkNearestNeighbor if label else sitk.sitkLinear, outside)


def _resampled(image: sitk.Image, grid: sitk.Image, interpolator: int, outside: float | None = None) -> sitk.Image:
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(grid)
    resampler.SetInterpolator(interpolator)
    whole = interpolator == sitk.sitkNearestNeighbor
    resampler.SetOutputPixelType(image.GetPixelID() if whole else sitk.sitkFloat32)
    if outside is None:
        resampler.SetUseNearestNeighborExtrapolator(True)
    else:
        resampler.SetDefaultPixelValue(outside)
    return resampler.Execute(image)
