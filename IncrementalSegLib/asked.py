"""What the options of the command line say, as the functions of `api` take it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .console import session
from .errors import InputError

if TYPE_CHECKING:
    from .training.config import TrainingConfig


def job_options(options: argparse.Namespace, default: TrainingConfig) -> dict[str, Any]:
    """What every verb that makes a job is told: cases, length, who listens."""
    parts = {"train_cases": split_part(options, "train_part"), "heldout": split_part(options, "heldout_part")}
    return {**parts, "training": training_of(options, default), **session(options)}


def training_of(options: argparse.Namespace, default: TrainingConfig) -> TrainingConfig:
    """The default length and shape of a run, but for what the options say."""
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


def split_part(options: argparse.Namespace, part: str) -> list[str] | None:
    """Case names of the part of the split file that option ``part`` names; None where it was not given.

    Raises:
        InputError: no split file, or no such part in it.
    """
    from .cases import read_split

    if getattr(options, part) is None:
        return None
    if options.split is None:
        raise InputError(f"--{part.replace('_', '-')} names a part of a split file: give that file with --split.")
    return read_split(options.split, getattr(options, part))
