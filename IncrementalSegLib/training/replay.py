"""Replay: synthetic volumes of the old model, kept in the job and trained on beside the real scans (method §5)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..events import Reporter
from ..inversion.anatomy import PIECE, largest_pieces
from ..inversion.bank import MaskBank
from ..inversion.export import MARK, in_hu, plot_synthetic
from ..inversion.memory import Memory, Scan, recall
from ..inversion.quality import Synthetic
from ..inversion.recipes import Recipe, recipe_named
from ..inversion.samples import synthesize
from ..inversion.starts import Request, usual_size
from ..models.checkpoint import load_state, save_state
from ..models.package import Model
from ..storage import write_json
from .patches import CachedCase, organ_points, save_array
from .strategies import Strategy

VOLUMES = 16  # of every recipe
IN_VIEW = 0.5  # share of an organ's usual volume that the step's scans show in the mean, so that it needs no replay


@dataclass(frozen=True)
class Replay:
    """Replays the old organs of ``model``, all or those out of view, in a step that learns ``new`` organs.

    The volumes are kept in ``folder`` under a hash of the model, the recipe with its scans and seed, and the student's
    where it competes, and made again only when those change. ``scans`` are the step's own: HU and the old model's
    predictions.
    """

    model: Model
    new: int
    scans: Sequence[Scan]
    strategy: Strategy
    folder: Path
    seed: int
    device: torch.device
    reporter: Reporter

    @cached_property
    def memory(self) -> Memory:
        """What the model is inverted with; memory or, without one, the step's scans.

        Raises:
            InputError: the model remembers no anatomy and none can be had.
        """
        return recall(self.model, lambda: self.scans)

    @cached_property
    def channels(self) -> list[int]:
        """The organs that are replayed."""
        if not self.strategy.replay:
            return []
        every = list(range(1, self.model.classes))
        if self.strategy.replay_all:
            return every
        if "masks" not in self.model.memory:  # nobody knows how large its organs are
            return []
        shown = visible(self.scans, self.memory.bank, self.model)
        return [channel for channel in every if shown.get(channel, 1.0) < IN_VIEW]

    def cases(self, student: nn.Module | None = None) -> list[CachedCase]:
        """Synthetic volumes as cases in which nothing is annotated: their labels of old organs are pseudo-labels.

        What the old model calls background there may be a new organ, or an old one that it does not see. With a
        ``student`` they are volumes on which it and the old model disagree, of the recipes that have it compete.

        Raises:
            InputError: see `memory`.  Cancelled: resume with the same arguments.
        """
        cases: list[CachedCase] = []
        if self.channels and not self.strategy.replay_all and student is None:
            names = ", ".join(self.model.organs.names[channel - 1] for channel in self.channels)
            self.reporter.message(f"The new scans show little of {names}: synthetic CT of it is replayed.")
        for recipe in map(recipe_named, self.strategy.recipes if self.channels else ()):
            if student is None or recipe.competition:
                place = self._place(recipe, student)
                cases += [self._opened(path) for path in sorted(place.glob("synthetic_*_image.npy"))]
        if self.channels and not cases and student is None:
            self.reporter.message(
                "The model sees none of its organs in its synthetic volumes: nothing is replayed.", "warning"
            )
        return cases

    def _place(self, recipe: Recipe, student: nn.Module | None) -> Path:
        """The folder with the recipe's volumes; they are made where it is not finished."""
        seed = self.seed if student is None else self.seed + 1_000_003
        size = usual_size(self.model, recipe)
        request = Request(recipe, VOLUMES, size, seed, scans=self.scans, channels=self.channels)
        place = self.folder / f"{recipe.name}-{_key(self.model, request, student)}"
        if not (place / "done.json").exists():
            samples = synthesize(self.model, self.memory, request, self.device, self.reporter, student)
            facts = {"statistics": self.memory.statistics.source, "student": student is not None}
            _store(samples, self.model, request, facts, place)
        return place

    def _opened(self, path: Path) -> CachedCase:
        image = np.load(path, mmap_mode="r")
        target = np.load(path.with_name(path.name.replace("_image", "_target")), mmap_mode="r")
        annotated = np.arange(self.model.classes + self.new) == 0
        points = organ_points(np.asarray(target))
        wanted = {channel: points[channel] for channel in points if channel in self.channels}
        return CachedCase(path.stem, image, target, annotated, wanted)


def visible(scans: Sequence[Scan], bank: MaskBank, model: Model) -> dict[int, float]:
    """Share of every old organ's usual volume that scans show in the mean, 1 at most, by channel (our formulation).

    The usual volume is the mean over the bank's anatomies with the organ; a prediction counts by its large pieces.
    """
    usual = np.stack([np.bincount(one.organs.ravel(), minlength=256) for one in bank.anatomies]) * np.prod(bank.spacing)
    shares = {}
    for channel in range(1, model.classes):
        if not usual[:, channel].any():
            continue
        whole = usual[:, channel][usual[:, channel] > 0].mean() / np.prod(model.preprocessing.spacing)
        pieces = [largest_pieces(seen == channel, PIECE).sum() if (seen == channel).any() else 0 for _, seen in scans]
        shares[channel] = float(np.mean([min(1.0, piece / whole) for piece in pieces]))
    return shares


def frozen_copy(network: nn.Module, path: Path) -> nn.Module:
    """The network as it was when it first came here, frozen; its weights are kept at ``path`` for a resumed run."""
    if not path.exists():
        save_state(path, network.state_dict())
    copy = deepcopy(network)
    copy.load_state_dict(load_state(path))
    return copy.eval().requires_grad_(False)


def _key(model: Model, request: Request, student: nn.Module | None) -> str:
    recipe = request.recipe
    needed = request.scans if recipe.start == "grounded" or "masks" not in model.memory else ()
    seen = [hashlib.sha256(hu.tobytes()).hexdigest() for hu, _ in needed]
    settings = [
        model.hash,
        asdict(recipe),
        request.count,
        request.size,
        request.seed,
        asdict(request.manipulation),
        list(request.channels),
        seen,
        student and weights_hash(student),
    ]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of all weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _store(samples: Sequence[Synthetic], model: Model, request: Request, facts: dict[str, Any], place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)  # what an interrupted run left
    place.mkdir(parents=True)
    replayed = [sample for sample in samples if any(sample.kept(channel) for channel in request.channels)]
    for number, sample in enumerate(replayed):
        save_array(place / f"synthetic_{number:03}_image.npy", in_hu(sample.image, model.preprocessing.window))
        save_array(place / f"synthetic_{number:03}_target.npy", sample.target(model.classes - 1))
    if replayed and find_spec("matplotlib"):
        plot_synthetic(replayed, model, place / "contact_sheet.png")
    asked = {o.key: sum(bool((s.requested == c).any()) for s in samples) for c, o in enumerate(model.organs, 1)}
    kept = {o.key: sum(s.kept(c) for s in samples) for c, o in enumerate(model.organs, 1)}
    organs = {"requested": asked, "kept": kept}
    volumes = {"volumes": len(samples), "replayed": len(replayed)}
    write_json(place / "done.json", {"notice": MARK, "recipe": request.recipe.name, **volumes, **organs, **facts})


def replay_summary(folder: Path, organs: Collection[str]) -> dict[str, Any]:
    """What the report says of replay: number of volumes, source of the feature statistics, organs kept and dropped.

    ``organs`` are the names of those that were replayed.
    """
    made = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/done.json"))]
    requested, kept = (sum(sum(one[part].values()) for one in made) for part in ("requested", "kept"))
    volumes, replayed = (sum(one[part] for one in made) for part in ("volumes", "replayed"))
    counts = {"requested": requested, "kept": kept, "dropped": requested - kept}
    source = ", ".join(sorted({one["statistics"] for one in made}))
    return {"organs": list(organs), "volumes": volumes, "replayed": replayed, **counts, "statistics": source}
