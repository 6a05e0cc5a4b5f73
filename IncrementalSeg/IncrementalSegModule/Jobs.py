"""Job folders as the panel sees them: made from the scene, watched, resumed, deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from IncrementalSegLib.errors import IncrementalSegError, InputError
from IncrementalSegLib.jobs import Job
from IncrementalSegLib.lock import locked
from IncrementalSegLib.organs import OrganTable
from IncrementalSegLib.storage import write_text

from .Cases import heldOut
from .Parameters import Parameters
from .Paths import jobsFolder
from .Process import parsedEvent
from .SegmentationIO import writeCase


@dataclass(frozen=True)
class JobFolder:
    """One update: its folder and what stands in it."""

    folder: Path

    @cached_property
    def job(self) -> Job:
        """What was asked.

        Raises:
            InputError: ``job.json`` is missing or damaged.
        """
        return Job.load(self.folder)

    @cached_property
    def problem(self) -> str:
        """What is damaged in it, empty where nothing is; the folder can then only be deleted."""
        try:
            _job, _organs, report = self.job, self.organs, self.report
        except (IncrementalSegError, OSError, ValueError) as error:
            return str(error)
        return _("It has no report.") if self.finished and not isinstance(report, dict) else ""

    @property
    def organs(self) -> list[str]:
        """Names of the organs to learn, or their keys where nothing names them."""
        return OrganTable.from_csv(self.labels).names if self.labels else list(self.job.organs)

    def base(self) -> Path:
        """The package folder of the model that it grows from.

        Raises:
            InputError: it was deleted.
        """
        folder = (self.folder / self.job.model).resolve()
        if not folder.is_dir():
            raise InputError(_("The model that this update grew from was deleted ({folder}).").format(folder=folder))
        return folder

    @property
    def resumable(self) -> bool:
        """Whether it was stopped and can go on."""
        return not (self.problem or self.finished or self.running)

    @property
    def running(self) -> bool:
        """Whether a worker, of this Slicer or another, is at it."""
        if not (self.folder / ".lock").exists():
            return False
        try:
            with locked(self.folder / ".lock", "busy"):
                return False
        except InputError:
            return True
        except OSError:
            return False

    @property
    def finished(self) -> bool:
        """Whether there is a candidate."""
        return (self.folder / "model" / "checksums.json").exists()

    @property
    def report(self) -> dict[str, Any] | None:
        """The report of a finished update."""
        path = self.folder / "report.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that was reported so far; a line that was cut short is left out."""
        path = self.folder / "events.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return [event for event in map(parsedEvent, lines) if event]

    @property
    def sizeMB(self) -> float:
        """Disk space in MB (10^6 bytes)."""
        files = (os.path.join(place, name) for place, _folders, names in os.walk(self.folder) for name in names)
        return sum(map(_size, files)) / 1e6

    @property
    def title(self) -> str:
        """Date, organs and state, for a list."""
        date, rest = self.folder.name[:13].replace("_", " "), self.folder.name[16:]
        if self.problem:
            return f"{date}  {rest}  ({_('being written') if self.running else _('damaged')})"
        state = _("finished") if self.finished else _("running") if self.running else _("stopped")
        return f"{date}  {', '.join(self.organs)}  ({state})"

    @property
    def labels(self) -> str:
        """The organ table of the cases, as text."""
        path = self.folder / "cases" / "labels.csv"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def delete(self) -> None:
        """Remove the folder.

        Raises:
            InputError: it is running, or a program uses one of its files.
        """
        if self.running:
            raise InputError(_("This update is running: cancel it first."))
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            words = _("{folder} could not be deleted ({error}): close what uses it, and try again.")
            raise InputError(words.format(folder=self.folder, error=error.strerror)) from error


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a worker tidied it away
        return 0


def allJobs() -> list[JobFolder]:
    """Every job folder of this user, newest first, the damaged ones too."""
    folder = jobsFolder()
    places = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    return [JobFolder(place) for place in places if place.is_dir()]


def writeJob(parameters: Parameters, breathe: Callable[[], None]) -> JobFolder:
    """Write cases and ``job.json`` of an update into a new folder; ``breathe`` is called between cases.

    Raises:
        InputError: the parameters are not valid, or a disk error stopped it; nothing is left behind.
    """
    valid, reason = parameters.isValid()
    if not valid:
        raise InputError(reason)
    folder = _newFolder(parameters)
    try:
        with locked(folder / ".lock"):  # so that nobody takes it for damaged and deletes it
            _writeCases(parameters, folder / "cases", breathe)
            _job(parameters).save(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return JobFolder(folder)


def _newFolder(parameters: Parameters) -> Path:
    names = "-".join(organ.name for organ in parameters.organs)[:40]
    words = "".join(c if c.isascii() and c.isalnum() else "-" for c in names)  # SimpleITK on Windows
    folder = jobsFolder() / f"{datetime.now():%Y%m%d_%H%M%S}_{words}"
    folder.mkdir(parents=True)
    return folder


def _writeCases(parameters: Parameters, folder: Path, breathe: Callable[[], None]) -> None:
    table = parameters.table
    folder.mkdir()
    write_text(folder / "labels.csv", table.to_csv())
    for row in parameters.rows:
        values = {table.find(key).label: segment for key, segment in row.segments.items() if key in table.keys}
        writeCase(folder, row.key, row.volume, row.segmentation, values)
        breathe()


def _job(parameters: Parameters) -> Job:
    check = heldOut(parameters.rows)
    return Job(
        "add-organ",
        "cases",
        tuple(organ.key for organ in parameters.organs),
        model=str(parameters.model),
        strategy=parameters.strategy,
        parents={organ.key: organ.parent for organ in parameters.organs if organ.parent},
        train_cases=tuple(row.key for row in parameters.rows if row.key not in check),
        heldout=tuple(row.key for row in parameters.rows if row.key in check),
        training=parameters.training,
        allow_overlap=parameters.allowOverlap,
    )
