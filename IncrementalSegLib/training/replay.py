"""Replay: synthetic volumes of the old model, made once per job and trained on beside the real scans (method §5)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..events import Reporter
from ..inversion.export import MARK, in_hu
from ..inversion.memory import Scan, recall
from ..inversion.quality import Synthetic
from ..inversion.recipes import Recipe, recipe_named
from ..inversion.samples import MARGIN, Request, synthesize
from ..models.package import Model
from ..storage import write_json
from .patches import CachedCase, organ_points, save_array
from .strategies import Strategy

VOLUMES = 16  # of every recipe


def replay_cases(
    model: Model,
    new: int,
    scans: Sequence[Scan],
    strategy: Strategy,
    folder: Path,
    seed: int,
    device: torch.device,
    reporter: Reporter,
) -> list[CachedCase]:
    """Synthetic volumes as cases in which nothing is annotated: their labels of old organs are pseudo-labels.

    What the old model calls background there may be one of the ``new`` organs, or an old one that it does not see. The
    volumes are kept in ``folder`` under a hash of the model, the recipe and the seed, and made again only when those
    change. ``scans`` are the step's own: HU and the old model's predictions.

    Raises:
        InputError: the model remembers no anatomy and none can be had.  Cancelled: resume with the same arguments.
    """
    cases = []
    for name in strategy.recipes if strategy.replay else ():
        recipe = recipe_named(name)
        edges = model.patch[0] + MARGIN, model.patch[1] + MARGIN, model.patch[2] + MARGIN
        request = Request(recipe, VOLUMES, edges, seed, scans=scans)
        place = folder / f"{name}-{_key(model, recipe, request)}"
        if not (place / "done.json").exists():
            memory = recall(model, lambda: scans)
            samples = synthesize(model, memory, request, device, reporter)
            _store(samples, model, recipe, memory.statistics.source, place)
        cases += [_opened(path, model.classes + new) for path in sorted(place.glob("synthetic_*_image.npy"))]
    if strategy.replay and not cases:
        reporter.message("The model sees none of its organs in its synthetic volumes: nothing is replayed.", "warning")
    return cases


def _key(model: Model, recipe: Recipe, request: Request) -> str:
    seen = [hashlib.sha256(hu.tobytes()).hexdigest() for hu, _ in request.scans if recipe.start == "grounded"]
    settings = [
        model.hash,
        asdict(recipe),
        request.count,
        request.size,
        request.seed,
        asdict(request.manipulation),
        seen,
    ]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def _store(samples: Sequence[Synthetic], model: Model, recipe: Recipe, statistics: str, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    organs = range(1, model.classes)
    for number, sample in enumerate(samples):
        if any(sample.kept(channel) for channel in organs):
            save_array(place / f"synthetic_{number:03}_image.npy", in_hu(sample.image, model.preprocessing.window))
            save_array(place / f"synthetic_{number:03}_target.npy", sample.target(len(organs)))
    asked = {o.key: sum(bool((s.requested == c).any()) for s in samples) for c, o in enumerate(model.organs, 1)}
    kept = {o.key: sum(s.kept(c) for s in samples) for c, o in enumerate(model.organs, 1)}
    replayed = len(list(place.glob("synthetic_*_image.npy")))
    facts = {"volumes": len(samples), "replayed": replayed, "requested": asked, "kept": kept, "statistics": statistics}
    write_json(place / "done.json", {"notice": MARK, "recipe": recipe.name, **facts})


def _opened(path: Path, classes: int) -> CachedCase:
    image = np.load(path, mmap_mode="r")
    target = np.load(path.with_name(path.name.replace("_image", "_target")), mmap_mode="r")
    annotated = np.arange(classes) == 0
    return CachedCase(path.stem, image, target, annotated, organ_points(np.asarray(target)))


def replay_summary(folder: Path) -> dict[str, Any]:
    """What the report says of replay: number of volumes, source of the feature statistics, organs kept and dropped."""
    made = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/done.json"))]
    requested, kept = (sum(sum(one[part].values()) for one in made) for part in ("requested", "kept"))
    volumes, replayed = (sum(one[part] for one in made) for part in ("volumes", "replayed"))
    organs = {"requested": requested, "kept": kept, "dropped": requested - kept}
    source = ", ".join(sorted({one["statistics"] for one in made}))
    return {"volumes": volumes, "replayed": replayed, **organs, "statistics": source}
