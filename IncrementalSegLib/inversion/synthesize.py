"""MOSInversion: voxels are optimised until the frozen model sees the requested organs and its statistics fit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import IncrementalSegError
from ..losses.unbiased import UnbiasedSegmentationLoss
from ..models.networks import out_of_memory, place
from ..training.loop import Precision
from .canvas import Canvas, total_variation
from .recipes import Recipe
from .statistics import FeatureStatistics, feature_distance, published_distance, watch

Corner = tuple[int, int, int]
Listener = Callable[[int, dict[str, float], Callable[[], Tensor]], None]


@dataclass
class Inverter:
    """What an inversion needs besides its masks: the frozen model, its statistics, a recipe, a place to run.

    ``student``: the network of the running step, for the competition term. ``batch``: windows seen at once,
    fewer where the device has too little memory for them.
    """

    teacher: nn.Module
    statistics: FeatureStatistics
    recipe: Recipe
    patch: tuple[int, int, int]
    device: torch.device
    student: nn.Module | None = None
    batch: int = 4

    def run(
        self,
        start: Tensor,
        masks: Tensor,
        body: Tensor | None,
        generator: np.random.Generator,
        listener: Listener = lambda iteration, parts, images: None,
    ) -> Tensor:
        """Images (N, 1, x, y, z) for masks (N, x, y, z) of channels, from ``start`` (N, 1, x, y, z).

        ``body`` (N, 1, x, y, z) is where our recipes may change voxels. Every iteration visits all windows of all
        volumes once and then moves the voxels; ``listener`` hears the iteration, the parts of its loss and a function
        that gives the images as they stand, and may raise to stop.
        """
        recipe = self.recipe
        teacher = place(self.teacher, self.device).eval().requires_grad_(False)
        canvas = Canvas(start.to(self.device), None if body is None else body.to(self.device), recipe.levels)
        canvas.to(self.device)
        masks = masks.to(self.device)
        optimizer = torch.optim.Adam(canvas.parameters(), recipe.learning_rate)
        with watch(teacher, self.statistics) as seen:
            for iteration in range(recipe.iterations):
                if recipe.levels:
                    optimizer.param_groups[0]["lr"] = recipe.learning_rate * _cosine(iteration / recipe.iterations)
                windows, parts = list(self._windows(tuple(masks.shape), generator)), None
                while parts is None:
                    optimizer.zero_grad(set_to_none=True)
                    parts = self._visit(canvas, masks, teacher, seen, windows)
                optimizer.step()
                listener(iteration + 1, parts, canvas.images)
        return canvas.images().cpu()

    def _visit(
        self,
        canvas: Canvas,
        masks: Tensor,
        teacher: nn.Module,
        seen: dict[str, tuple[Tensor, Tensor]],
        windows: Sequence[tuple[int, Corner]],
    ) -> dict[str, float] | None:
        """Accumulate the gradient over all windows; returns the parts of the loss, weighted.

        None where they are too many at once for the device: from now on they are half as many.
        """
        try:
            return self._visited(canvas, masks, teacher, seen, windows)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        if self.batch == 1:
            raise IncrementalSegError("The device has too little memory for synthetic volumes: use --device cpu.")
        self.batch //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _visited(
        self,
        canvas: Canvas,
        masks: Tensor,
        teacher: nn.Module,
        seen: dict[str, tuple[Tensor, Tensor]],
        windows: Sequence[tuple[int, Corner]],
    ) -> dict[str, float]:
        totals: dict[str, float] = {}
        for first in range(0, len(windows), self.batch):
            chosen = windows[first : first + self.batch]
            share = len(chosen) / len(windows)
            parts = self._energy(canvas, masks, teacher, seen, chosen)
            (share * torch.stack(list(parts.values())).sum()).backward()
            for name, value in parts.items():
                totals[name] = totals.get(name, 0.0) + share * float(value.detach())
        return totals

    def _windows(self, shape: tuple[int, ...], generator: np.random.Generator) -> Iterator[tuple[int, Corner]]:
        """Volume and corner of windows that cover every volume, shifted by a random jitter."""
        for number in range(shape[0]):
            axes = [
                _starts(n, edge, self.recipe.jitter, generator) for n, edge in zip(shape[1:], self.patch, strict=True)
            ]
            for corner in itertools.product(*axes):
                yield number, (corner[0], corner[1], corner[2])

    def _precision(self) -> Precision:
        """Without a gradient scaler float16 would lose a voxel's gradient, which is about one over their number."""
        half = "auto"
        if self.device.type == "cuda":  # older ones have no bfloat16 of their own, and torch emulates it slowly
            half = "bfloat16" if torch.cuda.get_device_capability(self.device)[0] >= 8 else "float32"
        return Precision(half if self.recipe.half else "float32", self.device)

    def _energy(
        self,
        canvas: Canvas,
        masks: Tensor,
        teacher: nn.Module,
        seen: dict[str, tuple[Tensor, Tensor]],
        windows: Sequence[tuple[int, Corner]],
    ) -> dict[str, Tensor]:
        recipe = self.recipe
        image = torch.cat([canvas.window(number, corner, self.patch) for number, corner in windows])
        target = torch.stack([masks[number][_box(corner, self.patch)] for number, corner in windows]).long()
        precision = self._precision()
        with precision.autocast():
            logits = teacher(image).float()
        hidden = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
        distance = published_distance if recipe.published_distance else feature_distance
        parts = {
            "mask": recipe.mask * UnbiasedSegmentationLoss()(logits, target, hidden),
            "features": recipe.statistics * distance(seen, self.statistics),
        }
        if recipe.variation:
            parts["tv"] = recipe.variation * total_variation(image)
        if recipe.size:
            parts["size"] = recipe.size * image.square().mean()
        if recipe.competition and self.student is not None:
            with precision.autocast():
                theirs = self.student(image).float()
            parts["agreement"] = recipe.competition * (1 - jensen_shannon(logits, theirs))
        return parts


def jensen_shannon(old: Tensor, new: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence, in [0, 1], of logits (B, 1 + K, …) and (B, 1 + K + N, …) with N folded away.

    The competition of DeepInversion (Yin et al. 2020, §3.3) with new organs counted as background (our formulation).
    """
    log_q, log_p = old.log_softmax(1), new.log_softmax(1)
    known = old.shape[1]
    background = torch.cat([log_p[:, :1], log_p[:, known:]], 1).logsumexp(1, keepdim=True)
    log_p = torch.cat([background, log_p[:, 1:known]], 1)
    log_m = torch.logaddexp(log_q, log_p) - math.log(2)
    both = (log_q.exp() * (log_q - log_m)).sum(1) + (log_p.exp() * (log_p - log_m)).sum(1)
    return both.mean() / (2 * math.log(2))


def _box(corner: Corner, size: Sequence[int]) -> tuple[slice, slice, slice]:
    x, y, z = (slice(a, a + n) for a, n in zip(corner, size, strict=True))
    return x, y, z


def _starts(length: int, edge: int, jitter: int, generator: np.random.Generator) -> list[int]:
    """First voxels of windows of ``edge`` voxels along an axis: one anywhere, or as many as cover it, all shifted."""
    free = length - edge
    if free <= jitter:
        return [int(generator.integers(0, free + 1))]
    count, shift = -(-length // edge), generator.integers(-(jitter // 2), jitter // 2 + 1)
    return sorted({min(free, max(0, round(i * free / (count - 1)) + int(shift))) for i in range(count)})


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))
