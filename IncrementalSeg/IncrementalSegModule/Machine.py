"""What an update takes on this machine, measured by the worker and remembered in the user's settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .Process import QtWorkerProcess, WorkerProcess
from .Update import duration, lastSentence

_SETTING = "IncrementalSeg/machine"


class Machine:
    """The device line; ``onChanged`` is called when a measurement begins or ends."""

    def __init__(self, onChanged: Callable[[], None], process: WorkerProcess | None = None) -> None:
        self.process = process or QtWorkerProcess()
        self.onChanged = onChanged
        self.failure = ""

    @property
    def running(self) -> bool:
        """Whether it is measuring."""
        return self.process.running

    @property
    def known(self) -> dict[str, Any]:
        """The last measurement: the fields of the library's `Estimate`; empty where there is none."""
        try:
            return json.loads(str(slicer.app.userSettings().value(_SETTING, "{}") or "{}"))
        except ValueError:
            return {}

    @property
    def sentence(self) -> str:
        """The device, its free memory or why it is not a GPU."""
        known = self.known
        if self.running:
            return _("Measuring …")
        if self.failure:
            return self.failure
        if not known:
            return _("Device: not measured yet.")
        free = _("{gb} GB free").format(gb=f"{known['free_mb'] / 1024:.1f}") if known["free_mb"] else known["reason"]
        speed = _("{seconds} s a training step").format(seconds=f"{known['seconds_per_step']:.2f}")
        return _("Device: {name} ({free}); {speed}").format(name=known["name"], free=free, speed=speed)

    def expected(self, steps: int) -> str:
        """Time and memory of an update of this length."""
        known = self.known
        if not known:
            return _("Press Measure in step 1 to see how long this takes here.")
        return _("About {time} and {gb} GB of memory on this machine, plus preparation.").format(
            time=duration(steps * known["seconds_per_step"]), gb=f"{known['peak_mb'] / 1024:.1f}"
        )

    def measure(self, model: Path, patch: int, batch: int, device: str) -> None:
        """Train a few steps on noise in the worker."""
        self.failure = ""
        options = ["--patch", str(patch), "--batch", str(batch), "--device", device]
        self.process.start(["estimate", "--model", str(model), *options, "--json"], self._heard, self._ended)
        self.onChanged()

    def _heard(self, event: dict[str, Any]) -> None:
        if event["event"] == "estimate":
            slicer.app.userSettings().setValue(_SETTING, json.dumps(event))

    def _ended(self, code: int, errors: str) -> None:
        if code != 0:
            self.failure = lastSentence(errors) or _("The machine could not be measured.")
        self.onChanged()
