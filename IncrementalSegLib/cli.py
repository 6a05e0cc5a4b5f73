"""The command line: one verb per thing a clinician-engineer does; every verb calls the Python function of its name."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import IncrementalSegError, InputError
from .events import JsonLines, Reporter, Sink, Terminal
from .jobs import cancel_at_end_of_stdin, cancel_on_signals

if TYPE_CHECKING:
    from .training.config import TrainingConfig

_EXIT_CODES = """exit codes: 0 done, 1 internal error, 2 input or options cannot be used, 3 model package damaged,
4 something could not be written, 130 cancelled (resume with: incrementalseg resume JOB)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; every expected error is one sentence on stderr."""
    options = _parser().parse_args(arguments)
    if getattr(options, "threads", 0):
        import torch

        torch.set_num_threads(options.threads)
    try:
        options.verb(options)
    except IncrementalSegError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _train(options: argparse.Namespace) -> None:
    from .api import BASE_TRAINING, train

    train(
        options.cases,
        options.organ,
        options.out,
        train_cases=_split(options, "train_part"),
        heldout=_split(options, "heldout_part"),
        network=options.network,
        spacing=tuple(options.spacing),
        window=tuple(options.window),
        training=_training(options, BASE_TRAINING),
        **_session(options),
    )
    _point_to(options.out)


def _add_organ(options: argparse.Namespace) -> None:
    from .api import STEP_TRAINING, add_organ

    parents = {organ: options.parent for organ in options.organ} if options.parent else None
    add_organ(
        _model_folder(options.model),
        options.cases,
        options.organ,
        options.out,
        strategy=options.strategy,
        parents=parents,
        train_cases=_split(options, "train_part"),
        heldout=_split(options, "heldout_part"),
        allow_overlap=options.allow_overlap,
        training=_training(options, STEP_TRAINING),
        **_session(options),
    )
    _point_to(options.out)


def _run(options: argparse.Namespace) -> None:
    from .jobs import run_job

    begun = (options.job / "events.jsonl").exists()
    if begun and not options.resuming:
        raise InputError(f"{options.job} was begun already: go on with  incrementalseg resume {options.job}")
    signals, stdin = cancel_on_signals(), cancel_at_end_of_stdin()
    run_job(options.job, *_sinks(options), cancelled=lambda: signals() or stdin())
    _point_to(options.job)


def _predict(options: argparse.Namespace) -> None:
    from .api import predict
    from .evaluation import organ_volumes
    from .inference import peak_memory_mb
    from .models.package import load_model
    from .volumes import to_array

    model, reporter = load_model(_model_folder(options.model)), _reporter(options)
    label_map = predict(model, options.ct, options.out, device=options.device, reporter=reporter)
    volumes = organ_volumes(to_array(label_map), model.organs, label_map.GetSpacing())
    for organ in model.organs:
        found = f"{volumes[organ.key]:.1f} mL" if volumes[organ.key] else "not found in this scan"
        reporter.message(f"{organ.label:>3}  {organ.name}: {found}")
    reporter.message(f"Written to {options.out}; peak memory {peak_memory_mb():.0f} MB.")
    reporter.emit("finished", label_map=str(options.out), peak_memory_mb=round(peak_memory_mb()))


def _evaluate(options: argparse.Namespace) -> None:
    from .api import evaluate
    from .report import markdown

    old = _model_folder(options.old) if options.old else None
    names = _split(options, "part")
    report = evaluate(
        _model_folder(options.model),
        options.cases,
        options.out,
        old=old,
        names=names,
        device=options.device,
        reporter=_reporter(options),
    )
    if not options.json:
        print(markdown(report))


def _models(options: argparse.Namespace) -> None:
    from .library import ModelLibrary

    library = ModelLibrary()
    if options.action == "accept":
        print(library.accept(_model_folder(options.candidate), options.name))
    elif options.action == "revert":
        print(library.revert(options.name, options.version))
    elif options.action == "delete":
        library.delete(options.name, options.version)
    else:
        for name in library.names():
            kept = ", ".join(f"v{version}" for version in library.versions(name))
            size = f"{library.size_mb(name):.1f} MB"
            print(f"{name}: v{library.current_version(name)} in use of {kept}; {size}; {library.current(name)}")


def _demo(options: argparse.Namespace) -> None:
    from .demo import demo

    demo(
        options.out,
        cases=options.cases,
        split=options.split,
        base_organs=options.base_organs,
        new_organs=options.new_organ,
        base_steps=options.base_steps,
        steps=options.steps,
        device=options.device,
        **_session(options),
    )


def _training(options: argparse.Namespace, default: TrainingConfig) -> TrainingConfig:
    given = {
        "steps": options.steps,
        "batch": options.batch,
        "patch": None if options.patch is None else (options.patch,) * 3,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "precision": options.precision,
        "device": options.device,
    }
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def _split(options: argparse.Namespace, part: str) -> list[str] | None:
    from .cases import read_split

    if getattr(options, part) is None:
        return None
    if options.split is None:
        raise InputError(f"--{part.replace('_', '-')} names a part of a split file: give that file with --split.")
    return read_split(options.split, getattr(options, part))


def _model_folder(given: Path) -> Path:
    """A package folder, a job folder (its candidate), or the name of a model in the user's library."""
    from .library import ModelLibrary

    if (given / "model" / "checksums.json").exists():
        return given / "model"
    if given.exists():
        return given
    library = ModelLibrary()
    if str(given) in library.names():
        return library.current(str(given))
    known = ", ".join(library.names()) or "none"
    raise InputError(f"{given} is neither a model package nor a model of your library (it has: {known}).")


def _sinks(options: argparse.Namespace) -> list[Sink]:
    if not options.json:
        return [Terminal()]
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints must not end up between the events
    return [JsonLines(protocol)]


def _session(options: argparse.Namespace) -> dict[str, Any]:
    return {"sinks": _sinks(options), "cancelled": cancel_on_signals()}


def _reporter(options: argparse.Namespace) -> Reporter:
    return Reporter(*_sinks(options), cancelled=cancel_on_signals())


def _point_to(job: Path) -> None:
    print(f"Model: {job / 'model'}   report: {job / 'report.md'}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="incrementalseg",
        description="Teach a multi-organ CT segmentation model a further organ without forgetting those it knows.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, epilog=_EXIT_CODES)
        made.set_defaults(verb=function)
        return made

    demo = verb("demo", _demo, "The whole story: a base model, one more organ, before and after, beside fine-tuning.")
    _out(demo, "folder for data, models, report and pictures")
    demo.add_argument("--cases", type=Path, help="your own dataset folder; without it CT phantoms are made")
    demo.add_argument("--split", type=Path, help="JSON with step0, step1 and evaluation case lists (default: thirds)")
    demo.add_argument("--base-organs", nargs="+", metavar="NAME", help="organs of the base model")
    demo.add_argument("--new-organ", nargs="+", metavar="NAME", help="organs added in the step")
    demo.add_argument("--base-steps", type=int, help="training steps of the base model")
    demo.add_argument("--steps", type=int, help="training steps of the update")
    _machine(demo)

    train = verb("train", _train, "Train a base model from annotated cases.")
    _dataset(train)
    train.add_argument(
        "--network", default="UNet", help="a MONAI network: UNet, SegResNet, DynUNet, SwinUNETR … (%(default)s)"
    )
    train.add_argument("--spacing", nargs=3, type=float, default=(3, 3, 3), metavar="MM", help="voxel size, mm (3 3 3)")
    train.add_argument("--window", nargs=2, type=float, default=(-125, 275), metavar="HU", help="HU range (-125 275)")
    _training_options(train)

    add = verb("add-organ", _add_organ, "Learn one more organ from scans on which only that organ is annotated.")
    add.add_argument("--model", type=Path, required=True, help="current model: package or job folder, or library name")
    _dataset(add)
    add.add_argument("--strategy", default="distill", help="distill (default), mib, plop, lwf, fine-tune or joint")
    add.add_argument("--parent", metavar="NAME", help="old organ that the new structure lies inside (tumour: Liver)")
    add.add_argument("--allow-overlap", action="store_true", help="accept annotations that cover much of an old organ")
    _training_options(add)

    predict = verb("predict", _predict, "Segment a CT with all organs of a model.")
    predict.add_argument("--model", type=Path, required=True, help="package or job folder, or library name")
    predict.add_argument("--ct", type=Path, required=True, help="NIfTI, NRRD or MHA file, or DICOM series folder")
    _out(predict, "label map to write (.nii.gz, .nrrd, .mha)")
    _machine(predict)

    evaluate = verb("evaluate", _evaluate, "DSC, HD95 and NSD per organ on annotated cases, new model against old.")
    evaluate.add_argument("--model", type=Path, required=True, help="the (new) model")
    evaluate.add_argument("--old", type=Path, help="the model before, to compare with")
    evaluate.add_argument("--cases", type=Path, required=True, help="dataset folder")
    evaluate.add_argument("--split", type=Path, help="JSON file of case lists")
    evaluate.add_argument("--part", help="case list of the split to use, for example evaluation")
    _out(evaluate, "folder for report and pictures")
    _machine(evaluate)

    for name, resuming, text in (
        ("run", False, "Do the work of a new job folder."),
        ("resume", True, "Go on with one."),
    ):
        job = verb(name, _run, f"{text} Stops at a signal, at the end of a stdin pipe, or when JOB/cancel appears.")
        job.add_argument("job", type=Path, metavar="JOB", help="folder with a job.json")
        job.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch decides)")
        job.add_argument("--json", action="store_true", help="print events as JSON lines instead of progress bars")
        job.set_defaults(resuming=resuming)

    _models_parser(verb("models", _models, "Your model library: list, accept a candidate, revert, delete."))
    return parser


def _models_parser(models: argparse.ArgumentParser) -> None:
    models.set_defaults(action="list")
    actions = models.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="models, their versions and where they are (default)")
    accept = actions.add_parser("accept", help="make a candidate the current version of a model")
    accept.add_argument("candidate", type=Path, help="package or job folder")
    accept.add_argument("name", help="name of the model in your library; new or existing")
    revert = actions.add_parser("revert", help="go back to a kept version")
    revert.add_argument("name")
    revert.add_argument("version", type=int)
    delete = actions.add_parser("delete", help="delete a version, or the whole model when no version is given")
    delete.add_argument("name")
    delete.add_argument("version", type=int, nargs="?")


def _out(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--out", type=Path, required=True, help=text)


def _dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=Path, required=True, help="folder of <case>_ct and <case>_seg files")
    parser.add_argument(
        "--organ", nargs="+", required=True, metavar="NAME", help='organs to learn, e.g. --organ "Pancreas"'
    )
    parser.add_argument("--split", type=Path, help="JSON file of case lists, with --train-part and --heldout-part")
    parser.add_argument("--train-part", metavar="PART", help="case list to train on (default: all cases)")
    parser.add_argument(
        "--heldout-part", metavar="PART", help="case list for the check (default: a fifth, from 4 cases)"
    )
    _out(parser, "job folder to make; the model will be OUT/model")


def _training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, help="training steps")
    parser.add_argument("--batch", type=int, help="patches per step")
    parser.add_argument("--patch", type=int, help="edge of a patch in voxels, a multiple of 16")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16", "float16"])
    _machine(parser)


def _machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch decides)")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines instead of progress bars")
