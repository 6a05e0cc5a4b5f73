"""What this machine is, asked once; what an update takes on it, measured by the worker and remembered by the user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .Process import CANCELLED, QtWorkerProcess, WorkerProcess
from .Update import duration, lastSentence

_SETTING = "IncrementalSeg/machine"


class Machine:
    """The device line; ``onChanged`` is called when the worker begins or ends."""

    def __init__(self, onChanged: Callable[[], None], process: WorkerProcess | None = None) -> None:
        self.process = process or QtWorkerProcess()
        self.onChanged = onChanged
        self.failure = ""
        self.device: dict[str, Any] = {}  # the fields of the library's `Device`, as found since the application began
        self._asked: dict[str, Any] = {}

    @property
    def running(self) -> bool:
        """Whether it is measuring or looking."""
        return self.process.running

    @property
    def known(self) -> dict[str, Any]:
        """The last measurement: the library's `Estimate`, and what it was asked with; empty where there is none."""
        try:
            found = json.loads(str(slicer.app.userSettings().value(_SETTING, "{}") or "{}"))
        except ValueError:
            return {}
        return found if "asked" in found else {}

    @property
    def sentence(self) -> str:
        """The device, its free memory or why it is not a GPU; the speed that was measured."""
        known = self.known
        device = self.device or known
        if self.running:
            return _("Measuring …") if self._asked else _("Looking for a GPU …")
        if self.failure:
            return self.failure
        if not device:
            return _("Device: not measured yet.")
        free = _("{gb} GB free").format(gb=f"{device['free_mb'] / 1024:.1f}") if device["free_mb"] else device["reason"]
        found = _("Device: {name} ({free})").format(name=device["name"], free=free)
        if not known:
            return found + _("; speed not measured yet")
        speed = _("{seconds} s a training step").format(seconds=f"{known['seconds_per_step']:.2f}")
        other = "" if known["name"] == device["name"] else " " + _("on {name}").format(name=known["name"])
        return f"{found}; {speed}{other}"

    def expected(self, steps: int, patch: int, batch: int, device: str) -> str:
        """Time and memory of an update of this length, and where that was measured otherwise, how."""
        known = self.known
        if not known:
            return _("Press Measure in step 1 to see how long this takes here.")
        took = {"time": duration(steps * known["seconds_per_step"]), "gb": f"{known['peak_mb'] / 1024:.1f}"}
        if known["asked"] == _settings(patch, batch, device):
            return _("About {time} and {gb} GB of memory on this machine, plus preparation.").format(**took)
        return _(
            "With other settings ({settings}) it would be about {time} and {gb} GB of memory: press Measure in step 1 "
            "for the settings chosen now."
        ).format(settings=_words(known["asked"]), **took)

    def look(self) -> None:
        """Have the worker say which device there is, once; torch is imported there, never here."""
        if not self.device and not self.running:
            self._start({}, [])

    def measure(self, model: Path, patch: int, batch: int, device: str) -> None:
        """Train a few steps on noise in the worker."""
        options = ["--model", str(model), "--patch", str(patch), "--batch", str(batch), "--device", device]
        self._start(_settings(patch, batch, device), options)

    def _start(self, asked: dict[str, Any], options: list[str]) -> None:
        self.failure, self._asked = "", asked
        self.process.start(["estimate", *options, "--json"], self._heard, self._ended)
        self.onChanged()

    def _heard(self, event: dict[str, Any]) -> None:
        if event["event"] == "device":
            self.device = event
        elif event["event"] == "estimate":
            self.device = event if self._asked["device"] == "auto" else self.device  # with what is free by now
            slicer.app.userSettings().setValue(_SETTING, json.dumps({**event, "asked": self._asked}))

    def _ended(self, code: int, errors: str) -> None:
        if code not in (0, CANCELLED):
            self.failure = lastSentence(errors) or _("The machine could not be measured.")
        self.onChanged()


def _settings(patch: int, batch: int, device: str) -> dict[str, Any]:
    return {"patch": patch, "batch": batch, "device": device}


def _words(asked: dict[str, Any]) -> str:
    """The settings of a measurement, for people."""
    text = _("{batch} patches of {patch} voxels a step") + ("" if asked["device"] == "auto" else ", " + _("on the CPU"))
    return text.format(**asked)
