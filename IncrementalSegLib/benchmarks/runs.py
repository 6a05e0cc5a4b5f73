"""The runs of a benchmark: every model of a protocol, strategy and seed is trained once, scored once, and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..cases import Case
from ..comparison import benchmark_rows
from ..errors import InputError
from ..evaluation import OrganScore, score_case, summarise
from ..events import EventFile, Reporter
from ..inference import predict_label_map
from ..jobs import seconds_worked
from ..lock import locked
from ..models.networks import NetworkSpec, device_named
from ..models.package import Model, load_model, save_package
from ..organs import OrganTable, normalise, organ_named
from ..peak import peak_memory_mb, reset_peak_memory
from ..preprocessing import Preprocessing
from ..storage import write_json
from ..training.base import train_base
from ..training.config import TrainingConfig
from ..training.strategies import strategy_named
from ..training.update import update_model
from ..training.workspace import Workspace
from ..volumes import to_array
from .field_of_view import cases_without
from .protocols import EVALUATION, Protocol, part_cases

BASE = "base"


@dataclass(frozen=True)
class Benchmark:
    """One protocol and seed: where the cases are, how long every run is, where results go."""

    protocol: Protocol
    folders: Mapping[str, Path]
    split: Path | None
    out: Path
    base: TrainingConfig
    step: TrainingConfig
    spec: NetworkSpec
    preprocessing: Preprocessing = Preprocessing()
    without: str = ""  # organ that is cut out of the steps' field of view

    @property
    def name(self) -> str:
        """What the results are called: the protocol, and the organ that is not in view."""
        if not self.without:
            return self.protocol.name
        return "-".join([self.protocol.name, "without", *normalise(self.without).split()])

    @property
    def total_steps(self) -> int:
        """Training steps of the whole sequence: what a network trained from scratch is given."""
        return self.base.steps + self.step.steps * (len(self.protocol.steps) - 1)

    def folder(self, strategy: str) -> Path:
        """Where a strategy's runs are kept; the base model does not depend on what the steps see."""
        name = self.protocol.name if strategy == BASE else self.name
        return self.out / name / f"seed{self.step.seed}" / strategy

    def training_cases(self, number: int, organs: Sequence[str]) -> list[Case]:
        """The cases of step ``number``, with these organs counted as annotated."""
        step = self.protocol.steps[number]
        cases = part_cases(self.protocol, self.folders, step.archive, step.part, self.split)
        if number and self.without:
            cases = cases_without(cases, self.without, self.out / "cut")
        wanted = [organ_named(name).key for name in organs]
        return [case.restricted(wanted) for case in cases]

    def evaluation_cases(self) -> list[Case]:
        """The cases that models are scored on, with all that was annotated in them."""
        parts = (
            part_cases(self.protocol, self.folders, archive, EVALUATION, self.split)
            for archive in self.protocol.evaluation
        )
        return [case for part in parts for case in part]


def run_strategy(benchmark: Benchmark, strategy: str, reporter: Reporter) -> None:
    """Train and score the models of one strategy, unless that was done before.

    ``base`` is the base model. ``joint`` and ``specialist`` are one model each, trained as long as the sequence.

    Raises:
        InputError: unusable data.  Cancelled: run again to resume.
    """
    steps = benchmark.protocol.steps
    if strategy == BASE:
        _score(benchmark, strategy, 0, _base(benchmark, reporter), reporter)
        return
    if strategy_named(strategy).from_scratch:
        last = len(steps) - 1
        model = _finished(benchmark, strategy, last, reporter, lambda ws: _train_at_once(benchmark, strategy, ws))
        _score(benchmark, strategy, last, model, reporter)
        return
    model = _base(benchmark, reporter)
    for number, step in enumerate(steps[1:], start=1):

        def train(workspace: Workspace, parent: Model = model, number: int = number, step: Any = step) -> Model:
            organs = [organ_named(name) for name in step.organs]
            cases = benchmark.training_cases(number, step.organs)
            chosen = strategy_named(strategy)
            return update_model(parent, cases, organs, benchmark.step, chosen, workspace, allow_overlap=True)

        model = _finished(benchmark, strategy, number, reporter, train)
        _score(benchmark, strategy, number, model, reporter)


def _base(benchmark: Benchmark, reporter: Reporter) -> Model:
    organs = benchmark.protocol.steps[0].organs

    def train(workspace: Workspace) -> Model:
        return _train(benchmark, organs, benchmark.training_cases(0, organs), benchmark.base, workspace, BASE)

    return _finished(benchmark, BASE, 0, reporter, train)


def _train_at_once(benchmark: Benchmark, strategy: str, workspace: Workspace) -> Model:
    """The upper bound learns all organs from all cases, the specialist the new ones from theirs."""
    first = 0 if strategy_named(strategy).from_scratch == "all" else 1
    organs = [organ for step in benchmark.protocol.steps[first:] for organ in step.organs]
    sources = {
        (step.archive, step.part): number for number, step in enumerate(benchmark.protocol.steps) if number >= first
    }
    cases = [case for number in sources.values() for case in benchmark.training_cases(number, organs)]
    config = replace(benchmark.base, steps=benchmark.total_steps)
    return _train(benchmark, organs, cases, config, workspace, strategy)


def _train(
    benchmark: Benchmark,
    organs: Sequence[str],
    cases: Sequence[Case],
    config: TrainingConfig,
    workspace: Workspace,
    strategy: str,
) -> Model:
    table, spec, preprocessing = OrganTable.from_names(organs), benchmark.spec, benchmark.preprocessing
    return train_base(cases, table, config, workspace, spec=spec, preprocessing=preprocessing, strategy=strategy)


def _finished(
    benchmark: Benchmark, strategy: str, step: int, reporter: Reporter, train: Callable[[Workspace], Model]
) -> Model:
    folder = benchmark.folder(strategy) / f"step{step}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):  # another process may be training the same model
        if not (folder / "model").exists():
            reporter.message(f"{benchmark.name}, seed {benchmark.step.seed}, {strategy}, step {step}")
            logging = Reporter(EventFile(folder / "events.jsonl"), *reporter.sinks, cancelled=reporter.cancelled)
            logging.emit("started", strategy=strategy, step=step)
            device = device_named(benchmark.step.device)
            reset_peak_memory(device)
            model = train(Workspace(folder, logging))
            cost = {"seconds": seconds_worked(folder), "peak_memory_mb": round(peak_memory_mb(device))}
            write_json(folder / "cost.json", cost)
            save_package(model, folder / "model")
    return load_model(folder / "model")


def _score(benchmark: Benchmark, strategy: str, step: int, model: Model, reporter: Reporter) -> None:
    """Write ``results.json`` of a model: rows per organ, and per organ and case."""
    folder = benchmark.folder(strategy) / f"step{step}"
    if not (folder / "scores.json").exists():
        scores = score_model(model, benchmark.evaluation_cases(), benchmark.step.device, reporter)
        write_json(folder / "scores.json", [vars(score) for score in scores])
    scores = [OrganScore(**score) for score in json.loads((folder / "scores.json").read_text(encoding="utf-8"))]
    cost = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
    run = {"protocol": benchmark.name, "strategy": strategy, "seed": benchmark.step.seed, "step": step}
    old = {organ_named(name).key for name in benchmark.protocol.steps[0].organs}
    new = [key for key in model.organs.keys if key not in old]
    names = dict(zip(model.organs.keys, model.organs.names, strict=True))
    cases = [{**run, **vars(score), "organ": names[score.organ]} for score in scores]
    rows = benchmark_rows({**run, **cost}, model.organs, new, summarise(scores))
    write_json(folder / "results.json", {"rows": rows, "cases": cases})


def all_results(benchmark: Benchmark) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows, and rows per case, of every finished run in the folder: all seeds and strategies, whoever trained them."""
    base = benchmark.folder(BASE).parents[1].glob(f"seed*/{BASE}/step*/results.json")
    others = benchmark.folder("").parents[0].glob("seed*/*/step*/results.json")
    rows, cases = [], []
    for path in sorted({*base, *others}):
        found = json.loads(path.read_text(encoding="utf-8"))
        rows += [{**row, "protocol": benchmark.name} for row in found["rows"]]
        cases += [{**row, "protocol": benchmark.name} for row in found["cases"]]
    return rows, cases


def score_model(model: Model, cases: Sequence[Case], device: str, reporter: Reporter) -> list[OrganScore]:
    """DSC, HD95 and NSD of a model on annotated cases, on their own grids."""
    scores = []
    for number, case in enumerate(cases, start=1):
        ct, label = case.read()
        if label is None:
            raise InputError(f"Case '{case.name}' has no label map to score against: leave it out of the evaluation.")
        prediction = to_array(predict_label_map(model, ct, device_named(device), reporter))
        truth = (to_array(label), model.organs, ct.GetSpacing(), case.annotated, case.labels)
        scores += score_case(case.name, prediction, *truth)
        reporter.progress("evaluate", number, len(cases))
    return scores


def keep_to_one_benchmark(benchmark: Benchmark) -> None:
    """Refuse to mix runs of other settings into the results of this folder.

    Raises:
        InputError: it holds runs of other settings.
    """
    path = benchmark.out / benchmark.protocol.name / f"seed{benchmark.step.seed}" / "settings.json"
    runs = {"base": asdict(benchmark.base), "step": asdict(benchmark.step), "network": asdict(benchmark.spec)}
    folders = {archive: str(folder.resolve()) for archive, folder in benchmark.folders.items()}
    numbers = range(len(benchmark.protocol.steps))
    seen = [benchmark.training_cases(number, benchmark.protocol.steps[number].organs) for number in numbers]
    names = [[case.name for case in part] for part in (*seen, benchmark.evaluation_cases())]
    data = {"preprocessing": asdict(benchmark.preprocessing), "folders": folders, "cases": names}
    settings = json.loads(json.dumps({**runs, **data}))
    for run in ("base", "step"):
        del settings[run]["device"]
    if not path.exists():
        write_json(path, settings)
    elif json.loads(path.read_text(encoding="utf-8")) != settings:
        raise InputError(
            f"{path.parent} holds runs of other settings: repeat those or choose another folder with --out."
        )
