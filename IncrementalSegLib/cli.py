"""The command line: one verb per thing a clinician-engineer does; every verb calls the Python function of its name."""

from __future__ import annotations

import argparse
import io
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .asked import job_options, split_part, training_of
from .console import cancelled, reporter_of, session, sinks
from .errors import Cancelled, IncrementalSegError, InputError, PackageError
from .lookup import model_folder
from .options import build_parser

if TYPE_CHECKING:
    from .library import ModelLibrary


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; every expected error is one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["benchmark"]:  # which has a parser of its own
        from .benchmarks.benchmark import main as benchmark

        return benchmark(arguments[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):  # written to a file it may not know all letters (Windows: cp1252)
        sys.stdout.reconfigure(errors="replace")
    options = build_parser(_VERBS).parse_args(arguments)
    with ExitStack() as options.session:
        try:
            _use_threads(options)
            options.verb(options)
            return 0
        except Cancelled:
            print(f"Cancelled. {_how_to_go_on(options)}", file=sys.stderr)
            return Cancelled.exit_code
        except IncrementalSegError as error:
            print(f"Error: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print(f"Interrupted. {_how_to_go_on(options)}", file=sys.stderr)
            return Cancelled.exit_code
        except Exception as error:
            traceback.print_exc()
            print(
                f"Error: this is a fault of IncrementalSeg ({error!r}): please report the lines above.", file=sys.stderr
            )
            return 1


def _use_threads(options: argparse.Namespace) -> None:
    if getattr(options, "threads", 0):
        import torch

        torch.set_num_threads(options.threads)


def _how_to_go_on(options: argparse.Namespace) -> str:
    if options.verb in (_train, _add_organ, _distill, _run):
        return (
            f"What was done is kept; go on with: incrementalseg resume {getattr(options, 'job', None) or options.out}"
        )
    return "The same command goes on where it stopped." if options.verb is _demo else "Nothing was written."


def _train(options: argparse.Namespace) -> None:
    from .api import train
    from .training.config import BASE_TRAINING

    train(
        options.cases,
        options.organ,
        options.out,
        network=options.network,
        spacing=tuple(options.spacing),
        window=tuple(options.window),
        **job_options(options, BASE_TRAINING),
    )
    _point_to(options.out)


def _add_organ(options: argparse.Namespace) -> None:
    from .api import add_organ
    from .training.config import STEP_TRAINING

    parents = {organ: options.parent for organ in options.organ} if options.parent else None
    add_organ(
        model_folder(options.model),
        options.cases,
        options.organ,
        options.out,
        strategy=options.strategy,
        parents=parents,
        allow_overlap=options.allow_overlap,
        **job_options(options, STEP_TRAINING),
    )
    _point_to(options.out)


def _run(options: argparse.Namespace) -> None:
    from .running import run_job

    begun = (options.job / "events.jsonl").exists()
    if begun and not options.resuming:
        raise InputError(f"{options.job} was begun already: go on with  incrementalseg resume {options.job}")
    run_job(options.job, *sinks(options), cancelled=cancelled(watch_stdin=True))
    _point_to(options.job)


def _predict(options: argparse.Namespace) -> None:
    from .api import predict
    from .evaluation import organ_volumes
    from .models.networks import device_named
    from .models.package import load_model
    from .peak import peak_memory_mb
    from .volumes import to_array

    model, reporter = load_model(model_folder(options.model)), reporter_of(options)
    label_map = predict(
        model, options.ct, options.out, all_pieces=options.all_pieces, device=options.device, reporter=reporter
    )
    volumes = organ_volumes(to_array(label_map), model.organs, label_map.GetSpacing())
    for organ in model.organs:
        found = f"{volumes[organ.key]:.1f} mL" if volumes[organ.key] else "not found in this scan"
        reporter.message(f"{organ.label:>3}  {organ.name}: {found}")
    peak = peak_memory_mb(device_named(options.device))
    reporter.message(f"Written to {options.out}; peak memory {peak:.0f} MB.")
    reporter.emit("finished", label_map=str(options.out), peak_memory_mb=round(peak))


def _evaluate(options: argparse.Namespace) -> None:
    from .api import evaluate
    from .document import result_text

    old = model_folder(options.old) if options.old else None
    names, reporter = split_part(options, "part"), reporter_of(options)
    report = evaluate(
        model_folder(options.model),
        options.cases,
        options.out,
        old=old,
        names=names,
        device=options.device,
        reporter=reporter,
    )
    reporter.emit("finished", report=str(options.out / "report.json"))
    if not options.json:
        print(result_text(report))


def _synthesize(options: argparse.Namespace) -> None:
    from .api import synthesize
    from .inversion.quality import described

    reporter = reporter_of(options)
    asked = {name: getattr(options, name) for name in ("count", "recipe", "cases", "size", "seed", "device")}
    quality = synthesize(model_folder(options.model), options.out, reporter=reporter, **asked)
    reporter.emit("finished", quality=str(options.out / "quality.json"))
    if not options.json:
        print(described(quality))


def _estimate(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from .estimate import estimate, find_device
    from .models.package import load_model
    from .training.config import STEP_TRAINING

    reporter, config = reporter_of(options), training_of(options, STEP_TRAINING)
    if options.model is None:
        device = find_device(config.device)
        reporter.emit("device", **asdict(device))
        reporter.message(f"{device.name}{device.reason and f': {device.reason}'}.")
        return
    found = estimate(load_model(model_folder(options.model)), config, reporter)
    reporter.emit("estimate", **asdict(found))
    minutes = config.steps * found.seconds_per_step / 60
    reporter.message(
        f"{found.name}: {found.seconds_per_step:.2f} s a step, {config.steps} steps in about {minutes:.0f} minutes, "
        f"{found.peak_mb:.0f} MB of memory.{found.reason and f' No GPU: {found.reason}.'}"
    )


def _import(options: argparse.Namespace) -> None:
    from .api import import_model

    reporter = reporter_of(options)
    model = import_model(options.source, options.out, orientation=options.orientation, reporter=reporter)
    reporter.message(f"{', '.join(model.organs.names)}: written to {options.out}.")
    reporter.emit("finished", model=str(options.out))


def _distill(options: argparse.Namespace) -> None:
    from .api import distill
    from .training.config import BASE_TRAINING

    distill(
        options.teacher,
        options.cases,
        options.out,
        orientation=options.orientation,
        network=options.network,
        **job_options(options, BASE_TRAINING),
    )
    _point_to(options.out)


def _export(options: argparse.Namespace) -> None:
    from .importers.auto3dseg import export_auto3dseg
    from .models.package import load_model

    reporter = reporter_of(options)
    export_auto3dseg(load_model(model_folder(options.model)), options.out)
    reporter.message(f"Written to {options.out}.")
    reporter.emit("finished", model=str(options.out))


def _models(options: argparse.Namespace) -> None:
    from .library import ModelLibrary

    library = ModelLibrary()
    if options.action == "accept":
        print(library.accept(model_folder(options.candidate), options.name))
    elif options.action == "revert":
        print(library.revert(options.name, options.version))
    elif options.action == "delete":
        library.delete(options.name, options.version)
    else:
        for name in library.names():
            print(_described(library, name))


def _described(library: ModelLibrary, name: str) -> str:
    kept = ", ".join(f"v{version}" for version in library.versions(name))
    try:
        use = f"v{library.current_version(name)} in use of {kept}; {library.current(name)}"
    except PackageError as error:
        use = f"{kept}; {error}"
    return f"{name}: {library.size_mb(name):.1f} MB; {use}"


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
        **session(options),
    )


def _point_to(job: Path) -> None:
    print(f"Model: {job / 'model'}   report: {job / 'report.html'}", file=sys.stderr)


_VERBS = {
    "demo": _demo,
    "train": _train,
    "add-organ": _add_organ,
    "predict": _predict,
    "evaluate": _evaluate,
    "synthesize": _synthesize,
    "estimate": _estimate,
    "import": _import,
    "distill": _distill,
    "export": _export,
    "run": _run,
    "resume": _run,
    "models": _models,
}
