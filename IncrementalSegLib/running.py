"""Doing what a job folder asks for: check everything, train, review, keep the candidate."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .cases import Case
from .errors import IncrementalSegError, InputError
from .events import EventFile, Reporter, Sink
from .jobs import Job, seconds_worked, split_cases
from .lock import locked
from .organs import Organ, OrganTable

if TYPE_CHECKING:
    from .models.networks import NetworkSpec
    from .models.package import Model
    from .preprocessing import Preprocessing
    from .training.config import TrainingConfig
    from .training.workspace import Workspace


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
    from .document import write_document, write_job_document
    from .models.package import load_model, save_package
    from .review import review, write_review
    from .training.workspace import Workspace

    if (folder / "model").exists():
        write_job_document(folder)  # the job was stopped just before, or synthetic images were made since
        return load_model(folder / "model")
    _sweep(folder)
    ready = prepare(job, folder)
    model = _train(job, ready, Workspace(folder, reporter))
    done = review(model, ready.parent, ready.heldout, ready.config.device, reporter)
    report = done.report(model.history[-1]["strategy"], len(ready.training), seconds_worked(folder))
    write_review(done, report, folder, folder / "previews", reporter)
    metrics = {organ["code"]: organ["dsc_after"] for organ in report["organs"]}
    history = (*model.history[:-1], {**model.history[-1], "metrics": metrics})
    finished = save_package(replace(model, history=history), folder / "model")
    for patients in (folder / "cache", folder / "survey", *folder.glob("synthetic/grounded-*")):
        shutil.rmtree(patients, ignore_errors=True)
    write_document(report, finished, folder)
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
    from .preprocessing import Preprocessing
    from .training.base import require_fitting_patch
    from .training.config import BASE_TRAINING, STEP_TRAINING
    from .training.strategies import strategy_named

    from_scratch = job.kind != "add-organ" or bool(strategy_named(job.strategy).from_scratch)
    config = (BASE_TRAINING if from_scratch else STEP_TRAINING).with_settings(job.training)
    if device_named(config.device).type == "cpu" and config.precision == "float16":
        raise InputError("float16 is for GPUs: use --precision auto, or name the GPU with --device cuda.")
    parent = parent or _parent(job, folder)
    training, heldout = split_cases(job, folder)
    organs = job.new_organs(training[0].labels)
    spec = parent.spec if parent and job.kind == "add-organ" else NetworkSpec.preset(job.network)
    _require_fitting_organs(job, parent, organs)
    require_fitting_patch(spec, config.patch)
    preprocessing = parent.preprocessing if parent else Preprocessing(job.spacing, job.window)
    return Ready(config, parent, spec, preprocessing, organs, training, heldout)


def _parent(job: Job, folder: Path) -> Model | None:
    from .importers.torchscript import read_teacher
    from .models.package import load_model

    if job.kind == "distill":
        return read_teacher(folder / job.model, orientation=job.orientation)
    return load_model(folder / job.model) if job.kind == "add-organ" else None


def _require_fitting_organs(job: Job, parent: Model | None, organs: list[Organ]) -> None:
    from .training.strategies import strategy_named
    from .training.update import extend_organs, require_growth

    if job.kind == "add-organ" and parent:
        require_growth(parent, strategy_named(job.strategy), bool(job.parents))
    if job.kind != "distill":
        extend_organs(parent.organs if parent else OrganTable(), organs)
    elif parent and [organ.key for organ in organs] != parent.organs.keys:
        raise InputError(f"A student learns all organs of its teacher and no others: {', '.join(parent.organs.names)}.")


def _train(job: Job, ready: Ready, workspace: Workspace) -> Model:
    from .training.base import train_base
    from .training.distil import distil_model
    from .training.strategies import strategy_named
    from .training.update import extend_organs, update_model

    cases, config = ready.training, ready.config
    if ready.parent is None:
        organs = extend_organs(OrganTable(), ready.organs)
        return train_base(cases, organs, config, workspace, spec=ready.spec, preprocessing=ready.preprocessing)
    if job.kind == "distill":
        return distil_model(ready.parent, cases, config, workspace, ready.spec)
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
