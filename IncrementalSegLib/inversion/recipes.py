"""Recipes: how an image is synthesised, the published way and ours, as configurations of one loop (method §5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError


@dataclass(frozen=True)
class Recipe:
    """Start, length and weights of a synthesis.

    ``start``: ``noise`` (standard normal), ``painted`` (an anatomy in HU) or ``grounded`` (a warped scan).
    ``levels``: voxels per node of the correction grids, none for free voxels. ``mask``, ``statistics``, ``variation``,
    ``size``, ``competition``: weights of Dice + CE against the mask, the feature distance, total variation, the mean
    square of the change (of the image itself with free voxels), and agreement with the current student.
    ``published_distance``: the published recipe's own form of the feature distance. ``jitter``: largest shift of a
    window between two iterations, voxels. ``half``: mixed precision where the device has it.
    """

    name: str
    summary: str
    iterations: int
    learning_rate: float
    start: Literal["noise", "painted", "grounded"]
    levels: tuple[int, ...] = (8, 4, 2, 1)
    mask: float = 10.0
    statistics: float = 1.0
    variation: float = 0.0
    size: float = 0.0
    competition: float = 0.0
    published_distance: bool = False
    jitter: int = 8
    half: bool = True


_ALL = [
    Recipe(
        "reference",
        "the published recipe: noise, free voxels, 2,000 iterations of Adam 0.1",
        2000,
        0.1,
        "noise",
        levels=(),
        variation=2.5e-5,
        published_distance=True,
        jitter=0,
        half=False,
    ),
    Recipe("fast", "an anatomy painted in HU, corrected from coarse to fine", 60, 0.03, "painted", competition=10.0),
    Recipe("grounded", "a new scan warped by the mask manipulation, then repaired", 40, 0.02, "grounded"),
]
RECIPES = {recipe.name: recipe for recipe in _ALL}


def recipe_named(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"Recipe '{name}' is not known: choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
