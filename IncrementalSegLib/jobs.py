"""The job folder: the only door between whoever asks for work and the work itself.

```
job.json      what is asked (typed, versioned)      cases/       CT and annotations, where the asker puts them here
events.jsonl  everything that was reported          checkpoint/  the training checkpoint
cancel        its presence stops the work           model/       the finished candidate, a model package
report.json, report.md, report.csv, previews/       before and after on the held-out cases
```
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import Case, read_dataset
from .errors import IncrementalSegError, InputError
from .events import EventFile, Reporter, Sink
from .lock import locked
from .organs import Organ, OrganTable, organ_named
from .storage import write_json

if TYPE_CHECKING:
    from .models.networks import NetworkSpec
    from .models.package import Model
    from .preprocessing import Preprocessing
    from .training.config import TrainingConfig
    from .training.workspace import Workspace

SCHEMA = 1
AUTOMATIC_HOLDOUT_FROM = 4


@dataclass(frozen=True)
class Job:
    """What is asked: a base model (``train``) or an incremental step (``add-organ``).

    ``cases`` is a dataset folder and ``model`` a model package, both absolute or relative to the job folder. ``organs``
    are names or SNOMED keys; ``parents`` maps a new organ to the old one it lies inside. ``train_cases`` and
    ``heldout`` are case names; None means all cases, a fifth of which are held out from four on. ``training`` holds
    settings of `training.config.TrainingConfig`.
    """

    kind: str
    cases: str
    organs: tuple[str, ...]
    model: str = ""
    strategy: str = "full"
    parents: dict[str, str] = field(default_factory=dict)
    train_cases: tuple[str, ...] | None = None
    heldout: tuple[str, ...] | None = None
    network: str = "UNet"
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0)
    window: tuple[float, float] = (-125.0, 275.0)
    training: dict[str, Any] = field(default_factory=dict)
    allow_overlap: bool = False
    schema: int = SCHEMA

    def save(self, folder: Path) -> None:
        """Write ``job.json`` into a folder that holds no job yet.

        Raises:
            InputError: there is one.  StorageError: it cannot be written.
        """
        self.refuse_second(folder)
        write_json(folder / "job.json", asdict(self))

    @staticmethod
    def refuse_second(folder: Path) -> None:
        """Refuse a folder that holds a job, which is not to be overwritten."""
        if (folder / "job.json").exists():
            raise InputError(
                f"{folder} holds a job already: go on with  incrementalseg resume {folder}  or choose another folder."
            )

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read ``job.json``.

        Raises:
            InputError: missing, damaged, newer, or with unknown settings.
        """
        path = folder / "job.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.get("schema", 0) > SCHEMA:
                raise InputError(f"{path} was made by a newer IncrementalSeg: update this one.")
            return cls._of({key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}, path)
        except FileNotFoundError as error:
            raise InputError(f"{folder} holds no job.json: give the folder of a job.") from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}): correct it or make the job anew.") from error

    @classmethod
    def _of(cls, content: dict[str, Any], path: Path) -> Job:
        known = {setting.name: setting.type for setting in fields(cls)}
        if unknown := sorted(content.keys() - known):
            raise InputError(f"{path} has the unknown setting '{unknown[0]}': the settings are {', '.join(known)}.")
        for name in ("kind", "cases", "organs"):
            if not content.get(name):
                raise InputError(f"{path} lacks '{name}': a job needs kind, cases and organs.")
        if content["kind"] not in ("train", "add-organ"):
            raise InputError(f"{path} asks for '{content['kind']}': the kinds of job are train and add-organ.")
        lists = [
            name for name in ("organs", "train_cases", "heldout") if not isinstance(content.get(name), tuple | None)
        ]
        if lists:
            raise InputError(f"{path}: '{lists[0]}' must be a list of names, as in [\"Liver\"].")
        return cls(**content)

    def new_organs(self, labels: OrganTable) -> list[Organ]:
        """The organs to learn as the dataset's ``labels`` define them (codes, colour), with their parents' keys.

        What the dataset does not list is looked up in the catalogue.
        """
        parents = {_defined(labels, child).key: _defined(labels, parent).key for child, parent in self.parents.items()}
        organs = [_defined(labels, name) for name in self.organs]
        if stray := parents.keys() - {organ.key for organ in organs}:
            raise InputError(f"A parent is given for '{min(stray)}', which is not among the organs to learn.")
        return [replace(organ, parent=parents.get(organ.key, organ.parent)) for organ in organs]


def _defined(labels: OrganTable, name: str) -> Organ:
    try:
        return labels.find(name)
    except InputError:
        return organ_named(name)


def run_job(folder: Path | str, *sinks: Sink, cancelled: Callable[[], bool] = lambda: False) -> Model:
    """Do the work of a job folder, from wherever it stopped, and return the finished model.

    Raises:
        InputError: the job or its cases cannot be used.  Cancelled: resume by calling again.
    """
    folder = Path(folder)
    job = Job.load(folder)
    busy = f"Another process works on {folder}: wait for it, or stop it by creating the file {folder / 'cancel'}."
    with locked(folder / ".lock", busy):
        return _run(job, folder, *sinks, cancelled=cancelled)


def _run(job: Job, folder: Path, *sinks: Sink, cancelled: Callable[[], bool]) -> Model:
    sentinel = folder / "cancel"
    sentinel.unlink(missing_ok=True)
    reporter = Reporter(EventFile(folder / "events.jsonl"), *sinks, cancelled=lambda: sentinel.exists() or cancelled())
    reporter.emit("started", kind=job.kind)
    try:
        model = _work(job, folder, reporter)
    except BaseException as error:
        expected = isinstance(error, IncrementalSegError)
        trace = {} if expected else {"traceback": "".join(traceback.format_exception(error))}
        with suppress(IncrementalSegError):  # a full disk must not hide why the work stopped
            reporter.emit("stopped", reason=type(error).__name__, text=str(error), **trace)
        raise
    reporter.emit("finished", model=str(folder / "model"))
    return model


def _work(job: Job, folder: Path, reporter: Reporter) -> Model:
    from .models.package import load_model, save_package
    from .review import review, write_review
    from .training.workspace import Workspace

    if (folder / "model").exists():
        return load_model(folder / "model")
    _sweep(folder)
    ready = prepare(job, folder)
    model = _train(job, ready, Workspace(folder, reporter))
    done = review(model, ready.parent, ready.heldout, ready.config.device, reporter)
    strategy = job.strategy if ready.parent else "base"
    report = done.report(strategy, len(ready.training), seconds_worked(folder))
    write_review(done, report, folder, folder / "previews", reporter)
    metrics = {organ["code"]: organ["dsc_after"] for organ in report["organs"]}
    history = (*model.history[:-1], {**model.history[-1], "metrics": metrics})
    finished = save_package(replace(model, history=history), folder / "model")
    for patients in (folder / "cache", folder / "survey", *folder.glob("synthetic/grounded-*")):
        shutil.rmtree(patients, ignore_errors=True)
    return finished


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed had half written."""
    for left in list(folder.rglob(".partial_*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@dataclass(frozen=True)
class Ready:
    """A job whose settings, model, organs and cases were found usable; ``spec`` is the network's."""

    config: TrainingConfig
    parent: Model | None
    spec: NetworkSpec
    preprocessing: Preprocessing
    organs: list[Organ]
    training: list[Case]
    heldout: list[Case]


def prepare(job: Job, folder: Path, parent: Model | None = None) -> Ready:
    """Check everything that can be checked before the scans are read; ``parent`` stands in for the job's model.

    Raises:
        InputError: names the setting, organ or case and what to do.  PackageError: the model cannot be loaded.
    """
    from .models.networks import NetworkSpec, device_named
    from .models.package import load_model
    from .preprocessing import Preprocessing
    from .training.base import require_fitting_patch
    from .training.config import BASE_TRAINING, STEP_TRAINING
    from .training.strategies import strategy_named
    from .training.update import extend_organs, require_growth

    strategy = strategy_named(job.strategy)
    from_scratch = job.kind == "train" or bool(strategy.from_scratch)
    config = (BASE_TRAINING if from_scratch else STEP_TRAINING).with_settings(job.training)
    if device_named(config.device).type == "cpu" and config.precision == "float16":
        raise InputError("float16 is for GPUs: use --precision auto, or name the GPU with --device cuda.")
    if job.kind == "add-organ":
        parent = parent or load_model(folder / job.model)
        require_growth(parent, strategy, bool(job.parents))
    training, heldout = split_cases(job, folder)
    organs = job.new_organs(training[0].labels)
    extend_organs(parent.organs if parent else OrganTable(), organs)
    spec = parent.spec if parent else NetworkSpec.preset(job.network)
    require_fitting_patch(spec, config.patch)
    preprocessing = parent.preprocessing if parent else Preprocessing(job.spacing, job.window)
    return Ready(config, parent, spec, preprocessing, organs, training, heldout)


def _train(job: Job, ready: Ready, workspace: Workspace) -> Model:
    from .training.base import train_base
    from .training.strategies import strategy_named
    from .training.update import extend_organs, update_model

    cases, config = ready.training, ready.config
    if ready.parent is None:
        organs = extend_organs(OrganTable(), ready.organs)
        return train_base(cases, organs, config, workspace, spec=ready.spec, preprocessing=ready.preprocessing)
    strategy, heldout = strategy_named(job.strategy), ready.heldout
    return update_model(
        ready.parent,
        cases,
        ready.organs,
        config,
        strategy,
        workspace,
        heldout=heldout,
        allow_overlap=job.allow_overlap,
    )


def held_out_count(cases: int) -> int:
    """How many of so many cases are held out where nobody says which: a fifth from four on, else none."""
    return max(1, cases // 5) if cases >= AUTOMATIC_HOLDOUT_FROM else 0


def split_cases(job: Job, folder: Path) -> tuple[list[Case], list[Case]]:
    """Training and held-out cases of a job; the last fifth is held out by itself where there are four or more.

    Raises:
        InputError: no training case is left, or a case is in both lists.
    """
    everything = read_dataset(folder / job.cases, names=job.train_cases)
    heldout = read_dataset(folder / job.cases, names=job.heldout) if job.heldout else []
    if job.heldout is None and (count := held_out_count(len(everything))):
        heldout = everything[-count:]
    names = {case.name for case in heldout}
    both = names & set(job.train_cases or ()) if job.heldout else set()
    if both:
        raise InputError(f"Case '{min(both)}' is both trained on and held out: take it from one of the lists.")
    training = [case for case in everything if case.name not in names]
    if not training:
        raise InputError("No case is left to train on: hold out fewer cases or add more.")
    return training, heldout


def seconds_worked(folder: Path) -> float:
    """Seconds of work so far, over all sessions of a job, read from its events."""
    total, last = 0.0, None
    for line in (folder / "events.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # cut short when the machine lost its power
            continue
        if event["event"] != "started" and last is not None:
            total += event["time"] - last
        last = event["time"]
    return round(total + (time.time() - last if last else 0.0), 1)
