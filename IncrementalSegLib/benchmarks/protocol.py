"""A protocol × strategies → CSV, Markdown table and figure.

``python -m IncrementalSegLib.benchmarks.protocol --cases DIR --split DIR/split.json --out build/benchmark``

The base model learns the first organs on the split's ``step0`` patients; every later step sees the ``step1`` patients
with only that step's organs annotated; all models are scored on the ``evaluation`` patients. With ``--without Spleen``
the ``step1`` scans are cut so that the spleen is in none of them. Every run resumes where it stopped, and finished ones
are not repeated, so several processes may share the strategies of one folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..cancel import cancel_on_signals
from ..cases import Case, read_dataset, read_split
from ..comparison import benchmark_rows, comparison_table, write_benchmark_csv
from ..errors import InputError
from ..evaluation import OrganScore, score_case, summarise
from ..events import EventFile, Reporter, for_people
from ..figures import plot_strategies
from ..inference import peak_memory_mb, predict_label_map
from ..jobs import seconds_worked
from ..lock import locked
from ..models.networks import NetworkSpec, device_named
from ..models.package import Model, load_model, save_package
from ..organs import OrganTable, normalise, organ_named
from ..storage import write_json, write_text
from ..training.base import train_base
from ..training.config import BASE_TRAINING, STEP_TRAINING, TrainingConfig
from ..training.strategies import STRATEGIES, strategy_named
from ..training.update import update_model
from ..training.workspace import Workspace
from ..volumes import Preprocessing, to_array
from .command import execute, parser_of
from .field_of_view import cases_without

PROTOCOLS = {
    "btcv-4-4": [
        ["Spleen", "Right kidney", "Left kidney", "Liver"],
        ["Gallbladder", "Stomach", "Aorta", "Pancreas"],
    ],
    "btcv-4-1": [["Spleen", "Right kidney", "Left kidney", "Liver"], ["Pancreas"]],
}


@dataclass(frozen=True)
class Benchmark:
    """One protocol on one dataset: where the cases are, how long every run is, where results go."""

    protocol: str
    cases: Path
    split: Path
    out: Path
    base: TrainingConfig
    step: TrainingConfig
    spec: NetworkSpec
    preprocessing: Preprocessing = Preprocessing()
    without: str = ""  # organ that is cut out of the steps' field of view

    @property
    def sequence(self) -> list[list[str]]:
        """Organ names per step."""
        return PROTOCOLS[self.protocol]

    def read(self, part: str, organs: Sequence[str] | None = None) -> list[Case]:
        """The cases of a part of the split, with these organs counted as annotated."""
        names = read_split(self.split, part)
        cases = read_dataset(self.cases, organs, names)
        if part != "step1" or not self.without:
            return cases
        cut = cases_without(read_dataset(self.cases, names=names), self.without, self.out / "cut")
        return [small.restricted(case.annotated) for small, case in zip(cut, cases, strict=True)]

    @property
    def name(self) -> str:
        """What the results are called: the protocol, and the organ that is not in view."""
        if not self.without:
            return self.protocol
        return "-".join([self.protocol, "without", *normalise(self.without).split()])

    def folder(self, strategy: str) -> Path:
        """Where a strategy's runs are kept; the base model does not depend on what the steps see."""
        name = self.protocol if strategy == "base" else self.name
        return self.out / name / f"seed{self.step.seed}" / strategy


def run_strategy(benchmark: Benchmark, strategy: str, reporter: Reporter) -> list[dict[str, Any]]:
    """Train (or reuse) the models of one strategy and return the CSV rows of every step; ``base`` is the base model.

    Raises:
        InputError: unusable data.  Cancelled: run again to resume.
    """
    if strategy != "base" and strategy_named(strategy).from_scratch:
        last = len(benchmark.sequence) - 1
        joint = _finished(benchmark, strategy, last, reporter, lambda ws: _train_joint(benchmark, ws))
        return _rows(benchmark, strategy, last, joint, reporter)
    base = _finished(benchmark, "base", 0, reporter, lambda ws: _train_base(benchmark, ws))
    if strategy == "base":
        return _rows(benchmark, strategy, 0, base, reporter)
    rows, model = [], base
    for step, names in enumerate(benchmark.sequence[1:], start=1):
        cases = benchmark.read("step1", names)
        organs = [organ_named(name) for name in names]
        parent = model
        model = _finished(
            benchmark,
            strategy,
            step,
            reporter,
            lambda ws, parent=parent, cases=cases, organs=organs: update_model(
                parent, cases, organs, benchmark.step, strategy_named(strategy), ws, allow_overlap=True
            ),
        )
        rows += _rows(benchmark, strategy, step, model, reporter)
    return rows


def _train_base(benchmark: Benchmark, workspace: Workspace) -> Model:
    organs = OrganTable.from_names(benchmark.sequence[0])
    cases = benchmark.read("step0", benchmark.sequence[0])
    return train_base(
        cases, organs, benchmark.base, workspace, spec=benchmark.spec, preprocessing=benchmark.preprocessing
    )


def _train_joint(benchmark: Benchmark, workspace: Workspace) -> Model:
    names = [name for step in benchmark.sequence for name in step]
    cases = benchmark.read("step0", names) + benchmark.read("step1", names)
    steps = benchmark.base.steps + benchmark.step.steps * (len(benchmark.sequence) - 1)
    config = replace(benchmark.base, steps=steps)
    options: dict[str, Any] = {"spec": benchmark.spec, "preprocessing": benchmark.preprocessing, "strategy": "joint"}
    return train_base(cases, OrganTable.from_names(names), config, workspace, **options)


def _finished(benchmark: Benchmark, strategy: str, step: int, reporter: Reporter, train: Any) -> Model:
    folder = benchmark.folder(strategy) / f"step{step}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):  # another process may be training the same model
        if not (folder / "model").exists():
            reporter.message(f"{benchmark.protocol}, {strategy}, step {step}")
            logging = Reporter(EventFile(folder / "events.jsonl"), *reporter.sinks, cancelled=reporter.cancelled)
            logging.emit("started", strategy=strategy, step=step)
            model = train(Workspace(folder, logging))
            cost = {"seconds": seconds_worked(folder), "peak_memory_mb": round(peak_memory_mb())}
            write_json(folder / "cost.json", cost)
            save_package(model, folder / "model")
    return load_model(folder / "model")


def _rows(benchmark: Benchmark, strategy: str, step: int, model: Model, reporter: Reporter) -> list[dict[str, Any]]:
    folder = benchmark.folder(strategy) / f"step{step}"
    if not (folder / "rows.json").exists():
        cost = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
        run = {"protocol": benchmark.protocol, "strategy": strategy, "seed": benchmark.step.seed, "step": step, **cost}
        scores = score_model(model, benchmark.read("evaluation"), benchmark.step.device, reporter)
        new = [organ_named(name).key for names in benchmark.sequence[1:] for name in names]
        write_json(folder / "scores.json", [vars(score) for score in scores])
        write_json(folder / "rows.json", benchmark_rows(run, model.organs, new, summarise(scores)))
    rows: list[dict[str, Any]] = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return [{**row, "protocol": benchmark.name} for row in rows]


def score_model(model: Model, cases: Sequence[Case], device: str, reporter: Reporter) -> list[OrganScore]:
    """DSC, HD95 and NSD of a model on annotated cases, on their own grids."""
    scores = []
    for number, case in enumerate(cases, start=1):
        ct, label = case.read()
        assert label is not None
        prediction = predict_label_map(model, ct, device_named(device), reporter)
        scores += score_case(
            case.name,
            to_array(prediction),
            to_array(label),
            model.organs,
            ct.GetSpacing(),
            case.annotated,
            case.labels,
        )
        reporter.progress("evaluate", number, len(cases))
    return scores


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the table and writes CSV, Markdown and figure."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="dataset folder")
    parser.add_argument("--split", type=Path, help="JSON with step0, step1 and evaluation (default: CASES/split.json)")
    parser.add_argument("--out", type=Path, required=True, help="folder for models, logs and results")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="btcv-4-4")
    parser.add_argument("--strategies", nargs="+", default=["base", *STRATEGIES], help="base and names of strategies")
    parser.add_argument("--base-steps", type=int, default=BASE_TRAINING.steps)
    parser.add_argument("--steps", type=int, default=STEP_TRAINING.steps, help="of every incremental step")
    parser.add_argument("--base-learning-rate", type=float, default=BASE_TRAINING.learning_rate)
    parser.add_argument(
        "--learning-rate", type=float, default=STEP_TRAINING.learning_rate, help="of every incremental step"
    )
    parser.add_argument("--network", default="UNet")
    parser.add_argument("--spacing", type=float, default=3.0, help="voxel edge the models work at, mm (%(default)s)")
    parser.add_argument("--without", default="", metavar="ORGAN", help="cut it out of the field of view of the steps")
    return execute(parser, arguments, _run)


def _run(options: argparse.Namespace) -> str:
    unknown = [name for name in options.strategies if name != "base" and name not in STRATEGIES]
    if unknown:
        raise InputError(f"Strategy '{unknown[0]}' is not known: choose from base, {', '.join(STRATEGIES)}.")
    base = TrainingConfig(
        steps=options.base_steps, learning_rate=options.base_learning_rate, seed=options.seed, device=options.device
    )
    step = replace(base, steps=options.steps, learning_rate=options.learning_rate)
    split = options.split or options.cases / "split.json"
    spec = NetworkSpec.preset(options.network)
    preprocessing = Preprocessing((options.spacing,) * 3)
    where = (options.protocol, options.cases, split, options.out)
    benchmark = Benchmark(*where, base, step, spec, preprocessing, options.without)
    benchmark.read("step1")  # refuses what cannot be used before the base model is trained
    _keep_to_one_benchmark(benchmark)
    reporter = Reporter(for_people(), cancelled=cancel_on_signals())
    rows = [row for name in options.strategies for row in run_strategy(benchmark, name, reporter)]
    write_benchmark_csv(rows, options.out / f"{benchmark.name}.csv")
    table = comparison_table(rows)
    write_text(options.out / f"{benchmark.name}.md", table + "\n")
    plot_strategies(rows, options.out / f"{benchmark.name}.png")
    return table


def _keep_to_one_benchmark(benchmark: Benchmark) -> None:
    """Refuse to mix runs of other settings into the results of this folder."""
    path = benchmark.out / benchmark.protocol / f"seed{benchmark.step.seed}" / "settings.json"
    runs = {"base": asdict(benchmark.base), "step": asdict(benchmark.step), "network": asdict(benchmark.spec)}
    data = {"preprocessing": asdict(benchmark.preprocessing), "cases": str(benchmark.cases.resolve())}
    settings = json.loads(json.dumps({**runs, **data}))
    for run in ("base", "step"):
        del settings[run]["device"]
    if not path.exists():
        write_json(path, settings)
    elif json.loads(path.read_text(encoding="utf-8")) != settings:
        raise InputError(
            f"{path.parent} holds runs of other settings: repeat those or choose another folder with --out."
        )


if __name__ == "__main__":
    sys.exit(main())
