"""How bright every organ and tissue is and how coarse its texture: a few numbers per class, and painting with them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..errors import InputError
from .anatomy import Anatomy

TISSUES = ("air", "fat", "soft tissue", "bone", "gas")
_SIGMAS = (0.7, 2.0)  # voxels: where fine, medium and coarse texture part
_LEAST_VOXELS = 50
_BINS = 64
_PARTS = ("mean", "spread", "texture", "histogram")


@dataclass(frozen=True)
class Intensities:
    """Per class (tissues, then organs 1..K) on the [-1, 1] scale.

    ``mean`` (C,) and ``spread`` (C,) of the patients' means; ``texture`` (C, 3) standard deviations of the fine, medium
    and coarse variation inside; ``histogram`` (C, 64) shares of the voxels between -1 and 1. A class that no patient
    showed has zeros.
    """

    mean: np.ndarray
    spread: np.ndarray
    texture: np.ndarray
    histogram: np.ndarray

    def to_state(self) -> dict[str, Any]:
        """Plain lists for a package."""
        return {part: getattr(self, part).tolist() for part in _PARTS}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Intensities:
        """What `to_state` gave."""
        return cls(*(np.asarray(state[part], np.float32) for part in _PARTS))

    def completed(self, earlier: Intensities) -> Intensities:
        """These, with classes that no patient showed as in ``earlier`` (whose organs are the first of these)."""
        count, parts = len(earlier.mean), []
        gaps = self.histogram[:count].sum(1) == 0
        for part in _PARTS:
            values = getattr(self, part).copy()
            values[:count][gaps] = getattr(earlier, part)[gaps]
            parts.append(values)
        return Intensities(*parts)


def classes_of(anatomy: Anatomy) -> np.ndarray:
    """One label per voxel: tissues 0..4, organ channel c as ``c + 4``."""
    return np.where(anatomy.organs > 0, anatomy.organs + (len(TISSUES) - 1), anatomy.tissue)


def measure_intensities(scans: Iterable[tuple[np.ndarray, Anatomy]], organs: int) -> Intensities:
    """Intensities of ``organs`` organs and the tissues over scans: images on the [-1, 1] scale with their anatomy.

    Raises:
        InputError: no scan.
    """
    count = len(TISSUES) + organs
    seen = [_measure(image, classes_of(anatomy), count) for image, anatomy in scans]
    if not seen:
        raise InputError("Intensities cannot be measured without a scan: give at least one case.")
    means, textures, histograms = (np.stack(part) for part in zip(*seen, strict=True))
    there = np.isfinite(means).astype(np.float64)  #                                                          S,C
    share = there / there.sum(0).clip(1)
    mean = (share * np.nan_to_num(means)).sum(0)
    spread = np.sqrt((share * np.nan_to_num(means - mean) ** 2).sum(0))
    texture, histogram = ((share[..., None] * np.nan_to_num(part)).sum(0) for part in (textures, histograms))
    return Intensities(*(part.astype(np.float32) for part in (mean, spread, texture, histogram)))


def _measure(image: np.ndarray, classes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, histograms = np.full(count, np.nan), np.full((count, _BINS), np.nan)
    texture = np.full((count, len(_SIGMAS) + 1), np.nan)
    for c, box in enumerate(ndimage.find_objects(classes + 1, count)):
        inside = classes[box] == c if box is not None else np.zeros(0, bool)
        if inside.sum() >= _LEAST_VOXELS:
            values = image[box]
            mean[c] = values[inside].mean()
            histograms[c] = histogram_of(values[inside])
            texture[c] = [band[inside].std() for band in _bands(np.where(inside, values, mean[c]))]
    return mean, texture, histograms


def histogram_of(values: np.ndarray) -> np.ndarray:
    """Shares (64,) of values between -1 and 1."""
    counts, _ = np.histogram(values, _BINS, (-1, 1))
    return counts / max(1, counts.sum())


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Earth mover's distance of two histograms (64,) on the [-1, 1] scale."""
    return float(np.abs(np.cumsum(a - b)).sum() * 2 / _BINS)


def _bands(values: np.ndarray) -> list[np.ndarray]:
    smooth = [values, *(ndimage.gaussian_filter(values, sigma) for sigma in _SIGMAS)]
    return [a - b for a, b in itertools.pairwise(smooth)] + [smooth[-1]]


def paint(anatomy: Anatomy, intensities: Intensities, generator: np.random.Generator) -> np.ndarray:
    """An image (x, y, z) on the [-1, 1] scale of a new patient with this anatomy (our formulation).

    Every class gets its mean, one shift for the whole class as between patients, and texture of three coarsenesses;
    borders are blurred as partial volumes are.
    """
    classes = classes_of(anatomy)
    level = intensities.mean + intensities.spread * generator.standard_normal(len(intensities.mean))
    image = level[classes].astype(np.float32)
    for band, noise in enumerate(_unit_noise(classes.shape, generator)):
        image += intensities.texture[:, band][classes] * noise
    image = ndimage.gaussian_filter(image, 0.5)
    image[anatomy.tissue == 0] = -1
    return np.clip(image, -1, 1)


def _unit_noise(shape: tuple[int, ...], generator: np.random.Generator) -> list[np.ndarray]:
    """Fine, medium and coarse noise of standard deviation 1."""
    white = generator.standard_normal((3, *shape), dtype=np.float32)
    bands = [_bands(white[i])[i] for i in range(3)]
    return [band / band.std() for band in bands]
