"""What the tests of the panel share: a library of their own, patients, and a user's hands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
import slicer

PATIENTS = ["anna", "bert", "carl", "dora"]
BASE, NEW = ["Liver", "Spleen"], "Stomach"
QUICK = {"steps": 12, "patch": 32, "batch": 1, "useGPU": False}  # an update of seconds
_made: dict[str, Path] = {}


def material() -> Path:
    """A folder with `patients/` (CT phantoms) and `base/model` (liver and spleen), made once by the worker."""
    if "folder" not in _made:
        from IncrementalSegLib.phantom import PhantomConfig, write_phantom_cases

        folder = _made["folder"] = Path(tempfile.mkdtemp(prefix="incrementalseg-tests-"))
        write_phantom_cases(folder / "patients", PATIENTS, 0, PhantomConfig((40, 32, 32), (10.0, 10.0, 10.0)))
        shape = ["--spacing", "10", "10", "10", "--patch", "32", "--batch", "2", "--steps", "250", "--device", "cpu"]
        cases = ["--cases", str(folder / "patients"), "--organ", *BASE]
        worker("train", *cases, *shape, "--out", str(folder / "base"))
    return _made["folder"]


def variant(package: Path, folder: Path) -> Path:
    """A whole package of the same model that is not the same package."""
    from IncrementalSegLib.models.contents import checksums

    shutil.copytree(package, folder)
    history = folder / "history.json"
    history.write_text(history.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    (folder / "checksums.json").write_text(json.dumps(checksums(folder)), encoding="utf-8")
    return folder


def worker(*arguments: str) -> None:
    """Run the command line as the module does, and wait for it."""
    _run("-m", "IncrementalSegLib", *arguments)


def python(code: str) -> None:
    """Run code that needs torch, which the module does not load, as the worker would."""
    _run("-c", code)


def _run(*arguments: str) -> None:
    from IncrementalSegModule.Paths import libraryFolder
    from IncrementalSegModule.Process import pythonProgram

    environment = {**os.environ, "PYTHONPATH": str(libraryFolder()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([pythonProgram(), *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


class PanelTest(unittest.TestCase):
    """A panel with an empty scene and a library that holds the base model as "Abdomen"."""

    def setUp(self) -> None:
        from IncrementalSegModule import Dependencies

        if names := Dependencies.missing():
            self.skipTest(Dependencies.sentence(names))
        self.home = Path(tempfile.mkdtemp(prefix="incrementalseg-home-"))
        self.addCleanup(shutil.rmtree, self.home, True)
        self._before = os.environ.get("INCREMENTALSEG_HOME")
        os.environ["INCREMENTALSEG_HOME"] = str(self.home)
        self.addCleanup(self._restoreHome)
        slicer.mrmlScene.Clear()
        self.widget = slicer.util.getModuleWidget("IncrementalSeg")
        self.logic, self.panel = self.widget.logic, self.widget.panel
        self.session = self.logic.session
        from IncrementalSegModule import Gui
        from IncrementalSegModule.Models import Models

        from IncrementalSegLib.library import ModelLibrary

        library = ModelLibrary(self.home)
        library.accept(material() / "base" / "model", "Abdomen")
        self.session.models = Models(library)
        self.answers: dict[str, object] = {}
        self.asked: list[str] = []
        for question in Gui.ask:
            original = Gui.ask[question]
            self.addCleanup(Gui.ask.__setitem__, question, original)
            Gui.ask[question] = lambda *texts, question=question: self._answer(question, texts)
        self.errors: list[str] = []
        shown = slicer.util.errorDisplay
        self.addCleanup(setattr, slicer.util, "errorDisplay", shown)
        slicer.util.errorDisplay = lambda text, **_more: self.errors.append(text)
        self._forgetTheMachine()
        self.addCleanup(self._stopWorkers)
        self.panel.enter()

    def _forgetTheMachine(self) -> None:
        """What the user measured here is put back when the test is over."""
        settings, name = slicer.app.userSettings(), "IncrementalSeg/machine"
        if settings.contains(name):
            self.addCleanup(settings.setValue, name, settings.value(name))
        else:
            self.addCleanup(settings.remove, name)
        settings.remove(name)
        self.session.machine.device, self.session.machine.failure = {}, ""

    def _restoreHome(self) -> None:
        os.environ.pop("INCREMENTALSEG_HOME", None)
        if self._before is not None:
            os.environ["INCREMENTALSEG_HOME"] = self._before

    def _answer(self, question: str, texts: tuple[str, ...]) -> object:
        self.asked.append(texts[0])
        self.assertIn(question, self.answers, f"nobody expected to be asked: {texts[0]}")
        return self.answers[question]

    def _stopWorkers(self) -> None:
        session = self.session
        session.update.cancel()
        session.predictor.cancel()
        session.dreams.cancel()
        session.machine.process.cancel()
        session.foreign.cancel()
        self.wait(lambda: not (session.update.running or session.predictor.running or session.dreams.running), 20)
        self.wait(lambda: not (session.machine.running or session.foreign.running), 20)
        session.update.job, session.update.failure, session.predictor.failure = None, "", ""

    def wait(self, condition, seconds: float = 300.0) -> None:
        """Let the application live until something holds."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.01)
        self.assertTrue(condition(), "waited in vain")

    def chooseOrgan(self, text: str) -> None:
        """Type, take the best match, press Add."""
        ui = self.panel.organ.ui
        ui.searchEdit.setText(text)
        self.assertTrue(ui.addButton.enabled, ui.problemLabel.text)
        ui.addButton.click()

    def loadPatient(self, name: str):
        """The CT of a patient and a segmentation with the stomach alone, as a user has them."""
        folder = material() / "patients"
        volume = slicer.util.loadVolume(str(next(folder.glob(f"{name}_ct.*"))), {"name": name, "show": False})
        return volume, self.segmentation(volume, folder, name)

    def segmentation(self, volume, folder: Path, name: str):
        import SimpleITK as sitk

        from IncrementalSegLib.cases import read_dataset

        case = read_dataset(folder, names=[name])[0]
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(case.label)))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} organs")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segment = node.GetSegmentation().AddEmptySegment("stomach", NEW)
        mask = (labels == case.labels.find(NEW).label).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
        return node

    def addPatient(self, name: str) -> None:
        """Load a patient, choose both nodes, press Add."""
        volume, segmentation = self.loadPatient(name)
        ui = self.panel.cases.ui
        ui.volumeSelector.setCurrentNode(volume)
        ui.segmentationSelector.setCurrentNode(segmentation)
        ui.addButton.click()

    def prepare(self, patients=PATIENTS) -> None:
        """Everything but Start: organ, cases, settings of a very short update."""
        self.chooseOrgan("stomach")
        for name in patients:
            self.addPatient(name)
        for name, value in QUICK.items():
            setattr(self.session.state, name, value)


class CaseTest(PanelTest):
    """A panel that waits for cases of the stomach."""

    def setUp(self) -> None:
        super().setUp()
        self.ui = self.panel.cases.ui
        self.chooseOrgan("stomach")

    def state(self, row: int = 0) -> str:
        return self.ui.caseTable.item(row, 2).text()
