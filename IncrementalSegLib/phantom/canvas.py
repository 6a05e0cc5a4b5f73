"""What a made-up body is painted on: deformed coordinates in mm, the layers of the trunk, and shapes as depths.

A shape is a *depth*: mm inside its surface, negative outside. What is painted first stays, so no two tissues overlap.
All randomness lives on lattices in mm, so that the same patient can be drawn on any grid. Our formulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
_REACH = 260.0  # mm from the middle of the body that random fields cover
_FAR = np.float32(-99.0)


def spline_field(rng: np.random.Generator, knots_mm: float, axes: Sequence[Array]) -> Array:
    """A smooth random field of mean 0 and variance 1: cubic B-splines on a lattice of ``knots_mm``.

    The same generator gives the same field on every grid; ``axes`` are the grid's coordinates in mm.
    """
    knots = np.arange(-_REACH, _REACH + knots_mm, knots_mm, dtype=np.float32)
    field = rng.standard_normal((knots.size,) * 3, dtype=np.float32)
    for axis in axes:
        t = np.abs(axis[None, :] - knots[:, None]) / knots_mm
        basis = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        field = np.tensordot(field, basis.astype(np.float32), (0, 0))
    return np.asarray(field * np.float32((315 / 151) ** 1.5), np.float32)


def together(*depths: npt.NDArray[Any], rounding: float = 6.0) -> Array:
    """The intersection of shapes with its edges rounded (soft minimum, mm)."""
    total = sum(np.exp(np.clip(-depth / rounding, -40, 40)) for depth in depths)
    return (-rounding * np.log(total)).astype(np.float32)


class Region:
    """A box of the grid: coordinates (mm, deformed), cavity and diaphragm depth, texture, and what is painted there."""

    def __init__(self, body: Body, box: tuple[slice, ...]) -> None:
        self.rng, self.body, self.box = body.rng, body, box
        self.axes = [axis[part] for axis, part in zip(body.axes, box, strict=True)]
        self.x, self.y, self.z = (coordinate[box] for coordinate in body.points)
        self.wall, self.below, self.grain = body.wall[box], body.below[box], body.grain[box]

    def ellipsoid(self, centre: Sequence[float], radii: Sequence[float]) -> Array:
        """Depth in an ellipsoid along the axes."""
        parts = zip((self.x, self.y, self.z), centre, radii, strict=True)
        return (1 - np.sqrt(sum(((p - c) / r) ** 2 for p, c, r in parts))) * np.float32(min(radii))

    def tube(self, path: Array) -> Array:
        """Depth in a tube along ``path`` (points x, y, z, radius)."""
        depth = np.full(self.x.shape, _FAR)
        for a, b in pairwise(path):
            reach = max(a[3], b[3]) + 20
            box = _box(self.axes, np.minimum(a, b)[:3] - reach, np.maximum(a, b)[:3] + reach)
            offset = [coordinate[box] - start for coordinate, start in zip((self.x, self.y, self.z), a, strict=False)]
            step = b - a
            t = sum(o * s for o, s in zip(offset, step, strict=False)) / max(float(step[:3] @ step[:3]), 1e-6)
            t = np.clip(t, 0, 1)
            away = np.sqrt(sum((o - t * s) ** 2 for o, s in zip(offset, step, strict=False)))
            np.maximum(depth[box], a[3] + t * step[3] - away, out=depth[box])
        return depth

    def tangle(self, knots_mm: float, radius: float) -> Array:
        """Depth in a tangle of random tubes: the curves on which two random fields vanish."""
        slope = knots_mm / 1.4
        away = np.hypot(*(spline_field(self.rng, knots_mm, self.axes) for _ in range(2)))
        return np.float32(radius) - np.float32(slope) * away

    def paint(
        self, depth: Array, hu: npt.NDArray[Any] | float, organ: str = "", gap: float = 0.0, outside: bool = False
    ) -> None:
        """Paint what is free of ``depth`` > 0; ``gap`` mm around it stay fat; only ``outside`` leaves the cavity."""
        body, depth = self.body, depth if outside else np.minimum(depth, self.wall - 1)
        free = (depth > 0) & (body.taken[self.box] <= 0)
        body.hu[self.box][free] = hu[free] if isinstance(hu, np.ndarray) else hu
        if organ:
            body.labels[self.box][free] = body.organs.index(organ) + 1
        np.maximum(body.taken[self.box], depth + np.float32(gap), out=body.taken[self.box])


def _box(axes: Sequence[Array], low: Array, high: Array) -> tuple[slice, ...]:
    ends = zip(axes, low, high, strict=True)
    return tuple(slice(*map(int, np.searchsorted(axis, (a, b)))) for axis, a, b in ends)


class Body:
    """The trunk of one patient on one grid: ``hu`` (float32) and ``labels`` (uint8), both (x, y, z).

    ``fascia``, ``wall`` and ``below`` are depths in mm inside the fascia, the cavity, and under the diaphragm.

    Args:
        rng: decides the patient; the same generator state gives the same patient on every grid.
        axes: coordinates of the grid in mm, LPS, increasing.
        organs: names of those that get a label, 1, 2, 3 … in this order.
    """

    def __init__(
        self, rng: np.random.Generator, axes: Sequence[npt.NDArray[np.floating]], organs: Sequence[str]
    ) -> None:
        self.rng, self.organs = rng, organs
        scale, shift = rng.uniform(0.9, 1.07, 3), rng.normal(0, 3, 3)
        self.axes = [((axis - s) / k).astype(np.float32) for axis, s, k in zip(axes, shift, scale, strict=True)]
        self.contrast = rng.uniform(0.88, 1.12)
        self.points = [self._deformed(coordinate) for coordinate in np.meshgrid(*self.axes, indexing="ij")]
        self.grain = spline_field(rng, 8.0, self.axes)
        self.labels = np.zeros(self.grain.shape, np.uint8)
        self.taken = np.full(self.grain.shape, _FAR)
        self._measure_trunk()
        self.hu = self._laid_layers()

    def _deformed(self, coordinate: Array) -> Array:
        return coordinate + 4 * spline_field(self.rng, 95.0, self.axes) + 1.6 * spline_field(self.rng, 38.0, self.axes)

    def _measure_trunk(self) -> None:
        """Depth inside the fascia under the skin's fat, inside the muscle wall, and below the diaphragm (mm)."""
        x, y, z = self.points
        radius = np.hypot(x, y) + np.float32(1e-3)
        back, front = np.clip(y / radius, 0, 1), np.clip(-y / radius, 0, 1)
        u2, v2 = (x / 148) ** 2, (y / np.where(y > 0, np.float32(97), np.float32(104))) ** 2
        squircle = np.sqrt((u2 + v2 + np.sqrt((u2 + v2) ** 2 - 1.26 * u2 * v2)) / 2) + np.float32(1e-5)
        waist = 1 - 0.05 * np.exp(-(((z + 70) / 55) ** 2)) - 0.04 * np.clip((z - 60) / 100, 0, 1)
        self.fascia = radius * (waist / squircle - 1)
        rectus = 4 * np.exp(-(((np.abs(x) - 38) / 22) ** 2)) - 4 * np.exp(-((x / 7) ** 2))
        beside_spine = 38 * back * np.exp(-(((x / 48) ** 2) ** 2))
        self.wall = self.fascia - (9 + beside_spine + front * rectus + 2 * np.abs(x) / radius)
        domes = ((105, -68, -5), (95, 72, -5), (84, 5, -25))  # top, x and y of the right, left and middle dome
        away = [((x - left) / 72) ** 2 + ((y - middle) / 85) ** 2 for _, left, middle in domes]
        heights = [top - 30 * off - 30 * off**2 for (top, _, _), off in zip(domes, away, strict=True)]
        self.below = np.maximum.reduce(heights) - z

    def _laid_layers(self) -> Array:
        """HU of air, skin, fat under the skin, muscle wall, and fat of the cavity."""
        x, y, _ = self.points
        lean = y / (np.hypot(x, y) + np.float32(1e-3))  # -1 in front, 1 at the back
        fat = self.rng.uniform(9, 27) * (0.8 + 0.3 * lean**2 + 0.15 * lean) + 2 * spline_field(
            self.rng, 60.0, self.axes
        )
        furrow = 7 * np.clip(lean, 0, 1) * np.exp(-((x / 14) ** 2))
        skin = self.fascia + np.clip(fat - furrow, 3, None)
        layers = [skin < 0, skin < 2.5, self.fascia < 0, self.wall < 0]
        tissue: list[Any] = [np.float32(-1000), np.float32(10), -104 + 5 * self.grain, 56 + 9 * self.grain]
        return np.select(layers, tissue, -100 + 7 * self.grain)

    def region(self, low: Sequence[float], high: Sequence[float]) -> Region:
        """The part of the grid between two corners (mm) and 20 mm around it."""
        return Region(self, _box(self.axes, np.asarray(low) - np.float32(20), np.asarray(high) + np.float32(20)))

    def everywhere(self) -> Region:
        """The whole grid."""
        return self.region((-900, -900, -900), (900, 900, 900))

    def jittered(self, points: Sequence[Sequence[float]], mm: float = 4.0) -> Array:
        """A path (x, y, z, radius) moved, bent and swollen for this patient, then smoothed."""
        from scipy import ndimage

        path = np.asarray(points, np.float32)
        path[:, :3] += self.rng.normal(0, mm, 3) + self.rng.normal(0, mm / 2, (len(path), 3))
        path[:, 3] *= self.rng.uniform(0.9, 1.12)
        return np.asarray(ndimage.zoom(path, (4, 1), order=3), np.float32)

    def tube(self, points: Sequence[Sequence[float]], mm: float = 4.0) -> tuple[Region, Array]:
        """A patient's tube along a reference path: its region and its depth."""
        path = self.jittered(points, mm)
        reach = path[:, 3].max()
        region = self.region(path[:, :3].min(0) - reach, path[:, :3].max(0) + reach)
        return region, region.tube(path)

    def near(self, centre: Sequence[float], mm: Sequence[float] | float) -> list[float]:
        """A reference point or other numbers as they are in this patient: normal around ``centre``."""
        return [float(value) for value in self.rng.normal(centre, mm)]

    def enhanced(self, hu: float, spread: float = 3.0) -> float:
        """HU of a tissue in this patient's portal-venous phase."""
        return 40 + (hu - 40) * self.contrast + float(self.rng.normal(0, spread))
