"""More anatomies than patients: training scans warped so that organs change their size, shape and place.

Organs of the few scans a model is trained on are seldom as large, small or displaced as those of the next patient. The
warps are those that manipulate masks for inversion; here they take the CT with them (our formulation).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..events import Reporter
from ..inversion.anatomy import Anatomy
from ..inversion.manipulation import Manipulation, draw_warp
from ..storage import write_json
from .patches import CachedCase, organ_points, save_array

RESHAPING = Manipulation((5.0, 5.0, 10.0), 0.0, (0.9, 1.1), organ_scale=(0.5, 2.0), organ_shift=15.0, elastic=4.0)

Spacing = tuple[float, float, float]


def with_reshaped(
    cases: Sequence[CachedCase],
    count: int,
    spacing: Spacing,
    folder: Path,
    seed: int,
    reporter: Reporter,
    anatomies: Sequence[np.ndarray] | None = None,
) -> list[CachedCase]:
    """The cases and ``count`` warped copies of each, kept under ``folder``; the same seed gives the same copies.

    ``anatomies`` are labels (x, y, z) of all organs that should change their shape, where a case's own annotation does
    not hold them all; the copy's labels are those of its case, moved with the CT.

    Raises:
        InputError: a scan shows no body.  StorageError: a copy cannot be written.
    """
    copies = []
    for number, case in enumerate(cases if count else (), start=1):
        organs = np.asarray(case.target if anatomies is None else anatomies[number - 1])
        copies += _copies(case, organs, spacing, folder, [[seed, number, copy] for copy in range(count)])
        reporter.progress("reshape", number, len(cases))
    return [*cases, *copies]


def _copies(
    case: CachedCase, organs: np.ndarray, spacing: Spacing, folder: Path, seeds: list[list[int]]
) -> list[CachedCase]:
    seen = [hashlib.sha256(labels.tobytes()).hexdigest() for labels in (organs, np.asarray(case.target))]
    recipes = [json.dumps([case.key, seen, seed, asdict(RESHAPING)]) for seed in seeds]
    places = [folder / hashlib.sha256(recipe.encode()).hexdigest()[:16] for recipe in recipes]
    missing = [pair for pair in zip(places, seeds, strict=True) if not (pair[0] / "done.json").exists()]
    if missing:
        anatomy = Anatomy.of(case.image, organs, spacing)
        for place, seed in missing:
            warp = draw_warp(anatomy, spacing, RESHAPING, np.random.default_rng(seed))
            save_array(place / "image.npy", np.rint(warp.image(case.image)).astype(np.int16))
            save_array(place / "target.npy", warp.labels(np.asarray(case.target)))
            write_json(place / "done.json", {"of": case.key})
    return [_opened(case, place) for place in places]


def _opened(case: CachedCase, place: Path) -> CachedCase:
    image, target = (np.load(place / f"{part}.npy", mmap_mode="r") for part in ("image", "target"))
    points = organ_points(np.asarray(target))
    annotated = {channel: points[channel] for channel in points if case.annotated[channel]}
    return CachedCase(place.name, image, target, case.annotated, annotated)
