"""How long a recipe needs for what the published recipe ends at: Dice and feature distance over seconds, same masks.

``python -m IncrementalSegLib.benchmarks.inversion --model MODEL --out build/inversion``

All recipes get the same requested anatomies, in volumes of the model's patch. The clock stands still while a start is
drawn and quality is measured. Recipes that are finished are not run again; the table, CSV and figure hold all that were
run on the same model, masks and device.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cancel import cancel_on_signals
from ..errors import InputError
from ..evaluation import dice
from ..events import Reporter, for_people
from ..figures import plot_quality_curves
from ..inversion.anatomy import AIR
from ..inversion.memory import Memory, recall
from ..inversion.recipes import RECIPES, Recipe, recipe_named
from ..inversion.starts import Request, draw_start
from ..inversion.statistics import feature_distance, watch
from ..inversion.synthesize import Inverter
from ..models.networks import device_named
from ..models.package import Model, load_model
from ..report import csv_text, decimals, markdown_table, rounded_row
from ..storage import write_json, write_text
from .command import execute, parser_of

YARDSTICK = "reference"
GOOD = 0.95


@dataclass(frozen=True)
class Point:
    """Quality after an iteration: mean DSC over organs and volumes against the requested masks, and R of method §5."""

    iteration: int
    seconds: float
    dice: float
    feature_distance: float


Curve = list[Point]


def quality(model: Model, memory: Memory, images: Tensor, masks: np.ndarray) -> tuple[float, float]:
    """Mean DSC of the model's answer against masks (N, x, y, z), and R of all images (N, 1, x, y, z) as one batch."""
    with torch.inference_mode(), watch(model.network, memory.statistics) as seen:
        predicted = model.network(images).argmax(1).cpu().numpy()
        distance = float(feature_distance(seen, memory.statistics))
    organs = [(number, c) for number, mask in enumerate(masks) for c in np.unique(mask[mask > 0])]
    scores = [dice(masks[number] == c, predicted[number] == c) or 0.0 for number, c in organs]
    return float(np.mean(scores)), distance


def curve(
    model: Model, memory: Memory, recipe: Recipe, count: int, seed: int, device: torch.device, reporter: Reporter
) -> Curve:
    """Quality of ``count`` volumes over the seconds of an inversion.

    Raises:
        InputError: the recipe starts from scans.  Cancelled: by the reporter.
    """
    if recipe.start == "grounded":
        raise InputError(f"Recipe '{recipe.name}' starts from scans: here all recipes share masks without a scan.")
    request = Request(recipe, count, model.patch, seed)
    starts = [draw_start(model, memory, request, number) for number in range(count)]
    images = torch.from_numpy(np.stack([start.image for start in starts]))[:, None]
    masks = np.stack([start.anatomy.organs for start in starts])
    body = torch.from_numpy(np.stack([start.anatomy.tissue != AIR for start in starts]))[:, None]
    points = [Point(0, 0.0, *quality(model, memory, images.to(device), masks))]
    looked_at, clock = _looked_at(recipe.iterations), _Clock(device)

    def listen(iteration: int, parts: dict[str, float], current: Callable[[], Tensor]) -> None:
        if iteration in looked_at:
            seconds = clock.stop()
            points.append(Point(iteration, seconds, *quality(model, memory, current(), masks)))
            clock.go()
        reporter.progress(recipe.name, iteration, recipe.iterations, parts)

    inverter = Inverter(model.network, memory.statistics, recipe, model.patch, device, batch=count)
    clock.go()
    inverter.run(images, torch.from_numpy(masks.astype(np.int64)), body, np.random.default_rng(seed), listen)
    return points


def _looked_at(iterations: int) -> set[int]:
    """Every second iteration of a short run, ever fewer of a long one, and the last."""
    return {round(step) for step in np.geomspace(1, iterations, 40)} | set(range(2, min(iterations, 100) + 1, 2))


class _Clock:
    """Seconds of work, without the pauses."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self.since = device, 0.0, 0.0

    def go(self) -> None:
        self._wait()
        self.since = time.perf_counter()

    def stop(self) -> float:
        self._wait()
        self.seconds += time.perf_counter() - self.since
        return self.seconds

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def reached(points: Curve, goal: Point) -> Point | None:
    """The first point behind the start that is as good as the goal in both DSC and R."""
    good = (p for p in points[1:] if p.dice >= goal.dice and p.feature_distance <= goal.feature_distance)
    return next(good, None)


def speed_table(curves: Mapping[str, Curve]) -> str:
    """Markdown: what every recipe ends at, and how soon it is where the published recipe ends.

    The second goal asks for a DSC of `GOOD` only: free voxels can fit any mask to the voxel, which is no better image.
    Ratios are those of seconds against the published recipe's own first point that is as good.
    """
    yardstick = curves.get(YARDSTICK, [])
    goals = [yardstick[-1], replace(yardstick[-1], dice=min(GOOD, yardstick[-1].dice))] if yardstick else []
    rows = []
    for name, points in curves.items():
        end = points[-1]
        ends = [str(end.iteration), decimals(end.seconds, 1), decimals(end.dice, 3), decimals(end.feature_distance, 3)]
        rows.append([name, *ends, *(_arrival(points, yardstick, goal) for goal in goals)])
    heads = [f"DSC and R of {YARDSTICK}", f"DSC {GOOD} and R of {YARDSTICK}"][: len(goals)]
    return markdown_table(["Recipe", "Iterations", "Seconds", "DSC", "R", *heads], rows)


def _arrival(points: Curve, yardstick: Curve, goal: Point) -> str:
    here, there = reached(points, goal), reached(yardstick, goal)
    if here is None or there is None:
        return "not reached"
    return f"{here.seconds:.1f} s (iteration {here.iteration}): {there.seconds / here.seconds:.0f}×"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the table and writes CSV, Markdown and figure."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="package folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for curves and results")
    shared = [name for name, recipe in RECIPES.items() if recipe.start != "grounded"]
    parser.add_argument("--recipes", nargs="+", default=shared, choices=shared, metavar="NAME", help=", ".join(shared))
    parser.add_argument("--count", type=int, default=4, help="volumes (%(default)s)")
    return execute(parser, arguments, _run)


def _run(options: argparse.Namespace) -> str:
    model, device = load_model(options.model), device_named(options.device)
    memory, reporter = recall(model), Reporter(for_people(), cancelled=cancel_on_signals())
    memory = Memory(memory.statistics.to(device), memory.intensities, memory.bank)
    model.network.to(device)
    settings = {"model": model.hash, "count": options.count, "seed": options.seed, "device": str(device)}
    for recipe in map(recipe_named, options.recipes):
        if recipe.name not in read_curves(options.out, settings):
            points = curve(model, memory, recipe, options.count, options.seed, device, reporter)
            content = {"settings": settings, "recipe": asdict(recipe), "points": [asdict(point) for point in points]}
            write_json(options.out / f"{recipe.name}.json", content)
    curves = read_curves(options.out, settings)
    rows = [{"recipe": name, **rounded_row(asdict(point))} for name, points in curves.items() for point in points]
    write_text(options.out / "inversion.csv", csv_text(list(rows[0]), rows))
    table = speed_table(curves)
    write_text(options.out / "inversion.md", table + "\n")
    series = {name: [(p.seconds, p.dice, p.feature_distance) for p in points] for name, points in curves.items()}
    plot_quality_curves(series, YARDSTICK, options.out / "inversion.png")
    return table


def read_curves(folder: Path, settings: Mapping[str, Any]) -> dict[str, Curve]:
    """The curves of all recipes that were finished as they are now on this model, masks and device (``settings``)."""
    curves = {}
    for name, recipe in RECIPES.items():
        path = folder / f"{name}.json"
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if content.get("settings") == settings and content["recipe"] == json.loads(json.dumps(asdict(recipe))):
            curves[name] = [Point(**point) for point in content["points"]]
    return curves


if __name__ == "__main__":
    sys.exit(main())
