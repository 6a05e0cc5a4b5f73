"""Anatomies recombined: the body of one patient with the organs of others, each in its place (method §5).

Our formulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .anatomy import AIR, BONE, GAS, SOFT, Anatomy, Labels, Mask, Spacing, cutoff, filled, largest_pieces

_PIECE = 0.2  # share of an organ's largest piece from which another piece belongs to it (two kidneys in one label)


_Point = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Donor:
    """An anatomy and each organ's centre and variance (mm, mm²); ``cut``: those that end where the scan ends."""

    anatomy: Anatomy
    places: dict[int, tuple[_Point, _Point]]
    cut: frozenset[int]

    @classmethod
    def of(cls, anatomy: Anatomy, mm: Spacing) -> Donor:
        """The anatomy (``mm`` spacing) as a donor."""
        places = {channel: _moments(anatomy.organs == channel, mm) for channel in anatomy.channels}
        return cls(anatomy, places, frozenset(int(c) for c in np.unique(anatomy.organs[:, :, [0, -1]])))


def recombined(donors: Sequence[Donor], body: int, mm: Spacing, generator: np.random.Generator) -> Anatomy:
    """Body and tissue of donor ``body``, every organ that anyone has from a donor drawn at random.

    Of two donors or more none gives all organs, as far as others have organs to give; a table's only organ comes from
    another donor than the body.
    """
    drawn = _lenders(donors, body, generator)
    return _combined(donors[body], {channel: donors[i] for channel, i in drawn.items()}, mm)


def _lenders(donors: Sequence[Donor], body: int, generator: np.random.Generator) -> dict[int, int]:
    """Who lends which organ: drawn evenly, but never everything from one donor where another could lend."""
    owners: dict[int, list[int]] = {}
    for i, donor in enumerate(donors):
        for channel in donor.anatomy.channels:
            owners.setdefault(channel, []).append(i)
    drawn = {channel: int(generator.choice(owners[channel])) for channel in sorted(owners)}
    only = {body} if len(drawn) == 1 else set(drawn.values())
    others = [(channel, i) for channel in drawn for i in owners[channel] if i not in only]
    if set(drawn.values()) == only and len(only) == 1 and others:
        channel, i = others[generator.integers(len(others))]
        drawn[channel] = i
    return drawn


def _combined(body: Donor, lenders: dict[int, Donor], mm: Spacing) -> Anatomy:
    """The body with organs of others: the relatively deeper one wins where two overlap."""
    own, tissue, room = body.anatomy.organs, body.anatomy.tissue.copy(), _room(body.anatomy, mm)
    best, organs = np.zeros(own.shape), np.zeros(own.shape, np.uint8)
    gas = np.zeros(own.shape, bool)
    for channel, lender in lenders.items():
        mask, hollow = _placed(lender, body, channel, mm)
        depth = _relative_depth(mask & room, mm)
        wins = depth > best
        best[wins], organs[wins], gas[wins] = depth[wins], channel, hollow[wins]
    for channel in lenders:
        mask = organs == channel
        organs[mask & ~largest_pieces(mask, _PIECE)] = 0
    for channel in body.anatomy.channels:
        tissue = filled(tissue, (own == channel) & (organs == 0), organs > 0)
    tissue[organs > 0] = np.where(gas, GAS, SOFT)[organs > 0]
    return Anatomy(organs, tissue)


def _room(anatomy: Anatomy, mm: Spacing) -> Mask:
    """Where organs may be: not in the spine, and as deep under the skin as the body's own are, up to 20 mm."""
    depth = ndimage.distance_transform_edt(anatomy.tissue != AIR, mm)
    own = depth[anatomy.organs > 0]
    least = min(float(np.percentile(own, 1)), 20.0) if own.size else 10.0
    return (depth >= least) & ~largest_pieces(anatomy.tissue == BONE)


def _placed(lender: Donor, body: Donor, channel: int, mm: Spacing) -> tuple[Mask, Mask]:
    """A lender's organ in the body's grid and the gas in it; one that the lender's scan cuts goes on along z."""
    ratio, there, here = _alignment(lender, body, mm)
    if channel in body.places:
        free = slice(2 if channel in lender.cut | body.cut else 3)  # a cut organ's height is not its own
        there[free], here[free] = lender.places[channel][0][free], body.places[channel][0][free]
    offset, shape = (there - ratio * here) / mm, body.anatomy.organs.shape
    mode = "nearest" if channel in lender.cut else "constant"
    mask = lender.anatomy.organs == channel
    moved, hollow = (
        ndimage.affine_transform(part.astype(np.float32), ratio, offset, shape, order=1, mode=mode)
        for part in (mask, mask & (lender.anatomy.tissue == GAS))
    )
    return moved >= cutoff(moved, mask.sum() / np.prod(ratio)), hollow >= 0.5


def _relative_depth(mask: Mask, mm: Spacing) -> npt.NDArray[np.float64]:
    """Distance to the surface over the square of the greatest: small organs hold their place inside large ones."""
    depth = np.zeros(mask.shape)
    if mask.any():
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        inside = ndimage.distance_transform_edt(np.pad(mask[box], 1), mm)[1:-1, 1:-1, 1:-1]
        depth[box] = inside / inside.max() ** 2
    return depth


def _alignment(lender: Donor, body: Donor, mm: Spacing) -> tuple[_Point, ...]:
    """A point ``p`` (mm) of the body corresponds to ``ratio * (p - here) + there`` of the lender: (ratio, there, here).

    From the organs that both have; without any, from the lean body, with the height at which slices look alike.
    """
    shared = sorted((lender.places.keys() & body.places.keys()) - lender.cut - body.cut)
    if not shared:
        (there, wide), (here, slim) = (_moments(donor.anatomy.tissue >= SOFT, mm) for donor in (lender, body))
        there[2], here[2] = _height(lender.anatomy.tissue, body.anatomy.tissue) * mm[2], 0.0
        wide[2] = slim[2]
        return np.clip(np.sqrt(wide / slim), 0.8, 1.25), there, here
    sides = [[np.stack(part) for part in zip(*(d.places[c] for c in shared), strict=True)] for d in (lender, body)]
    (theirs, their_size), (ours, our_size) = sides
    spread = (their_size.mean(0) + theirs.var(0)) / (our_size.mean(0) + ours.var(0))
    return np.clip(np.sqrt(spread), 0.8, 1.25), theirs.mean(0), ours.mean(0)


def _height(lender: Labels, body: Labels) -> int:
    """How many slices higher the lender's slice is that looks like the body's; at least half of one scan counts."""
    theirs, ours = _slices(lender), _slices(body)
    tall, short = theirs.shape[-1], ours.shape[-1]
    least = max(1, min(tall, short) // 2)
    costs = {}
    for shift in range(least - short, tall - least + 1):
        first, last = max(0, -shift), min(short, tall - shift)
        difference = theirs[..., first + shift : last + shift] - ours[..., first:last]
        costs[shift] = float(np.square(difference).mean())
    return min(costs, key=lambda shift: costs[shift])


def _slices(tissue: Labels) -> npt.NDArray[np.float32]:
    """Every tissue inside the body, smoothed, on 24 × 24 points to a slice, as wide as the lean body (4, 24, 24, z)."""
    middle, variance = _moments(tissue >= SOFT, (1.0, 1.0, 1.0))
    reach = 2 * np.sqrt(variance)
    matrix, offset = np.append(2 * reach[:2] / 23, 1.0), np.append((middle - reach)[:2], 0.0)
    shape = (24, 24, tissue.shape[2])
    smooth = (ndimage.gaussian_filter((tissue == kind).astype(np.float32), 1) for kind in range(1, GAS + 1))
    return np.stack([ndimage.affine_transform(part, matrix, offset, shape, order=1) for part in smooth])


def _moments(mask: Mask, mm: Spacing) -> tuple[_Point, _Point]:
    points = np.argwhere(mask) * np.array(mm)
    return points.mean(0), points.var(0) + np.square(mm) / 12
