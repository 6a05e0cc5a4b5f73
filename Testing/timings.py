"""Measures the panel on the host: python Testing/timings.py OUT. Prints a table and writes ``panel.csv``.

Opening, the way from Start to the first event and the first training step, the longest time the event loop stood still,
and what Cancel takes. Phantoms, one thread, the worker's processor being the same as the panel's.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "Testing"), str(REPOSITORY / "Testing" / "module")]
BARS = {
    "open the module": 1.0,
    "Start to the worker's first event": 2.0,
    "Start to the first training step": 20.0,
    "longest stop of the event loop during an update": 0.2,
    "Cancel to its acknowledgement": 2.0,
    "Cancel to the end of the whole process tree": 10.0,
}


class Heartbeat:
    """The longest time between two beats of a timer of 10 ms."""

    def __init__(self) -> None:
        import qt

        self.longest, self._last = 0.0, time.monotonic()
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._beat)
        self._timer.start(10)

    def _beat(self) -> None:
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["INCREMENTALSEG_HOME"] = home
        seconds = measured()
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "panel.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "seconds", "bar"])
        for what, bar in BARS.items():
            writer.writerow([what, f"{seconds[what]:.3f}", bar])
            print(f"{what:<50} {seconds[what]:8.3f} s   (at most {bar} s)")


def measured() -> dict[str, float]:
    """Seconds by what was measured."""
    import host

    app = host.start()
    began = time.monotonic()
    app.loadScriptedModule(REPOSITORY / "IncrementalSeg" / "IncrementalSeg.py")
    import slicer

    widget = slicer.util.getModuleWidget("IncrementalSeg")
    seconds = {"open the module": time.monotonic() - began}
    session = _prepared(widget)
    update, ui = session.update, widget.panel.update.ui

    def until(condition: Callable[[], Any]) -> float:
        while not condition():
            app.processEvents()
            time.sleep(0.002)
        return time.monotonic()

    heartbeat = Heartbeat()
    began = time.monotonic()
    ui.startButton.click()
    seconds["Start to the worker's first event"] = until(lambda: _events(session)) - began
    seconds["Start to the first training step"] = until(lambda: update.progress.phase == "update") - began
    until(lambda: update.progress.step > 100)
    seconds["longest stop of the event loop during an update"] = heartbeat.longest
    worker = update.process._worker
    began = time.monotonic()
    ui.startButton.click()
    seconds["Cancel to its acknowledgement"] = until(lambda: "Cancelling" in ui.phaseLabel.text) - began
    until(lambda: not update.running)
    seconds["Cancel to the end of the whole process tree"] = until(lambda: not _alive(worker)) - began
    return seconds


def _prepared(widget: Any) -> Any:
    from IncrementalSegModule.FolderImport import loadFolder
    from panel_testing import material

    session = widget.logic.session
    session.models.library.accept(material() / "base" / "model", "Abdomen")
    widget.logic.addOrgan("Stomach")
    for volume, segmentation in loadFolder(material() / "patients", session.organs):
        session.addCase(volume, segmentation)
    for name, value in {"steps": 5000, "patch": 32, "batch": 1, "useGPU": False}.items():
        setattr(session.state, name, value)
    session.changed()
    return session


def _events(session: Any) -> bool:
    return bool(session.job and (session.job.folder / "events.jsonl").exists())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
