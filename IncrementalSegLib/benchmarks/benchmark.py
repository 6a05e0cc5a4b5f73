"""A protocol × strategies × seeds → CSV, Markdown tables and figures.

``incrementalseg benchmark --protocol btcv-4-4 --cases DIR --seeds 0 1 --out build/benchmark``

The base model learns the first organs; every later step sees other patients, on whom only that step's organs are
annotated; all models are scored on patients whom nobody trained on. ``--cases`` is a folder in this software's own
layout with a ``split.json``, or a public archive as downloaded (``--cases flare21=DIR kits19=DIR …`` where a protocol
has several). With ``--without Spleen`` the scans of the steps are cut so that the spleen is in none of them. A strategy
such as ``full-without-fusion`` is an ablation. Every run resumes where it stopped, and finished ones are not repeated,
so several processes may share the strategies of one folder: the tables are of all runs that lie in it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..cancel import cancel_on_signals
from ..comparison import write_benchmark_csv, write_case_csv
from ..errors import InputError
from ..events import Reporter, for_people
from ..figures import plot_steps, plot_strategies
from ..models.networks import NetworkSpec
from ..preprocessing import Preprocessing
from ..storage import write_text
from ..training.config import BASE_TRAINING, STEP_TRAINING, TrainingConfig
from ..training.strategies import STRATEGIES, strategy_named
from .command import execute, parser_of
from .protocols import PROTOCOLS, Protocol
from .qualitative import plot_predictions
from .runs import BASE, Benchmark, all_results, keep_to_one_benchmark, run_strategy
from .tables import benchmark_report


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the tables and writes CSV, Markdown and figures."""
    parser = parser_of(__doc__, seed=False)
    parser.prog = "incrementalseg benchmark"
    parser.add_argument("--protocol", choices=PROTOCOLS, default="btcv-4-4")
    parser.add_argument("--cases", nargs="+", required=True, metavar="[ARCHIVE=]DIR", help="folder of every archive")
    parser.add_argument("--split", type=Path, help="JSON with step0, step1 and evaluation (default: see above)")
    parser.add_argument("--out", type=Path, required=True, help="folder for models, logs and results")
    parser.add_argument("--strategies", nargs="+", default=[BASE, *STRATEGIES], help="base and names of strategies")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--base-steps", type=int, default=BASE_TRAINING.steps)
    parser.add_argument("--steps", type=int, default=STEP_TRAINING.steps, help="of every incremental step")
    parser.add_argument("--base-learning-rate", type=float, default=BASE_TRAINING.learning_rate)
    parser.add_argument(
        "--learning-rate", type=float, default=STEP_TRAINING.learning_rate, help="of every incremental step"
    )
    parser.add_argument("--network", default="UNet")
    parser.add_argument("--spacing", type=float, default=3.0, help="voxel edge the models work at, mm (%(default)s)")
    parser.add_argument("--without", default="", metavar="ORGAN", help="cut it out of the field of view of the steps")
    parser.add_argument("--picture", metavar="CASE", help="evaluation case to show (default: the first)")
    return execute(parser, arguments, _run)


def _run(options: argparse.Namespace) -> str:
    for name in options.strategies:
        if name != BASE:
            strategy_named(name)
    protocol = PROTOCOLS[options.protocol]
    benchmarks = [_benchmark(options, protocol, seed) for seed in options.seeds]
    _require_cases(benchmarks[0])
    for benchmark in benchmarks:
        keep_to_one_benchmark(benchmark)
    reporter = Reporter(for_people(), cancelled=cancel_on_signals())
    for benchmark in benchmarks:
        for strategy in options.strategies:
            run_strategy(benchmark, strategy, reporter)
    rows, cases = all_results(benchmarks[0])
    out, name = options.out, benchmarks[0].name
    write_benchmark_csv(rows, out / f"{name}.csv")
    write_case_csv(cases, out / f"{name}-cases.csv")
    report = benchmark_report(rows, cases)
    write_text(out / f"{name}.md", report + "\n")
    plot_strategies(rows, out / f"{name}.png")
    plot_steps(rows, out / f"{name}-steps.png")
    plot_predictions(benchmarks[0], options.strategies, options.picture, out / f"{name}-planes.png", reporter)
    return report


def _benchmark(options: argparse.Namespace, protocol: Protocol, seed: int) -> Benchmark:
    base = TrainingConfig(
        steps=options.base_steps, learning_rate=options.base_learning_rate, seed=seed, device=options.device
    )
    step = replace(base, steps=options.steps, learning_rate=options.learning_rate, head_rate=STEP_TRAINING.head_rate)
    spec, preprocessing = NetworkSpec.preset(options.network), Preprocessing((options.spacing,) * 3)
    folders = _folders(options.cases, protocol)
    where = (protocol, folders, options.split, options.out)
    return Benchmark(*where, base, step, spec, preprocessing, options.without)


def _folders(given: Sequence[str], protocol: Protocol) -> Mapping[str, Path]:
    """Folder by archive; a protocol of one archive needs no name before the folder."""
    if len(given) == len(protocol.archives) == 1 and "=" not in given[0]:
        return {protocol.archives[0]: Path(given[0])}
    named = {name: folder for name, equals, folder in (entry.partition("=") for entry in given) if equals}
    if len(named) < len(given):
        raise InputError(f"Name the folder of every archive: --cases {' '.join(f'{a}=DIR' for a in protocol.archives)}")
    if unknown := [name for name in named if name not in protocol.archives]:
        known = ", ".join(protocol.archives)
        raise InputError(f"Protocol '{protocol.name}' has no archive '{unknown[0]}': it needs {known}.")
    return {name: Path(folder) for name, folder in named.items()}


def _require_cases(benchmark: Benchmark) -> None:
    """Read every list of cases once: what cannot be used is refused before the base model is trained."""
    for number, step in enumerate(benchmark.protocol.steps):
        benchmark.training_cases(number, step.organs)
    benchmark.evaluation_cases()


if __name__ == "__main__":
    sys.exit(main())
