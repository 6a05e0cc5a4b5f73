"""Measures the panel on the host: python Testing/timings.py --out DIR. Prints a table and writes ``panel.csv``.

Opening, the way from Start to the first event and the first training step, what Cancel takes, and the longest time that
the event loop stood still: during an update, and while a prediction and a comparison of two models come into the scene.
The update is of phantoms; what comes into the scene is as large as a CT of the abdomen (--slices of 512 x 512 voxels,
eight organs), from a file like those that the worker writes. One thread, on the processors that the worker has too.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Callable
from functools import partial
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
    "longest stop while a prediction is loaded": 0.2,
    "longest stop while two models are compared": 0.2,
}


class Heartbeat:
    """The longest time between two beats of a timer of 10 ms."""

    def __init__(self) -> None:
        import qt

        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._beat)
        self.again()
        self._timer.start(10)

    def again(self) -> None:
        """Begin anew."""
        self.longest, self.beats, self._last = 0.0, 0, time.monotonic()

    def _beat(self) -> None:
        now = time.monotonic()
        self.beats += 1
        self.longest, self._last = max(self.longest, now - self._last), now


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["INCREMENTALSEG_HOME"] = home
        seconds = measured(options.slices)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "panel.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "seconds", "at_most", "slices"])
        for what, bar in BARS.items():
            writer.writerow([what, f"{seconds[what]:.3f}", bar, options.slices])
            print(f"{what:<50} {seconds[what]:8.3f} s   (at most {bar} s)")


def measured(slices: int) -> dict[str, float]:
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
    return seconds | _loading(widget, heartbeat, until, slices)


def _loading(widget: Any, heartbeat: Heartbeat, until: Callable[[Any], float], slices: int) -> dict[str, float]:
    """The longest stops while results of the size of a CT come into the scene."""
    from IncrementalSegModule.Cases import CaseRow
    from IncrementalSegModule.Predict import Task, segmentationTask

    volume, labels, organs = _abdomen(slices)
    predictor, review, found = widget.logic.session.predictor, widget.panel.review, {}
    review._organs = review._oldOrgans = lambda job: organs
    job = types.SimpleNamespace(folder=Path(widget.logic.session.state.job))

    def during(what: str, *tasks: Task) -> None:
        heartbeat.again()
        for task in tasks:  # as if the worker had ended with this label map
            predictor.current, task.folder = task, Path(tempfile.mkdtemp())
            shutil.copy(labels, task.labelMap)
            predictor._ended(0, "")
            until(lambda: not predictor.running)
            beats = heartbeat.beats
            until(lambda beats=beats: heartbeat.beats > beats + 1)  # the last step counts too
        found[what] = heartbeat.longest
        if predictor.failure:
            raise SystemExit(predictor.failure)

    predicted = segmentationTask(Path(), organs, volume)
    during("longest stop while a prediction is loaded", predicted)
    row = CaseRow("case", volume, predicted.result, {})
    review._maps = {}
    compared = [Task(Path(), volume, partial(review._compared, job, row, when)) for when in ("old", "new")]
    during("longest stop while two models are compared", *compared)
    return found


def _abdomen(slices: int) -> tuple[Any, Path, Any]:
    """A CT-sized volume in the scene, its label map in a file, and the organs in it: eight balls."""
    import numpy as np
    import SimpleITK as sitk
    import slicer
    from IncrementalSegModule.SegmentationIO import onGridOf

    from IncrementalSegLib.organs import OrganTable

    organs = OrganTable.from_names(
        ["Liver", "Spleen", "Stomach", "Pancreas", "Gallbladder", "Aorta", "Right kidney", "Left kidney"]
    )
    k, j, i = np.ogrid[:slices, :512, :512]
    labels = np.zeros((slices, 512, 512), np.uint8)
    for organ in organs:
        middle = (slices // 2, 130 + 250 * (organ.label % 2), 60 * organ.label - 20)
        near = (2.0 * (k - middle[0])) ** 2 + (j - middle[1]) ** 2 + (i - middle[2]) ** 2 < (100 - 8 * organ.label) ** 2
        labels[near] = organ.label
    volume = slicer.util.addVolumeFromArray(labels.astype(np.int16) * 20, name="abdomen")
    volume.SetSpacing(0.8, 0.8, 1.5)
    file = Path(tempfile.mkdtemp()) / "labels.nrrd"
    sitk.WriteImage(onGridOf(volume, labels), str(file), True)
    return volume, file, organs


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
