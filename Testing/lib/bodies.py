"""Anatomies of small made-up patients, and how alike two label maps are."""

from __future__ import annotations

import numpy as np

from IncrementalSegLib.inversion.anatomy import Anatomy
from IncrementalSegLib.phantom import PhantomConfig, make_phantom
from IncrementalSegLib.volumes import to_array

GRID = PhantomConfig((48, 40, 40), (8.0, 8.0, 8.0))


def patient(seed: int) -> Anatomy:
    ct, label = make_phantom(np.random.default_rng(seed), GRID)
    return Anatomy.of(to_array(ct), to_array(label), GRID.spacing)


def only(anatomy: Anatomy, *channels: int) -> Anatomy:
    """The anatomy as if nothing but these organs had been annotated."""
    return Anatomy(np.where(np.isin(anatomy.organs, channels), anatomy.organs, 0).astype(np.uint8), anatomy.tissue)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of whole label maps: voxels with the same organ in both."""
    return float(2 * ((a == b) & (a > 0)).sum() / ((a > 0).sum() + (b > 0).sum()))
