"""Anatomies recombined: the body of one patient with the organs of others, each in its place (method §5).

Our formulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .anatomy import (
    AIR,
    BONE,
    GAS,
    PIECE,
    SOFT,
    Anatomy,
    Labels,
    Mask,
    Spacing,
    cutoff,
    filled,
    largest_pieces,
    without,
)

_CRUMB = 0.1  # share of a lender's organ below which an organ in the middle of a scan is none
_REACH_MM = 200.0  # how far a field of view grows at most


_Point = npt.NDArray[np.float64]
_Frame = tuple[_Point, _Point, _Point]


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
    """The body with organs of others."""
    own, tissue, room = body.anatomy.organs, body.anatomy.tissue.copy(), _room(body.anatomy, mm)
    frames = {channel: _organ_frame(lender, body, channel, mm) for channel, lender in lenders.items()}
    organs, gas = _laid(lenders, frames, room, mm)
    for channel in body.anatomy.channels:
        tissue = filled(tissue, (own == channel) & (organs == 0), organs > 0)
    tissue[organs > 0] = np.where(gas, GAS, SOFT)[organs > 0]
    return Anatomy(organs, tissue)


def _laid(lenders: dict[int, Donor], frames: dict[int, _Frame], room: Mask, mm: Spacing) -> tuple[Labels, Mask]:
    """Organs of others, each in its frame, and their gas: the relatively deeper one wins where two overlap."""
    shape = room.shape
    best, organs, gas = np.zeros(shape), np.zeros(shape, np.uint8), np.zeros(shape, bool)
    for channel, lender in lenders.items():
        mask, hollow = _placed(lender, channel, frames[channel], shape, mm)
        depth = _relative_depth(mask & room, mm)
        wins = depth > best
        best[wins], organs[wins], gas[wins] = depth[wins], channel, hollow[wins]
    for channel in lenders:
        mask = organs == channel
        organs[mask & ~largest_pieces(mask, PIECE)] = 0
    return organs, gas


def completed(seen: Anatomy, lender: Anatomy, mm: Spacing) -> tuple[Anatomy, tuple[int, int]]:
    """A scan's anatomy with the organs that its field of view lacks, from another anatomy with ``mm`` spacing.

    The field of view grows along z by as many slices as are returned (below, above), up to 200 mm either way: there the
    body goes on as at its end, organs that the end cuts go on as the lender's, and organs are put that mostly lie
    there. What the scan shows stays, except crumbs of organs, which are taken for false finds. An organ that finds room
    for less than a third of itself is left out.
    """
    giver, body = Donor.of(lender, mm), Donor.of(seen, mm)
    shares = _shares(giver, body, mm)
    seen = without(seen, [c for c, share in shares.items() if share < _CRUMB and c not in body.cut])
    body = Donor.of(seen, mm)
    frame = _alignment(giver, body, mm)
    lacking = [c for c in giver.places if c not in body.places or (c in body.cut and shares.get(c, 0.0) < 0.5)]
    height, most = seen.organs.shape[2], round(_REACH_MM / mm[2])
    spans = {c: _span(giver, frame, c, mm) for c in lacking}
    spans = {c: span for c, span in spans.items() if _mostly_beyond(span, height, most)}
    if not spans:
        return seen, (0, 0)
    below = max(0, *(-first for first, _ in spans.values()))
    above = max(0, *(last + 1 - height for _, last in spans.values()))
    organs, tissue = (
        np.pad(part, [(0, 0), (0, 0), (below, above)], mode="edge") for part in (seen.organs, seen.tissue)
    )
    beyond = np.ones(organs.shape, bool)
    beyond[:, :, below : below + height] = False
    shown = np.where(beyond, np.uint8(0), organs)
    lenders = {c: giver for c in giver.places if c in spans or c in body.cut}
    frames = {c: _continued(giver, body, c, frame, mm) for c in lenders}
    lift = np.array([0.0, 0.0, below * mm[2]])
    lifted = {c: (ratio, there, here + lift) for c, (ratio, there, here) in frames.items()}
    room = _room(Anatomy(shown, tissue), mm) & beyond
    added, gas = _laid(lenders, lifted, room, mm)
    for c in lenders.keys() - body.places.keys():
        whole = (lender.organs == c).sum() / np.prod(frame[0])
        if (added == c).sum() < whole / 3:
            added[added == c] = 0
    if not added.any():
        return seen, (0, 0)
    tissue = filled(tissue, beyond & (organs > 0) & (added == 0), (shown > 0) | (added > 0))
    tissue[added > 0] = np.where(gas, GAS, SOFT)[added > 0]
    return Anatomy(np.where(added > 0, added, shown), tissue), (below, above)


def _shares(lender: Donor, body: Donor, mm: Spacing) -> dict[int, float]:
    """How much of a lender's organ, brought to the body's size, the body's own is, by channel."""
    own, theirs = (np.bincount(donor.anatomy.organs.ravel(), minlength=256) for donor in (body, lender))
    scale = float(np.prod(_alignment(lender, body, mm)[0]))
    return {c: own[c] * scale / theirs[c] for c in lender.places.keys() & body.places.keys()}


def _mostly_beyond(span: tuple[int, int], height: int, most: int) -> bool:
    """Whether at least half of an organ's slices lie beyond a scan's, and none further than ``most`` slices."""
    inside = min(span[1], height - 1) - max(span[0], 0) + 1
    return inside <= (span[1] - span[0] + 1) / 2 and span[0] >= -most and span[1] < height + most


def _continued(lender: Donor, body: Donor, channel: int, frame: _Frame, mm: Spacing) -> _Frame:
    """The frame, moved across so that a cut organ goes on where it ends: by the slices that both show."""
    ratio, there, here = (part.copy() for part in frame)
    if channel in body.places:
        shape = body.anatomy.organs.shape
        theirs, _ = _placed(lender, channel, frame, shape, mm)
        ours = body.anatomy.organs == channel
        both = theirs.any((0, 1)) & ours.any((0, 1))
        if both.any():
            middles = [np.argwhere(part & both)[:, :2].mean(0) for part in (theirs, ours)]
            here[:2] += (middles[1] - middles[0]) * mm[:2]
    return ratio, there, here


def _span(lender: Donor, frame: _Frame, channel: int, mm: Spacing) -> tuple[int, int]:
    """First and last slice of the body's grid, or beyond it, that a lender's organ would lie in."""
    ratio, there, here = frame
    slices = np.flatnonzero((lender.anatomy.organs == channel).any((0, 1)))[[0, -1]]
    first, last = ((slices * mm[2] - there[2]) / ratio[2] + here[2]) / mm[2]
    return int(np.floor(first)), int(np.ceil(last))


def _room(anatomy: Anatomy, mm: Spacing) -> Mask:
    """Where organs may be: not in the spine, and as deep under the skin as the body's own are, up to 20 mm."""
    depth = ndimage.distance_transform_edt(anatomy.tissue != AIR, mm)
    own = depth[anatomy.organs > 0]
    least = min(float(np.percentile(own, 1)), 20.0) if own.size else 10.0
    return (depth >= least) & ~largest_pieces(anatomy.tissue == BONE)


def _organ_frame(lender: Donor, body: Donor, channel: int, mm: Spacing) -> _Frame:
    """The alignment of two donors, moved so that an organ that both have keeps its place in the body."""
    ratio, there, here = _alignment(lender, body, mm)
    if channel in body.places:
        free = slice(2 if channel in lender.cut | body.cut else 3)  # a cut organ's height is not its own
        there[free], here[free] = lender.places[channel][0][free], body.places[channel][0][free]
    return ratio, there, here


def _placed(lender: Donor, channel: int, frame: _Frame, shape: Sequence[int], mm: Spacing) -> tuple[Mask, Mask]:
    """A lender's organ in the body's grid and the gas in it; one that the lender's scan cuts goes on along z."""
    ratio, there, here = frame
    offset = (there - ratio * here) / mm
    mode = "nearest" if channel in lender.cut else "constant"
    mask = lender.anatomy.organs == channel
    moved, hollow = (
        ndimage.affine_transform(part.astype(np.float32), ratio, offset, tuple(shape), order=1, mode=mode)
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


def _alignment(lender: Donor, body: Donor, mm: Spacing) -> _Frame:
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
