"""What PGCD and DAPD cost: time of a training step with both, against plain unbiased distillation.

``python -m IncrementalSegLib.benchmarks.overhead --out build/overhead``

Steps of both strategies alternate in one process on the same random patches; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from ..models.networks import NetworkSpec, build_network, device_named, freeze_statistics, place
from ..models.widen import widen
from ..prototypes import Prototypes, RunningPrototypes
from ..report import csv_text, markdown_table
from ..storage import write_text
from ..training.guidance import Guidance
from ..training.loop import Precision
from ..training.objectives import IncrementalObjective
from ..training.patches import Batch
from ..training.strategies import Strategy, strategy_named
from .command import execute, parser_of

COLUMNS = (
    *("task", "alternative", "ours_s", "alternative_s", "ratio"),
    *("ours_peak_mb", "alternative_peak_mb", "agreement", "machine"),
)
_OLD, _CLASSES = 5, 9


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the table and writes ``speed.csv``."""
    parser = parser_of(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--ours", default="pgcd-dapd", help="strategy (%(default)s)")
    parser.add_argument("--alternative", default="mib", help="strategy that it is compared with (%(default)s)")
    parser.add_argument("--network", default="UNet")
    parser.add_argument("--patch", type=int, default=64, help="edge of the two patches of a step, voxels")
    parser.add_argument("--repetitions", type=int, default=20)
    return execute(parser, arguments, _run)


def _run(options: argparse.Namespace) -> str:
    device, spec = device_named(options.device), NetworkSpec.preset(options.network)
    names = (options.ours, options.alternative)
    steps = [_stepper(strategy_named(name), spec, device, options.seed) for name in names]
    seconds: list[list[float]] = [[], []]
    for number in range(options.repetitions + 1):
        batch = _batch(options.patch, options.seed + number).to(device)
        for times, step in zip(seconds, steps, strict=True):
            began = time.perf_counter()
            step(batch)
            times.append(time.perf_counter() - began)
    ours, other = (median(times[1:]) for times in seconds)  # the first is warm-up
    row = {"task": f"training step, {options.ours}", "alternative": options.alternative, "ours_s": round(ours, 3)}
    row |= {"alternative_s": round(other, 3), "ratio": round(ours / other, 3), "agreement": None}
    row |= {"ours_peak_mb": None, "alternative_peak_mb": None}  # both share one process
    row |= {"machine": f"{platform.machine()} {device.type}, {torch.get_num_threads()} threads"}
    write_text(options.out / "speed.csv", csv_text(COLUMNS, [row]))
    measured = {column: str(value) for column, value in row.items() if value is not None}
    return markdown_table(list(measured), [list(measured.values())])


def _stepper(strategy: Strategy, spec: NetworkSpec, device: torch.device, seed: int) -> Callable[[Batch], None]:
    """One training step of this strategy: forward passes, losses, backward pass."""
    torch.manual_seed(seed)
    teacher = place(build_network(spec, _OLD), device).eval()
    student = place(widen(lambda n: build_network(spec, n), teacher.cpu().state_dict(), _OLD, _CLASSES), device).train()
    place(teacher, device)
    freeze_statistics(student)
    drawn = torch.rand(2, _OLD, spec.features)
    running = RunningPrototypes(Prototypes(drawn[0], drawn[1], torch.ones(_OLD, dtype=torch.long)))
    guidance = Guidance(strategy, running).to(device) if strategy.guided else None
    objective = IncrementalObjective(teacher, strategy, _OLD, _CLASSES, guidance=guidance)
    precision = Precision("auto", device)

    def step(batch: Batch) -> None:
        with precision.autocast():
            parts = objective(student, batch)
        torch.stack(list(parts.values())).sum().backward()
        student.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def _batch(edge: int, seed: int) -> Batch:
    """Two random patches in which a new organ is a ball."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 1, edge, edge, edge, generator=generator).clamp(-1, 1)
    axis = torch.linspace(-1, 1, edge)
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < 0.2
    annotated = torch.arange(_CLASSES).expand(2, -1) >= _OLD
    annotated = annotated | (torch.arange(_CLASSES) == 0)
    return Batch(image, image, (ball * _OLD).long().expand(2, -1, -1, -1).clone(), annotated)


if __name__ == "__main__":
    sys.exit(main())
