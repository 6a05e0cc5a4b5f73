"""What a synthetic volume starts from: noise, an anatomy painted in HU, or a current scan, completed and warped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..models.package import Model
from .anatomy import Anatomy
from .crop import draw_crop
from .intensities import classes_of, paint
from .manipulation import Manipulation, draw_warp
from .memory import Memory, Scan
from .recipes import Recipe
from .recombination import completed


@dataclass(frozen=True)
class Request:
    """What is asked for: recipe, number of volumes and their edge lengths (voxels), mask manipulation, seed.

    ``scans``: HU and predicted channels of the current scans, which the recipe ``grounded`` starts from. ``channels``:
    the organs that volumes are asked for, one after the other; all when left out.
    """

    recipe: Recipe
    count: int
    size: tuple[int, int, int]
    seed: int = 0
    manipulation: Manipulation = Manipulation()
    scans: Sequence[Scan] = ()
    channels: Sequence[int] = ()


def usual_size(model: Model, recipe: Recipe) -> tuple[int, int, int]:
    """Edges of a volume in voxels unless others are asked for: the model's patch, and room for its jitter."""
    x, y, z = (edge + recipe.jitter for edge in model.patch)
    return x, y, z


class Start(NamedTuple):
    """What a volume starts from: image (x, y, z) on the [-1, 1] scale, and the anatomy that is asked for.

    ``unwarped``: the channels of the scan at that place before it was warped, where it is one.
    """

    image: np.ndarray
    anatomy: Anatomy
    unwarped: np.ndarray | None = None


def draw_start(model: Model, memory: Memory, request: Request, number: int) -> Start:
    """What volume ``number`` starts from; it lies around an organ, and organs take turns.

    Raises:
        InputError: the recipe needs scans and there are none.
    """
    generator = np.random.default_rng([request.seed, number])
    asked = request.channels or range(1, model.classes)
    turn = asked[number % len(asked)]
    if request.recipe.start == "grounded":
        return _grounded(model, memory, request, turn, generator)
    spacing, mirror = model.preprocessing.spacing, model.organs.mirror_channels()
    whole = memory.bank.sample(generator, request.manipulation, mirror, None, spacing, turn)
    anatomy = draw_crop(whole, request.size, generator, turn).anatomy(whole)
    if request.recipe.start == "noise":
        return Start(generator.standard_normal(request.size, dtype=np.float32), anatomy)
    return Start(paint(anatomy, memory.intensities, generator), anatomy)


def _grounded(model: Model, memory: Memory, request: Request, turn: int, generator: np.random.Generator) -> Start:
    """A scan with the organs that its field of view lacks painted in, all of it warped by the mask manipulation.

    Scans are drawn until there is one that shows the organ whose turn it is, or has room for it beyond its end.
    """
    if not request.scans:
        raise InputError(f"The recipe '{request.recipe.name}' starts from current scans: there are none.")
    spacing = model.preprocessing.spacing
    lender = memory.bank.anatomy(memory.bank.draw(generator, turn), spacing)
    for drawn in generator.permutation(len(request.scans)):
        hu, channels = request.scans[drawn]
        seen = Anatomy.of(hu, channels, spacing)
        whole, grown = completed(seen, lender, spacing)
        if turn in whole.channels:
            break
    pad = [(0, 0), (0, 0), grown]
    before = Anatomy(*(np.pad(part, pad, mode="edge") for part in (seen.organs, seen.tissue)))
    image = np.pad(model.preprocessing.normalise(hu), pad, mode="edge")
    changed = classes_of(whole) != classes_of(before)
    if changed.any():
        share = ndimage.gaussian_filter(changed.astype(np.float32), 0.7)
        image = image + share * (paint(whole, memory.intensities, generator) - image)
    warp = draw_warp(whole, spacing, request.manipulation, generator, model.organs.mirror_channels())
    asked = warp.anatomy(whole)
    crop = draw_crop(asked, request.size, generator, turn)
    start = crop.array(warp.image(image), -1.0).astype(np.float32)
    return Start(start, crop.anatomy(asked), crop.array(np.pad(channels, pad), 0))
