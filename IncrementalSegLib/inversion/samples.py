"""A set of synthetic volumes: anatomies are drawn, painted or warped from scans, inverted, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from ..events import Reporter
from ..inference import probabilities
from ..models.networks import out_of_memory, place
from ..models.package import Model
from .anatomy import AIR
from .memory import Memory
from .quality import Synthetic
from .starts import Request, Start, draw_start
from .statistics import FeatureStatistics, distance_per_layer, watch
from .synthesize import Inverter

BATCH = 4


def synthesize(
    model: Model,
    memory: Memory,
    request: Request,
    device: torch.device,
    reporter: Reporter,
    student: nn.Module | None = None,
) -> list[Synthetic]:
    """Synthetic volumes of the model, `BATCH` at a time; each batch is a function of seed and its place.

    Raises:
        InputError: the recipe needs scans and there are none.  Cancelled: between two iterations.
    """
    inverter = Inverter(
        model.network, memory.statistics.to(device), request.recipe, model.patch, device, student, BATCH
    )
    samples: list[Synthetic] = []
    while len(samples) < request.count:
        numbers = range(len(samples), min(len(samples) + BATCH, request.count))
        starts = [draw_start(model, memory, request, number) for number in numbers]
        samples += _invert(inverter, model, starts, request, reporter, len(samples))
    return samples


def _invert(
    inverter: Inverter,
    model: Model,
    starts: Sequence[Start],
    request: Request,
    reporter: Reporter,
    done: int,
) -> list[Synthetic]:
    images = torch.from_numpy(np.stack([start.image for start in starts]))[:, None]
    masks = torch.from_numpy(np.stack([start.anatomy.organs for start in starts]).astype(np.int64))
    body = torch.from_numpy(np.stack([start.anatomy.tissue != AIR for start in starts]))[:, None]
    iterations, total = request.recipe.iterations, request.recipe.iterations * -(-request.count // BATCH)

    def listen(iteration: int, parts: dict[str, float], images: object) -> None:
        reporter.progress("synthesize", done // BATCH * iterations + iteration, total, parts)

    generator = np.random.default_rng([request.seed, done, 1])
    finished = inverter.run(images, masks, body, generator, listen).clamp(-1, 1)
    return [_judged(inverter, model, image[0], start, reporter) for image, start in zip(finished, starts, strict=True)]


def _judged(inverter: Inverter, model: Model, image: torch.Tensor, start: Start, reporter: Reporter) -> Synthetic:
    network, device = model.network, inverter.device
    warn = partial(reporter.message, level="warning")
    q = probabilities(network.eval(), image, model.patch, device, reporter.check, warn)
    window = tuple(slice((n - e) // 2, (n - e) // 2 + e) for n, e in zip(image.shape, model.patch, strict=True))
    try:
        layers = _layers(network, image[window], inverter.statistics, device)
    except RuntimeError as error:
        if device.type == "cpu" or not out_of_memory(error):
            raise
        layers = {}
    layers = layers or _layers(network, image[window], inverter.statistics, torch.device("cpu"))
    predicted = q.argmax(0).to(torch.uint8).numpy()
    return Synthetic(image.numpy(), start.anatomy.organs, predicted, layers, start.unwarped)


def _layers(
    network: nn.Module, patch: torch.Tensor, statistics: FeatureStatistics, device: torch.device
) -> dict[str, float]:
    """Feature distance per layer of one patch (x, y, z); predictions may have left the network on the CPU."""
    statistics = statistics.to(device)
    with torch.inference_mode(), watch(place(network, device), statistics) as seen:
        network(patch[None, None].to(device))
        return distance_per_layer(seen, statistics)
