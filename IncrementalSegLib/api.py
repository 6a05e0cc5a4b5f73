"""The verbs as plain Python functions; the command line calls exactly these.

>>> import IncrementalSegLib
>>> model = IncrementalSegLib.train("cases/base", ["Liver", "Spleen"], "jobs/base")      # doctest: +SKIP
>>> model = IncrementalSegLib.add_organ(model, "cases/pancreas", ["Pancreas"], "jobs/1")  # doctest: +SKIP
>>> label_map = IncrementalSegLib.predict(model, "ct.nii.gz", "organs.nii.gz")            # doctest: +SKIP
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from .cases import Case, read_dataset
from .document import write_document
from .errors import InputError
from .events import Reporter, Sink
from .importers.reading import import_model as _read_foreign
from .importers.torchscript import read_teacher
from .inference import predict_label_map
from .jobs import Job
from .models.networks import device_named
from .models.package import Model, load_model, save_package
from .review import review, write_review
from .running import prepare, run_job
from .training.config import BASE_TRAINING, STEP_TRAINING, TrainingConfig
from .training.strategies import DEFAULT
from .volumes import read_ct, require_volume_name, write_volume

PathLike = Path | str


def train(
    cases: PathLike,
    organs: Sequence[str],
    out: PathLike,
    *,
    train_cases: Sequence[str] | None = None,
    heldout: Sequence[str] | None = None,
    network: str = "UNet",
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0),
    window: tuple[float, float] = (-125.0, 275.0),
    training: TrainingConfig = BASE_TRAINING,
    sinks: Sequence[Sink] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> Model:
    """Train a base model of ``organs`` in the new job folder ``out``; the package is ``out/model``.

    Args:
        cases: dataset folder.
        organs: names of the organs, in channel order; label values become 1, 2, 3 …
        out: job folder to make.
        train_cases: names of the cases to use (default: all).
        heldout: names of cases never trained on, for the report (default: a fifth, from four cases on).
        network: a MONAI network known to `models.networks`.
        spacing: voxel size the model works at, mm.
        window: HU range that the model sees.
        training: length, learning rate and so on.
        sinks: receivers of events.
        cancelled: asked at every step whether to stop.

    Raises:
        IncrementalSegError: with one sentence that says what to do.
    """
    job = Job(
        "train",
        organs=tuple(organs),
        network=network,
        spacing=spacing,
        window=window,
        **_asked(cases, train_cases, heldout, training),
    )
    return _start(job, Path(out), None, sinks, cancelled)


def add_organ(
    model: Model | PathLike,
    cases: PathLike,
    organs: Sequence[str],
    out: PathLike,
    *,
    strategy: str = DEFAULT,
    parents: Mapping[str, str] | None = None,
    train_cases: Sequence[str] | None = None,
    heldout: Sequence[str] | None = None,
    allow_overlap: bool = False,
    training: TrainingConfig = STEP_TRAINING,
    sinks: Sequence[Sink] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> Model:
    """Learn ``organs`` without forgetting the model's own, in the new job folder ``out``; the result is ``out/model``.

    ``parents`` names the organ that a new structure lies inside; ``strategy`` is one of `training.strategies`; the
    other arguments are those of `train`. Cases need annotations of the new organs only.

    Raises:
        IncrementalSegError: with one sentence that says what to do.
    """
    job = Job(
        "add-organ",
        organs=tuple(organs),
        model="parent" if isinstance(model, Model) else str(Path(model).resolve()),
        strategy=strategy,
        parents=dict(parents or {}),
        allow_overlap=allow_overlap,
        **_asked(cases, train_cases, heldout, training),
    )
    return _start(job, Path(out), model if isinstance(model, Model) else None, sinks, cancelled)


def distill(
    teacher: PathLike,
    cases: PathLike,
    out: PathLike,
    *,
    orientation: str = "RAS",
    train_cases: Sequence[str] | None = None,
    heldout: Sequence[str] | None = None,
    network: str = "UNet",
    training: TrainingConfig = BASE_TRAINING,
    sinks: Sequence[Sink] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> Model:
    """Teach a network of ours what a TorchScript model predicts, on scans that need no annotation; it then can grow.

    ``teacher`` is a ``.ts`` file with its bundle's configuration, or the bundle; ``orientation`` how the scans lay that
    it was trained on, where it does not say. The other arguments are those of `train`; the result is ``out/model``.

    Raises:
        IncrementalSegError: with one sentence that says what to do.
    """
    known = read_teacher(teacher, orientation=orientation)
    job = Job(
        "distill",
        organs=tuple(known.organs.keys),
        model=str(Path(teacher).resolve()),
        orientation=orientation,
        network=network,
        **_asked(cases, train_cases, heldout, training),
    )
    return _start(job, Path(out), known, sinks, cancelled)


def _asked(
    cases: PathLike, train_cases: Sequence[str] | None, heldout: Sequence[str] | None, training: TrainingConfig
) -> dict[str, Any]:
    names = {"train_cases": train_cases, "heldout": heldout}
    tuples = {part: None if listed is None else tuple(listed) for part, listed in names.items()}
    return {"cases": str(Path(cases).resolve()), "training": asdict(training), **tuples}


def _start(job: Job, out: Path, parent: Model | None, sinks: Sequence[Sink], cancelled: Callable[[], bool]) -> Model:
    """Make the job folder of a job that can be done, with its parent where that is in memory only, and do it."""
    job.refuse_second(out)
    prepare(job, out, parent)
    if parent and job.model == "parent":
        save_package(parent, out / job.model)
    job.save(out)
    return run_job(out, *sinks, cancelled=cancelled)


def predict(
    model: Model | PathLike,
    ct: PathLike | sitk.Image,
    out: PathLike | None = None,
    *,
    all_pieces: bool = False,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> sitk.Image:
    """The merged multi-organ label map of a CT, on the CT's grid, with the organ table's values; written to ``out``.

    With ``all_pieces`` nothing is taken away from organs that the model knows as one piece.

    Raises:
        IncrementalSegError: with one sentence that says what to do.
    """
    if out is not None:
        _require_usable(Path(out), ct)  # before a long prediction, not after it
    model = _loaded(model)
    if all_pieces:
        model = replace(model, connected=())
    image = ct if isinstance(ct, sitk.Image) else read_ct(ct)
    label_map = predict_label_map(model, image, device_named(device), reporter)
    if out is not None:
        write_volume(label_map, out)
    return label_map


def _require_usable(out: Path, ct: PathLike | sitk.Image) -> None:
    require_volume_name(out)
    if not isinstance(ct, sitk.Image) and out.resolve() == Path(ct).resolve():
        raise InputError(f"{out} is the CT itself: give the label map another name.")


def evaluate(
    model: Model | PathLike,
    cases: PathLike | Sequence[Case],
    out: PathLike,
    *,
    old: Model | PathLike | None = None,
    names: Sequence[str] | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    extra: Mapping[str, Mapping[str, float | None]] | None = None,
    caption: str = "",
) -> dict[str, Any]:
    """DSC, HD95 and NSD per organ on annotated cases, against ``old`` where given; report and pictures go to ``out``.

    Old organs without annotation are compared by the agreement of both models' predictions. ``names`` restricts the
    cases of a dataset folder; ``extra`` adds series to the bars; ``caption`` is a line under the planes.

    Returns:
        The content of ``report.json``; its seconds are those of the evaluation.

    Raises:
        IncrementalSegError: with one sentence that says what to do.
    """
    started = time.monotonic()
    model, old = _loaded(model), None if old is None else _loaded(old)
    found = read_dataset(cases, names=names) if isinstance(cases, str | Path) else list(cases)
    if not found:
        raise InputError("No case was given to evaluate on: name a dataset folder with annotated cases.")
    reporter = reporter or Reporter()
    done = review(model, old, found, device, reporter)
    last = model.history[-1] if model.history else {}
    report = done.report(last.get("strategy", "unknown"), last.get("cases", 0), time.monotonic() - started)
    write_review(done, report, Path(out), Path(out), reporter, extra, caption)
    write_document(report, model, Path(out), extra)
    return report


def synthesize(
    model: Model | PathLike,
    out: PathLike,
    *,
    count: int = 8,
    recipe: str = "fast",
    cases: PathLike | None = None,
    size: Sequence[int] | None = None,
    seed: int = 0,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Synthetic CT volumes of a model with their label maps, a contact sheet and ``quality.json``, all in ``out``.

    Args:
        model: the model to invert.
        out: a new or empty folder.
        count: number of volumes.
        recipe: one of `inversion.recipes`.
        cases: dataset folder of current scans: needed by ``grounded``, and used for models that remember no anatomy.
        size: edges of a volume along x, y and z in voxels, each at least the model's patch (default: a little more).
            Larger ones, up to a whole slab, are made by windows of the patch.
        seed: the same seed gives the same volumes.
        device: ``auto``, ``cpu``, ``cuda`` …
        reporter: receiver of progress, asked for cancellation.

    Returns:
        The content of ``quality.json``.

    Raises:
        IncrementalSegError: with one sentence that says what to do.
    """
    from .inversion.session import synthesize_to

    found = read_dataset(cases) if cases is not None else []
    options = {"count": count, "recipe": recipe, "size": size, "seed": seed}
    return synthesize_to(Path(out), _loaded(model), found, options, device_named(device), reporter or Reporter())


def _loaded(model: Model | PathLike) -> Model:
    return model if isinstance(model, Model) else load_model(model)


def import_model(
    source: PathLike, out: PathLike, *, orientation: str = "RAS", reporter: Reporter | None = None
) -> Model:
    """Read a model of another tool and write it as a package into the new folder ``out``.

    Args:
        source: MONAI bundle, Auto3DSeg model or trained nnU-Net configuration, as folder or zip file.
        out: folder to make.
        orientation: how the scans lay that it was trained on, where the model does not say.
        reporter: is told what the user should know of it.

    Returns:
        the model with the package's hash.

    Raises:
        InputError: it cannot be read, or used, here.
        PackageError: its weights are damaged.
        StorageError: ``out`` exists, or cannot be written.
    """
    return save_package(_read_foreign(source, reporter, orientation), out)
