"""The mask bank: label maps that a model carries so that it can be inverted without any scan (method §5).

What is kept of an entry: organ channels and five tissues (air, fat, soft tissue, bone, gas), no finer than 3 mm.
No intensity, no name, no date, no position in the scanner. And no patient's label map as it came: body and tissue are
one donor's, every organ is that of a randomly drawn donor, brought to its place by centroid and spread, and all of it
is warped at random. From two donors on nobody gives all organs of an entry (an only organ comes from another donor than
the body). A single donor's label map can only be deformed, strongly; ``source`` then says so, and whoever must not let
that shape out should train on more patients. What remains of a person is the rough, deformed shape of a body or of
an organ. That is not anonymity in a legal sense. Our formulation.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError, PackageError
from .anatomy import AIR, GAS, SOFT, Anatomy, Labels, Spacing, cutoff
from .crop import draw_crop
from .manipulation import Manipulation, interpolated, manipulate
from .recombination import Donor, recombined

FORMAT = 1
_FINEST = 2.95  # mm; scans of 3 mm come with spacings such as 2.99
RECOMBINED = Manipulation((3.0, 3.0, 5.0), 0.0, (0.95, 1.05), (0.9, 1.1), 4.0, 3.0)
ALONE = Manipulation((5.0, 5.0, 8.0), 0.0, (0.92, 1.08), (0.75, 1.3), 12.0, 6.0)

_Vote = tuple[int, tuple[slice, ...], npt.NDArray[np.float32], float]  # label, where, its shares there, its volume


@dataclass(frozen=True, eq=False)
class MaskBank:
    """Anatomies on grids of ``spacing`` mm (their own, 3 mm or coarser); ``source`` says what they are."""

    spacing: Spacing
    anatomies: tuple[Anatomy, ...]
    source: str

    def anatomy(self, number: int, spacing: Spacing) -> Anatomy:
        """Entry ``number`` on a grid of ``spacing`` mm, with smooth surfaces where that is another grid."""
        entry = self.anatomies[number]
        shape = [max(1, round(n * a / b)) for n, a, b in zip(entry.organs.shape, self.spacing, spacing, strict=True)]
        if tuple(shape) == entry.organs.shape:
            return entry
        at = [(np.arange(n) + 0.5) * (old / n) - 0.5 for n, old in zip(shape, entry.organs.shape, strict=True)]
        volume = math.prod(a / b for a, b in zip(shape, entry.organs.shape, strict=True))
        votes = partial(_softened, at=at, volume=volume)
        tissue, organs = _tissues(entry.tissue, shape, votes), _voted(shape, votes(entry.organs, entry.channels))
        tissue[(organs > 0) & (tissue == AIR)] = SOFT
        return Anatomy(organs, tissue)

    def draw(self, generator: np.random.Generator, channel: int | None = None) -> int:
        """The number of an entry, drawn evenly among those that have the organ ``channel``; of all if none has it."""
        having = [i for i, entry in enumerate(self.anatomies) if channel in entry.channels]
        drawn = having or range(len(self.anatomies))
        return drawn[int(generator.integers(len(drawn)))]

    def sample(
        self,
        generator: np.random.Generator,
        manipulation: Manipulation,
        mirror: Sequence[int] | None,
        shape: Sequence[int] | None,
        spacing: Spacing,
        channel: int | None = None,
    ) -> Anatomy:
        """A manipulated anatomy (see `manipulate`) with ``spacing`` mm, one with the organ ``channel`` if there is any.

        ``shape`` cuts a box with an organ in it, drawn evenly among those present, with air beyond the scan's borders,
        as in training; without it the whole anatomy comes.
        """
        drawn = self.anatomy(self.draw(generator, channel), spacing)
        whole = manipulate(drawn, spacing, manipulation, generator, mirror)
        return whole if shape is None else draw_crop(whole, shape, generator).anatomy(whole)

    def to_state(self) -> dict[str, Any]:
        """Tensors and plain values for a package: every entry as zlib-compressed bytes, organs then tissue."""
        import torch

        packed = [zlib.compress(np.stack([a.organs, a.tissue]).tobytes(), 9) for a in self.anatomies]
        return {
            "format": FORMAT,
            "spacing": list(self.spacing),
            "source": self.source,
            "shapes": [list(a.organs.shape) for a in self.anatomies],
            "masks": [torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for data in packed],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MaskBank:
        """What `to_state` gave.

        Raises:
            PackageError: the state is damaged or made by a newer version.
        """
        try:
            if state["format"] > FORMAT:
                raise PackageError("The model's mask bank was made by a newer IncrementalSeg: update IncrementalSeg.")
            x, y, z = (float(mm) for mm in state["spacing"])
            anatomies = tuple(_unpacked(*pair) for pair in zip(state["masks"], state["shapes"], strict=True))
            if not anatomies or not all(0 < mm < math.inf for mm in (x, y, z)):
                raise ValueError(f"{len(anatomies)} anatomies of {x} × {y} × {z} mm")
            return cls((x, y, z), anatomies, str(state["source"]))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, zlib.error, InputError) as error:
            raise PackageError(f"The model's mask bank is damaged ({error}): copy the model package again.") from error


def _unpacked(data: Any, shape: Sequence[int]) -> Anatomy:
    size = 2 * math.prod(shape)
    values = zlib.decompressobj().decompress(data.numpy().tobytes(), size + 1)
    if len(shape) != 3 or min(shape) < 1 or len(values) != size:
        raise ValueError(f"an anatomy of {list(shape)} voxels holds {len(values) // 2}")
    organs, tissue = np.frombuffer(values, np.uint8).reshape(2, *shape).copy()
    return Anatomy(organs, tissue)


def _tissues(tissue: Labels, shape: Sequence[int], votes: Callable[[Labels, Iterable[int]], Iterable[_Vote]]) -> Labels:
    """The tissue of a body that keeps its volume: the likeliest one inside, air outside."""
    inside = _voted(shape, votes((tissue > AIR).astype(np.uint8), [1]))
    return inside * _voted(shape, votes(tissue, range(1, GAS + 1)), least=0.0)


def _voted(shape: Sequence[int], votes: Iterable[_Vote], least: float = 1.0) -> Labels:
    """Labels that keep their volumes: the one with most times its cutoff, 0 where that is less than ``least``."""
    best, result = np.full(shape, least, np.float32), np.zeros(shape, np.uint8)
    for label, box, shares, voxels in votes:
        times = shares / np.float32(cutoff(shares, voxels))
        wins = times >= best[box]
        best[box][wins], result[box][wins] = times[wins], label
    return result


def _softened(
    labels: Labels, kinds: Iterable[int], at: Sequence[npt.NDArray[np.float64]], volume: float
) -> Iterator[_Vote]:
    """Each label rounded off and interpolated at other positions along x, y and z, ``volume`` of them to a voxel."""
    boxes = ndimage.find_objects(labels.astype(np.int32) + 1)
    for label in kinds:
        if label < len(boxes) and boxes[label] is not None:
            room = tuple(slice(max(part.start - 4, 0), part.stop + 4) for part in boxes[label])
            box = tuple(slice(*np.searchsorted(axis, (r.start, r.stop))) for axis, r in zip(at, room, strict=True))
            mask = labels[room] == label
            soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.6, mode="nearest")
            inside = [axis[part] - r.start for axis, part, r in zip(at, box, room, strict=True)]
            yield label, box, interpolated(soft, inside), volume * float(mask.sum())


def collect_bank(
    anatomies: Sequence[Anatomy], spacing: Spacing, count: int, generator: np.random.Generator
) -> MaskBank:
    """Recombine the anatomies (with ``spacing`` mm) of several patients into ``count`` entries of a bank.

    Every organ that any of them has is in every entry whose body's scan reaches there. See the module for what is kept.

    Raises:
        InputError: no anatomy has an organ, or ``count`` is not above 0.
    """
    coarse = [_coarse(anatomy, spacing) for anatomy in anatomies if anatomy.organs.any()]
    donors = [Donor.of(anatomy, mm) for anatomy, mm in coarse]
    if not donors or count < 1:
        raise InputError(
            "No mask bank can be made: give at least one case with an organ, and ask for one mask or more."
        )
    source = f"label maps recombined from {len(donors)} and deformed"
    if len(donors) == 1:
        source = "one patient's label map, strongly deformed (nobody to recombine it with)"
    bodies = np.resize(generator.permutation(len(donors)), count)
    mm = coarse[0][1]
    return MaskBank(mm, tuple(_entry(donors, int(body), mm, generator) for body in bodies), source)


def _entry(donors: Sequence[Donor], body: int, mm: Spacing, generator: np.random.Generator) -> Anatomy:
    if len(donors) == 1:
        return manipulate(donors[0].anatomy, mm, ALONE, generator)
    return manipulate(recombined(donors, body, mm, generator), mm, RECOMBINED, generator)


def _coarse(anatomy: Anatomy, spacing: Spacing) -> tuple[Anatomy, Spacing]:
    """The anatomy and its spacing, axes halved in resolution until none is finer than 3 mm."""
    x, y, z = spacing
    while axes := [axis for axis, mm in enumerate((x, y, z)) if mm < _FINEST]:
        anatomy = _halved(anatomy, axes)
        x, y, z = (mm * (2 if axis in axes else 1) for axis, mm in enumerate((x, y, z)))
    return anatomy, (x, y, z)


def _halved(anatomy: Anatomy, axes: Sequence[int]) -> Anatomy:
    """Half the resolution along these axes; organs and tissues keep their volume, thin ones too."""
    shape = [-(-n // 2) if axis in axes else n for axis, n in enumerate(anatomy.organs.shape)]
    votes = partial(_counted, axes=axes)
    tissue, organs = _tissues(anatomy.tissue, shape, votes), _voted(shape, votes(anatomy.organs, anatomy.channels))
    tissue[(organs > 0) & ~np.isin(tissue, (SOFT, GAS))] = SOFT
    return Anatomy(organs, tissue)


def _counted(labels: Labels, kinds: Iterable[int], axes: Sequence[int]) -> Iterator[_Vote]:
    """The share of each label in every block of two voxels along each of these axes, borders repeated."""
    even = np.pad(labels, [(0, n % 2 if axis in axes else 0) for axis, n in enumerate(labels.shape)], mode="edge")
    for label in kinds:
        count = (even == label).astype(np.uint8)
        for axis in axes:
            first, second = (count.take(range(start, count.shape[axis], 2), axis) for start in (0, 1))
            count = first + second
        yield label, (slice(None),) * 3, count / np.float32(2 ** len(axes)), float(count.sum()) / 2 ** len(axes)
