"""The job folder: the only door between whoever asks for work and the work itself.

```
job.json      what is asked (typed, versioned)      cases/       CT and annotations, where the asker puts them here
events.jsonl  everything that was reported          checkpoint/  the training checkpoint
cancel        its presence stops the work           model/       the finished candidate, a model package
report.json, .csv, .md, .html, previews/             before and after on the held-out cases
```
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .cases import Case, read_dataset
from .errors import InputError
from .organs import Organ, OrganTable, organ_named
from .storage import write_json

SCHEMA = 1
KINDS = ("train", "add-organ", "distill")
AUTOMATIC_HOLDOUT_FROM = 4


@dataclass(frozen=True)
class Job:
    """What is asked: a base model (``train``), an incremental step (``add-organ``) or a student (``distill``).

    ``cases`` is a dataset folder and ``model`` a model package (for a student, its teacher's TorchScript), absolute or
    relative to the job folder. ``organs`` are names or SNOMED keys; ``parents`` maps a new organ to the old one it lies
    inside. ``train_cases`` and ``heldout`` are case names; None means all cases, a fifth of which are held out from
    four on. ``training`` holds settings of `training.config.TrainingConfig`; ``orientation`` is how a teacher's scans
    lay where it does not say.
    """

    kind: str
    cases: str
    organs: tuple[str, ...]
    model: str = ""
    strategy: str = "full"
    orientation: str = "RAS"
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
        if content["kind"] not in KINDS:
            raise InputError(f"{path} asks for '{content['kind']}': the kinds of job are {', '.join(KINDS)}.")
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
