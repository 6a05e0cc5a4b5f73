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
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import Case, read_dataset
from .errors import InputError
from .events import EventFile, Reporter, Sink
from .organs import Organ, OrganTable, organ_named
from .storage import write_json

if TYPE_CHECKING:
    from .models.package import Model

SCHEMA = 1
_AUTOMATIC_HOLDOUT_FROM = 4


@dataclass(frozen=True)
class Job:
    """What is asked: a base model (``train``) or an incremental step (``add-organ``).

    ``cases`` is a dataset folder and ``model`` a model package, both absolute or relative to the job folder. ``organs``
    are names or SNOMED keys; ``parents`` maps a new organ to the old one it lies inside. ``train_cases`` and ``heldout``
    are case names; None means all cases, a fifth of which are held out from four on. ``training`` holds settings of
    `training.config.TrainingConfig`.
    """

    kind: str
    cases: str
    organs: tuple[str, ...]
    model: str = ""
    strategy: str = "distill"
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
        if (folder / "job.json").exists():
            raise InputError(
                f"{folder} holds a job already: resume it (incrementalseg resume) or choose another folder."
            )
        write_json(folder / "job.json", asdict(self))

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
            job = cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in content.items()})
        except FileNotFoundError as error:
            raise InputError(f"{folder} holds no job.json: give the folder of a job.") from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}): correct it or make the job anew.") from error
        if job.kind not in ("train", "add-organ"):
            raise InputError(f"{path} asks for '{job.kind}': the kinds of job are train and add-organ.")
        return job

    def new_organs(self) -> list[Organ]:
        """The organs to learn, with their parents' keys."""
        parents = {organ_named(child).key: organ_named(parent).key for child, parent in self.parents.items()}
        organs = [organ_named(name) for name in self.organs]
        return [replace(organ, parent=parents.get(organ.key, "")) for organ in organs]


def run_job(folder: Path | str, *sinks: Sink, cancelled: Callable[[], bool] = lambda: False) -> Model:
    """Do the work of a job folder, from wherever it stopped, and return the finished model.

    Raises:
        InputError: the job or its cases cannot be used.  Cancelled: resume by calling again.
    """
    folder = Path(folder)
    job = Job.load(folder)
    sentinel = folder / "cancel"
    sentinel.unlink(missing_ok=True)
    reporter = Reporter(EventFile(folder / "events.jsonl"), *sinks, cancelled=lambda: sentinel.exists() or cancelled())
    reporter.emit("started", kind=job.kind)
    try:
        model = _work(job, folder, reporter)
    except BaseException as error:
        reporter.emit("stopped", reason=type(error).__name__, text=str(error))
        raise
    reporter.emit("finished", model=str(folder / "model"))
    return model


def _work(job: Job, folder: Path, reporter: Reporter) -> Model:
    from .models.package import load_model, save_package
    from .review import review, write_review
    from .training.config import TrainingConfig
    from .training.run import Workspace

    parent = load_model(folder / job.model) if job.kind == "add-organ" else None
    if (folder / "model").exists():
        return load_model(folder / "model")
    config = TrainingConfig.from_dict(job.training)
    train_cases, heldout = split_cases(job, folder)
    workspace = Workspace(folder, reporter)
    model = _train(job, config, parent, train_cases, heldout, workspace)
    done = review(model, parent, heldout, config.device, reporter)
    report = done.report(job.strategy if parent else "base", len(train_cases), seconds_worked(folder))
    write_review(done, report, folder, folder / "previews", reporter)
    metrics = {organ["code"]: organ["dsc_after"] for organ in report["organs"]}
    history = (*model.history[:-1], {**model.history[-1], "metrics": metrics})
    return save_package(replace(model, history=history), folder / "model")


def _train(
    job: Job, config: Any, parent: Model | None, cases: Sequence[Case], heldout: Sequence[Case], workspace: Any
) -> Model:
    from .models.networks import NetworkSpec
    from .training.run import train_base, update_model
    from .training.strategies import strategy_named
    from .volumes import Preprocessing

    organs = job.new_organs()
    if parent is None:
        table = OrganTable(replace(organ, label=label) for label, organ in enumerate(organs, start=1))
        spec, preprocessing = NetworkSpec.preset(job.network), Preprocessing(job.spacing, job.window)
        return train_base(cases, table, config, workspace, spec=spec, preprocessing=preprocessing)
    strategy = strategy_named(job.strategy)
    return update_model(
        parent, cases, organs, config, strategy, workspace, heldout=heldout, allow_overlap=job.allow_overlap
    )


def split_cases(job: Job, folder: Path) -> tuple[list[Case], list[Case]]:
    """Training and held-out cases of a job; the last fifth is held out by itself where there are four or more.

    Raises:
        InputError: no training case is left, or a case is in both lists.
    """
    everything = read_dataset(folder / job.cases, names=job.train_cases)
    heldout = read_dataset(folder / job.cases, names=job.heldout) if job.heldout else []
    if job.heldout is None and len(everything) >= _AUTOMATIC_HOLDOUT_FROM:
        heldout = everything[-max(1, len(everything) // 5) :]
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
    for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] != "started" and last is not None:
            total += event["time"] - last
        last = event["time"]
    return round(total + (time.time() - last if last else 0.0), 1)


def cancel_on_signals() -> Callable[[], bool]:
    """Make SIGINT and SIGTERM stop the work at its next step; returns the question whether one came.

    A second signal ends the process at once.
    """
    asked = threading.Event()

    def note(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return asked.is_set


def cancel_at_end_of_stdin() -> Callable[[], bool]:
    """Where stdin is a pipe, its end stops the work (the program that started it closed the pipe, or died)."""
    asked = threading.Event()
    if sys.stdin is None or not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return asked.is_set

    def watch() -> None:
        while os.read(0, 4096):
            pass
        asked.set()

    threading.Thread(target=watch, daemon=True).start()
    return asked.is_set
