"""An anatomy and its manipulation: organs of another shape, place and size by one smooth warp (method §5).

Everything moves with one field, so organs cannot overlap or leave the body, and a CT can be warped by the very same
field. Global turn, shift and scale; a scale and a shift of every organ that fades out around it, held back by bone and
skin; a random elastic field. The field never folds. Our formulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError
from ..phantom.canvas import spline_field
from .anatomy import AIR, BONE, Anatomy, Labels, Mask, Spacing, without

Array = npt.NDArray[np.float32]
_Numbers = npt.NDArray[np.float64]

_NODE_MM = 8.0  # displacements are worked out about this far apart
_FADE_MM = 10.0  # around an organ, its own displacement fades out over about three times this
_FAR = 0.02  # share of an organ in its neighbourhood at which half of its displacement is left
_HOLD = 0.5  # how strongly bone and skin resist, where an organ counts 1
_SQUARINGS = 4
_LEAST_DETERMINANT = 0.1


@dataclass(frozen=True)
class Manipulation:
    """How far an anatomy may be changed; every number is drawn evenly from its range.

    ``rotation`` degrees about x, y and z either way: 20 about the body's axis; less about the others, where 20 would
    tip the trunk out of any scanner. ``translation`` and ``organ_shift`` mm along each axis either way; ``scale`` of
    the body and, on top, ``organ_scale`` of each organ, as lengths: neighbours, bone and skin resist, so that a
    wedged-in organ gets part of it. ``elastic`` mm (standard deviation) and ``wavelength`` mm of the random field.
    ``flip`` and ``drop`` (each organ) are probabilities.

    Raises:
        InputError: a range that cannot be.
    """

    rotation: tuple[float, float, float] = (8.0, 8.0, 20.0)
    translation: float = 10.0
    scale: tuple[float, float] = (0.9, 1.1)
    organ_scale: tuple[float, float] = (0.8, 1.25)
    organ_shift: float = 8.0
    elastic: float = 3.0
    wavelength: float = 80.0
    flip: float = 0.0
    drop: float = 0.0

    def __post_init__(self) -> None:
        """Refuse ranges that cannot be."""
        lengths = (*self.rotation, self.translation, self.organ_shift, self.elastic, self.flip, self.drop)
        scales = all(0 < low <= high for low, high in (self.scale, self.organ_scale))
        if min(lengths) < 0 or max(self.flip, self.drop) > 1 or self.wavelength <= 0 or not scales:
            values = ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))
            raise InputError(
                f"Masks cannot be manipulated by {values}: give 0 or more, scales as (smallest, largest) above 0 and "
                "probabilities up to 1."
            )


UNCHANGED = Manipulation((0.0, 0.0, 0.0), 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Warp:
    """A backward warp of one grid: where every voxel comes from.

    ``coordinates`` (3, x, y, z) are voxels of the source; ``mirror`` is set where the body was flipped left-right: the
    channel of every channel in the mirrored body.
    """

    coordinates: Array
    mirror: tuple[int, ...] | None = None

    def labels(self, array: Labels, outside: int | None = None) -> Labels:
        """Organ channels (x, y, z) warped without mixing; sides swapped by a flip.

        Beyond the grid lies ``outside``, or the grid's border goes on when it is left out.
        """
        warped = self._nearest(array, outside)
        return warped if self.mirror is None else np.asarray(self.mirror, np.uint8)[warped]

    def image(self, array: npt.NDArray[np.generic], outside: float | None = None, order: int = 1) -> Array:
        """An image (x, y, z) warped with splines of ``order``; ``outside`` as in `labels`."""
        mode, value = ("nearest", 0.0) if outside is None else ("constant", outside)
        source = np.asarray(array, np.float32)
        return ndimage.map_coordinates(source, self.coordinates, order=order, mode=mode, cval=value)

    def anatomy(self, anatomy: Anatomy) -> Anatomy:
        """Organs and tissue warped; beyond the grid its border goes on, so that no wedge of air cuts the body."""
        return Anatomy(self.labels(anatomy.organs), self._nearest(anatomy.tissue, None))

    def _nearest(self, array: Labels, outside: int | None) -> Labels:
        place = np.zeros(self.coordinates.shape[1:], np.int32)
        beyond = np.zeros(place.shape, bool)
        for coordinate, size in zip(self.coordinates, array.shape, strict=True):
            at = np.rint(coordinate).astype(np.int32)
            if outside is not None:
                beyond |= (at < 0) | (at >= size)
            place *= size
            place += np.clip(at, 0, size - 1, out=at)
        warped = array.reshape(-1)[place]
        return warped if outside is None else np.where(beyond, np.uint8(outside), warped)


def draw_warp(
    anatomy: Anatomy,
    spacing: Spacing,
    manipulation: Manipulation,
    generator: np.random.Generator,
    mirror: Sequence[int] | None = None,
) -> Warp:
    """Draw a warp for an anatomy with this spacing (mm); it has no fold, or it is weakened until it has none.

    ``mirror`` is `OrganTable.mirror_channels`; without it nothing is flipped. A flip puts the liver on the left.
    """
    steps = [math.ceil(_NODE_MM / mm) for mm in spacing]
    node_mm = np.array(spacing) * steps
    turn, shift = _draw_affine(manipulation, generator)
    flow = _draw_flow(anatomy, steps, node_mm, manipulation, generator)
    coordinates = _coordinates(anatomy.tissue, np.array(spacing), turn, shift)
    nodes = coordinates[:, :: steps[0], :: steps[1], :: steps[2]] / _column(steps)
    moved = np.stack([ndimage.map_coordinates(part, nodes, order=1, mode="nearest") for part in flow])
    moved *= _strength(moved, node_mm, turn) / _column(spacing)
    between = [np.arange(size) / step for size, step in zip(anatomy.organs.shape, steps, strict=True)]
    for part, more in zip(coordinates, moved, strict=True):
        part += interpolated(more, between)
    if mirror is None or generator.random() >= manipulation.flip:
        return Warp(coordinates)
    return Warp(np.ascontiguousarray(coordinates[:, ::-1]), tuple(mirror))


def _column(values: Sequence[float] | _Numbers) -> Array:
    return np.asarray(values, np.float32).reshape(3, 1, 1, 1)


def random_rotation(limits: Sequence[float], generator: np.random.Generator) -> _Numbers:
    """A rotation matrix (3, 3): about x, then y, then z, by up to these degrees either way."""
    turn = np.eye(3)
    for axis, limit in enumerate(limits):
        angle = math.radians(generator.uniform(-limit, limit))
        a, b = [i for i in range(3) if i != axis]
        plane = np.eye(3)
        plane[[a, a, b, b], [a, b, a, b]] = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
        turn = turn @ plane
    return turn


def _draw_affine(manipulation: Manipulation, generator: np.random.Generator) -> tuple[_Numbers, _Numbers]:
    """Backward: a point ``p`` mm from the middle comes from ``turn @ (p - shift)``."""
    turn = random_rotation(manipulation.rotation, generator)
    shift = generator.uniform(-1, 1, 3) * manipulation.translation
    return turn / generator.uniform(*manipulation.scale), shift


def _coordinates(tissue: Labels, mm: _Numbers, turn: _Numbers, shift: _Numbers) -> Array:
    """Source voxels (3, x, y, z) of the global part, about the middle of the body."""
    inside = tissue > 0
    sums = [inside.sum(tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    middle = [float(np.average(np.arange(len(n)), weights=n)) if n.any() else (len(n) - 1) / 2 for n in sums]
    change = (turn - np.eye(3)) * mm[None, :] / mm[:, None]  # in voxels; nothing drawn leaves every voxel exact
    offset = -change @ np.array(middle) - turn @ shift / mm
    axes = [np.arange(size, dtype=np.float32) for size in tissue.shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    rows = [change[i, 0] * x + change[i, 1] * y + change[i, 2] * z + offset[i] for i in range(3)]
    return np.stack([row + axis for row, axis in zip(rows, (x, y, z), strict=True)]).astype(np.float32)


def _draw_flow(
    anatomy: Anatomy,
    steps: Sequence[int],
    node_mm: _Numbers,
    manipulation: Manipulation,
    generator: np.random.Generator,
) -> Array:
    """Displacement (3, …) mm of everything but the global part, on every so many voxels of the anatomy."""
    nodes = tuple(slice(None, None, step) for step in steps)
    organs, tissue = np.ascontiguousarray(anatomy.organs[nodes]), anatomy.tissue[nodes]
    velocity = _local(organs, np.isin(tissue, (AIR, BONE)), node_mm, manipulation, generator)
    axes = [(mm * (np.arange(n) - (n - 1) / 2)).astype(np.float32) for n, mm in zip(organs.shape, node_mm, strict=True)]
    elastic = [spline_field(generator, manipulation.wavelength / 2, axes) for _ in range(3)]
    return _flowed(velocity + np.float32(manipulation.elastic) * np.stack(elastic), node_mm)


def _local(
    organs: Labels, firm: Mask, node_mm: _Numbers, manipulation: Manipulation, generator: np.random.Generator
) -> Array:
    """Backward velocity (3, …) mm of every organ's own scale and shift, faded out by normalised convolution."""
    points = np.indices(organs.shape, np.float32) * _column(node_mm)
    total, weight = np.zeros_like(points), np.zeros(organs.shape, np.float32)
    for channel in np.unique(organs[organs > 0]):
        scale = np.float32(generator.uniform(*manipulation.organ_scale))
        shift = _column(generator.uniform(-1, 1, 3) * manipulation.organ_shift)
        centre = _column(points[:, organs == channel].mean(1))
        place = Warp(((points - centre - shift) / scale + centre) / _column(node_mm))
        there = (place.labels(organs, outside=0) == channel) | (organs == channel)
        there = ndimage.binary_dilation(there)
        total += there * ((centre - points) * np.log(scale) - shift / np.sqrt(scale))
        weight += there
    weight[(weight == 0) & firm] = _HOLD
    sigma = _FADE_MM / node_mm
    weight = ndimage.gaussian_filter(weight, sigma) + _FAR
    return np.stack([ndimage.gaussian_filter(part, sigma) / weight for part in total])


def _flowed(velocity: Array, node_mm: _Numbers) -> Array:
    """Displacement (3, …) mm after flowing along a velocity for a unit of time, by scaling and squaring.

    Arsigny et al., A log-Euclidean framework for statistics on diffeomorphisms, MICCAI 2006: a flow does not fold.
    """
    at = np.indices(velocity.shape[1:], np.float32)
    moved = velocity / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        to = at + moved / _column(node_mm)
        moved = moved + np.stack([ndimage.map_coordinates(part, to, order=1, mode="nearest") for part in moved])
    return moved


def _strength(moved: Array, node_mm: _Numbers, turn: _Numbers) -> np.float32:
    """The share of a displacement (3, …) mm, in steps of a fifth, that after ``turn`` leaves a positive determinant.

    A flow on a grid is exact only as far as the grid is fine, and linear between its nodes.
    """
    slopes = np.zeros((3, 3, *moved.shape[1:]), np.float32)
    for axis in range(3):
        if moved.shape[axis + 1] > 1:
            slopes[:, axis] = np.gradient(moved, node_mm[axis], axis=axis + 1)
    slopes = np.tensordot(np.linalg.inv(turn).astype(np.float32), slopes, 1)
    minors = np.cross(slopes[[1, 2, 0]], slopes[[2, 0, 1]], axis=1)  # rows of cofactors
    third = (slopes[0] * minors[0]).sum(0)
    first, second = (parts[0, 0] + parts[1, 1] + parts[2, 2] for parts in (slopes, minors))
    share = np.float32(1)
    while (1 + share * (first + share * (second + share * third))).min() < _LEAST_DETERMINANT:
        share *= np.float32(0.8)
    return share


def interpolated(array: Array, at: Sequence[npt.NDArray[np.floating]]) -> Array:
    """Values (x, y, z) linearly between voxels at these positions along x, y and z; the border goes on beyond it."""
    for axis, positions in enumerate(at):
        inside = np.clip(positions, 0, array.shape[axis] - 1)
        low = inside.astype(np.intp)
        high = np.minimum(low + 1, array.shape[axis] - 1)
        share = (inside - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        array = array.take(low, axis) * (1 - share) + array.take(high, axis) * share
    return array


def manipulate(
    anatomy: Anatomy,
    spacing: Spacing,
    manipulation: Manipulation,
    generator: np.random.Generator,
    mirror: Sequence[int] | None = None,
) -> Anatomy:
    """An anatomy as `draw_warp` changes it, without the organs that were drawn to be left out."""
    warped = draw_warp(anatomy, spacing, manipulation, generator, mirror).anatomy(anatomy)
    return without(warped, [channel for channel in warped.channels if generator.random() < manipulation.drop])
