"""An update under way: its worker, phases, time left, losses; what it says in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from slicer.i18n import tr as _

from .Jobs import JobFolder
from .Process import CANCELLED, QtWorkerProcess, WorkerProcess

_ENDS = {"prepare": (0, 2), "survey": (2, 10), "reshape": (10, 15), "synthesize": (15, 25), "update": (25, 90)}
_AFTER = (90, 100)  # what follows the training: fusion, the comparison


@dataclass
class Progress:
    """What the panel shows of a running update; ``losses`` are (step, parts) of the training."""

    phase: str = ""
    step: int = 0
    of: int = 0
    secondsLeft: float | None = None
    losses: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def take(self, event: dict[str, Any]) -> None:
        """Follow one event."""
        if event["event"] == "progress":
            self.phase, self.step, self.of = event["phase"], event["step"], event["of"]
            self.secondsLeft = event.get("eta_s")
            if event.get("loss"):
                self.losses.append((event["step"], event["loss"]))
        elif event["event"] == "message":
            self.log.append(event["text"])
        elif event["event"] == "stopped":
            self.log.append(_("Stopped: {text}").format(text=event.get("text", "")))

    @property
    def percent(self) -> int:
        """Done of the whole, by what the phases usually take."""
        if not self.phase:
            return 0
        first, last = _ENDS.get(self.phase, _AFTER)
        return round(first + (last - first) * self.step / max(self.of, 1))

    @property
    def sentence(self) -> str:
        """Phase, step and time left, for people."""
        if not self.phase:
            return _("Starting …")
        done = {"phase": phaseName(self.phase), "step": self.step, "of": self.of}
        if self.secondsLeft is None:
            return _("{phase}: {step} / {of}").format(**done)
        return _("{phase}: {step} / {of}, {time} left").format(**done, time=duration(self.secondsLeft))


def phaseName(phase: str) -> str:
    """A worker's phase in words."""
    names = {
        "prepare": _("Reading the cases"),
        "survey": _("Looking at the scans with the current model"),
        "reshape": _("Making warped copies of the scans"),
        "synthesize": _("Making synthetic scans of the old organs"),
        "update": _("Learning"),
        "calibration": _("Bringing old organs back to their size"),
        "fusion": _("Balancing old and new organs"),
        "remember": _("Saving what it remembers"),
        "evaluate": _("Comparing before and after"),
    }
    return names.get(phase, phase)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return _("{count} s").format(count=round(seconds))
    minutes = seconds / 60
    return (
        _("{count} min").format(count=round(minutes))
        if minutes < 90
        else _("{count} h").format(count=f"{minutes / 60:.1f}")
    )


class Update:
    """Runs a job folder in a worker and follows it; at most one at a time.

    ``onProgress`` is called at every event, ``onChanged`` when it begins and ends.
    """

    def __init__(
        self, onProgress: Callable[[], None], onChanged: Callable[[], None], process: WorkerProcess | None = None
    ) -> None:
        self.process = process or QtWorkerProcess()
        self.onProgress, self.onChanged = onProgress, onChanged
        self.job: JobFolder | None = None
        self.progress = Progress()
        self.cancelling = False
        self.failure = ""

    @property
    def running(self) -> bool:
        """Whether the worker is at it."""
        return self.process.running

    def start(self, job: JobFolder) -> None:
        """Begin a job, or go on with it where it stopped."""
        self.job, self.progress, self.cancelling, self.failure = job, Progress(), False, ""
        for event in job.events:
            self.progress.take(event)
        begun = (job.folder / "events.jsonl").exists()
        self.process.start(["resume" if begun else "run", str(job.folder), "--json"], self._heard, self._ended)
        self.onChanged()

    def cancel(self) -> None:
        """Ask the worker to stop; what was done is kept."""
        if self.running:
            self.cancelling = True
            self.process.cancel()
            self.onChanged()

    def _heard(self, event: dict[str, Any]) -> None:
        self.progress.take(event)
        self.onProgress()

    def _ended(self, code: int, errors: str) -> None:
        if code not in (0, CANCELLED):
            self.failure = lastSentence(errors) or _("The worker ended unexpectedly: press Resume to go on.")
        self.cancelling = False
        self.onChanged()


def lastSentence(errors: str) -> str:
    """The sentence for people in what a worker wrote to stderr."""
    told = [line for line in errors.splitlines() if line.startswith("Error: ")]
    return told[-1].removeprefix("Error: ") if told else ""
