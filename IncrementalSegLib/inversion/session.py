"""The verb ``synthesize``: what is asked for is checked, made, judged and written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cases import Case
from ..errors import InputError
from ..events import Reporter
from ..inference import predict_label_map
from ..models.package import Model
from ..preprocessing import on_model_grid
from ..volumes import to_array
from .export import write_synthetic
from .memory import Scan, recall
from .quality import quality_table
from .recipes import recipe_named
from .samples import synthesize
from .starts import Request, usual_size


def synthesize_to(
    folder: Path, model: Model, cases: Sequence[Case], asked: dict[str, Any], device: torch.device, reporter: Reporter
) -> dict[str, Any]:
    """Make ``asked`` (count, recipe, size, seed) and write it into ``folder``; returns the quality table.

    Raises:
        InputError: the folder is not empty, a number that cannot be, or a recipe without its scans.
    """
    recipe, count = recipe_named(asked["recipe"]), asked["count"]
    edges = tuple(asked["size"] or usual_size(model, recipe))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already holds something: give a new folder.")
    if count < 1 or len(edges) != 3 or any(edge < least for edge, least in zip(edges, model.patch, strict=False)):
        raise InputError(f"{count} volumes of {edges} voxels: ask for 1 or more, of {model.patch} voxels or more.")
    if recipe.start == "grounded" and not cases:
        raise InputError("The recipe 'grounded' starts from current scans: name their folder with --cases.")
    scans = [scan_of(model, case, device, reporter) for case in cases]
    memory = recall(model, (lambda: scans) if scans else None)
    started = time.monotonic()
    request = Request(recipe, count, (edges[0], edges[1], edges[2]), asked["seed"], scans=scans)
    samples = synthesize(model, memory, request, device, reporter)
    low, high = model.preprocessing.window
    quality = {
        "recipe": recipe.name,
        "statistics_source": memory.statistics.source,
        "mask_source": "scans" if recipe.start == "grounded" else memory.bank.source,
        "volumes": count,
        "seconds_per_volume": round((time.monotonic() - started) / count, 2),
        **quality_table(samples, model.organs, memory.intensities, high - low),
    }
    write_synthetic(samples, model, quality, folder)
    return quality


def scan_of(model: Model, case: Case, device: torch.device, reporter: Reporter) -> Scan:
    """A case's CT on the model's grid, HU, and what the model sees in it, as channels; both (x, y, z)."""
    ct, _ = case.read()
    upright = on_model_grid(ct, model.preprocessing)
    values = to_array(predict_label_map(model, upright, device, reporter))
    channels = np.zeros(values.shape, np.uint8)
    for channel, organ in enumerate(model.organs, start=1):
        channels[values == organ.label] = channel
    return to_array(upright), channels
