"""The options of the command line, verb by verb, as ``--help`` shows them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from . import __version__
from .training.config import PRECISIONS
from .training.strategies import DEFAULT, STRATEGIES

Verb = Callable[[argparse.Namespace], None]
_EXIT_CODES = """exit codes: 0 done, 1 the work failed, 2 input or options cannot be used, 3 model package damaged,
4 something could not be written, 130 cancelled (the message says how to go on)"""
_OFFERED = [name for name, strategy in STRATEGIES.items() if strategy.from_scratch != "new"]
_STRATEGY = f"one of {', '.join(_OFFERED)}, or one without a part, such as {DEFAULT}-without-fusion (%(default)s)"
_CASES = """A dataset folder holds <case>_ct and <case>_seg files (.nii.gz, .nrrd, .mha; a CT may be a DICOM folder
<case>_ct) and a dataset.json or labels.csv that names the label values."""


def build_parser(verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """The parser; ``options.verb`` is then the function of ``verbs`` that does what was asked."""
    parser = argparse.ArgumentParser(
        prog="incrementalseg",
        description="Teach a multi-organ CT segmentation model a further organ without forgetting those it knows.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    known = parser.add_subparsers(required=True, metavar="VERB", title="verbs")

    def add(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        made = known.add_parser(name, help=text, description=f"{text} {more}".strip(), epilog=_EXIT_CODES)
        made.set_defaults(verb=verbs[name])
        return made

    _demo(add("demo", "The whole story: a base model, one more organ, before and after, beside fine-tuning."))
    _train(add("train", "Train a base model from annotated cases.", _CASES))
    _add_organ(add("add-organ", "Learn one more organ from scans on which only that organ is annotated.", _CASES))
    _predict(add("predict", "Segment a CT with all organs of a model."))
    _evaluate(add("evaluate", "DSC, HD95 and NSD per organ on annotated cases, new model against old.", _CASES))
    _synthesize(add("synthesize", "Synthetic CT with label maps that a model dreams up (MOSInversion)."))
    _estimate(add("estimate", "What an update takes on this machine: device, time and memory, measured."))
    _import(add("import", "Read a model of another tool, to grow it and to predict with it."))
    _distill(add("distill", "Teach a network of ours what a TorchScript model predicts, so that it can grow."))
    _export(add("export", "Write a model that came from Auto3DSeg for MONAIAuto3DSeg again."))
    stops = "Stops at a signal, at the end of a stdin pipe, or when JOB/cancel appears."
    _job(add("run", "Do the work of a new job folder.", stops), resuming=False)
    _job(add("resume", "Go on with a job that was stopped.", stops), resuming=True)
    known.add_parser("benchmark", help="A protocol times strategies: tables and figures (see benchmark --help).")
    _models(add("models", "Your model library: list, accept a candidate, revert, delete."))
    return parser


def _demo(parser: argparse.ArgumentParser) -> None:
    _out(parser, "folder for data, models, report and pictures")
    parser.add_argument("--cases", type=Path, help="your own dataset folder; without it CT phantoms are made")
    parser.add_argument("--split", type=Path, help="JSON with step0, step1 and evaluation case lists (default: thirds)")
    parser.add_argument("--base-organs", nargs="+", metavar="NAME", help="organs of the base model (else the starter)")
    parser.add_argument("--new-organ", nargs="+", metavar="NAME", help="organs added in the step")
    parser.add_argument("--base-steps", type=int, help="training steps of the base model")
    parser.add_argument("--steps", type=int, help="training steps of the update")
    _machine(parser)


def _train(parser: argparse.ArgumentParser) -> None:
    _dataset(parser)
    _network(parser)
    parser.add_argument(
        "--spacing", nargs=3, type=float, default=(3, 3, 3), metavar="MM", help="voxel size, mm (3 3 3)"
    )
    parser.add_argument("--window", nargs=2, type=float, default=(-125, 275), metavar="HU", help="HU range (-125 275)")
    _training_options(parser)


def _add_organ(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, required=True, help="current model: package or job folder, or library name"
    )
    _dataset(parser)
    parser.add_argument("--strategy", default=DEFAULT, help=_STRATEGY)
    parser.add_argument("--parent", metavar="NAME", help="old organ that the new structure lies inside (tumour: Liver)")
    parser.add_argument(
        "--allow-overlap", action="store_true", help="accept annotations that cover much of an old organ"
    )
    _training_options(parser)


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="package or job folder, or library name")
    parser.add_argument("--ct", type=Path, required=True, help="NIfTI, NRRD or MHA file, or DICOM series folder")
    _out(parser, "label map to write (.nii.gz, .nrrd, .mha)")
    parser.add_argument(
        "--all-pieces",
        action="store_true",
        help="keep every piece of organs that were one piece in all training scans (default: the largest)",
    )
    _machine(parser)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="the (new) model")
    parser.add_argument("--old", type=Path, help="the model before, to compare with")
    parser.add_argument("--cases", type=Path, required=True, help="dataset folder")
    parser.add_argument("--split", type=Path, help="JSON file of case lists")
    parser.add_argument("--part", help="case list of the split to use, for example evaluation")
    _out(parser, "folder for report and pictures")
    _machine(parser)


def _synthesize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="package or job folder, or library name")
    parser.add_argument("--count", type=_count, default=8, help="number of volumes (%(default)s)")
    parser.add_argument("--recipe", default="fast", help="fast (default), grounded or reference (the published one)")
    parser.add_argument("--cases", type=Path, help="current scans, which 'grounded' starts from")
    parser.add_argument(
        "--size",
        type=_count,
        nargs=3,
        metavar="VOXELS",
        help="edges of a volume, x y z, up to a whole slab (default: the model's patch and room for jitter)",
    )
    parser.add_argument("--seed", type=_count, default=0, help="the same seed gives the same volumes (%(default)s)")
    _out(parser, "new folder for volumes, label maps, contact sheet and quality.json")
    _machine(parser)


def _estimate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, help="package or job folder, or library name; without it only the device is told"
    )
    _training_options(parser)


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        help="MONAI bundle, Auto3DSeg model or trained nnU-Net configuration, as folder or zip file",
    )
    _orientation(parser)
    _out(parser, "new folder for the model package")
    _how(parser)


def _orientation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--orientation",
        default="RAS",
        help="how the scans lay that it was trained on, where the model does not say (%(default)s)",
    )


def _distill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher", type=Path, required=True, help="TorchScript file (.ts) or the MONAI bundle around it"
    )
    _scans(parser)
    _orientation(parser)
    _network(parser)
    _training_options(parser)


def _network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network", default="UNet", help="a MONAI network: UNet, SegResNet, DynUNet, SwinUNETR … (%(default)s)"
    )


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="package or job folder, or library name")
    _out(parser, "new folder for model.pt and labels.csv")
    _how(parser)


def _job(parser: argparse.ArgumentParser, resuming: bool) -> None:
    parser.add_argument("job", type=Path, metavar="JOB", help="folder with a job.json")
    _how(parser)
    parser.set_defaults(resuming=resuming)


def _models(models: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--organ", nargs="+", required=True, metavar="NAME", help='organs to learn, e.g. --organ "Pancreas"'
    )
    _scans(parser)


def _scans(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=Path, required=True, help="folder of <case>_ct and <case>_seg files")
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
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="largest step of the optimiser")
    parser.add_argument("--seed", type=_count, help="the same seed gives the same model (0)")
    parser.add_argument("--precision", choices=PRECISIONS, help="default auto: what this device computes fastest")
    _machine(parser)


def _machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (%(default)s)")
    _how(parser)


def _how(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=_count, default=0, help="CPU threads (default: torch decides)")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines instead of progress bars")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return int(text)
