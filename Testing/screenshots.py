"""Writes a picture of every step of the panel: python Testing/screenshots.py OUT [--cases FOLDER --organ NAME].

    python Testing/screenshots.py --tutorial    those of docs/tutorial.md, where it has them, small

Without a dataset folder CT phantoms are used and a model of liver and spleen is trained on them first. With one, the
starter model learns the organ from its first four cases. Everything is done by clicks, and the update is a real one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "Testing"), str(REPOSITORY / "Testing" / "module")]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", help="by default where the tutorial has its pictures")
    parser.add_argument("--tutorial", action="store_true", help="go through the tutorial, with its scans")
    parser.add_argument("--cases", type=Path, help="dataset folder; phantoms without it")
    parser.add_argument("--organ", default="Stomach")
    parser.add_argument("--steps", type=int, help="of the update: 150, or what the tutorial chooses")
    options = parser.parse_args()
    if not (options.out or options.tutorial):
        parser.error("OUT is missing: the folder of the pictures")
    options.out = options.out or REPOSITORY / "Resources" / "Screenshots" / "tutorial"
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"INCREMENTALSEG_HOME": home, "LOGNAME": "anna"}
        (Tutorial if options.tutorial else Story)(options).tell()


class Story:
    """A user's way through the panel."""

    def __init__(self, options: argparse.Namespace) -> None:
        import host

        self.options, self.app = options, host.start()
        self.module = self.app.loadScriptedModule(REPOSITORY / "IncrementalSeg" / "IncrementalSeg.py")
        import slicer
        from IncrementalSegModule import Gui

        self.slicer = slicer
        Gui.ask["confirm"] = lambda *texts: True
        self.widget = slicer.util.getModuleWidget("IncrementalSeg")
        self.panel, self.session = self.widget.panel, self.widget.logic.session
        self.number = 0
        view = self.app.layoutManager().threeDWidget(0).mrmlViewNode()
        view.SetBoxVisible(False)
        view.SetAxisLabelsVisible(False)

    def picture(self, name: str, *opened: str) -> None:
        """Open these sections, close the others, and write a picture."""
        from host.window import picture

        for section in ("model", "organ", "cases", "update", "review", "predict"):
            getattr(self.panel.ui, f"{section}Section").collapsed = section not in opened
        self.number += 1
        path = self.options.out / f"{self.number}-{name}.png"
        picture(path, self.module.widgetRepresentation())
        print(path, flush=True)

    def wait(self, busy: Callable[[], bool]) -> None:
        """Let the application live while something goes on."""
        while busy():
            self.app.processEvents()
            time.sleep(0.02)

    def tell(self) -> None:
        """All steps."""
        folder, settings = self._material()
        self.panel.model.ui.measureButton.click()
        self.wait(lambda: self.session.machine.running)
        self.panel.organ.ui.searchEdit.setText(self.options.organ[:4].lower())
        self.picture("model-and-organ", "model", "organ")
        self.panel.organ.ui.addButton.click()
        volumes = self._cases(folder)
        self.picture("cases", "organ", "cases")
        for name, value in settings.items():
            setattr(self.session.state, name, value)
        self.panel.update.ui.startButton.click()
        self.wait(lambda: self.session.update.running and len(self.session.update.progress.losses) < 25)
        self.picture("update", "cases", "update")
        self.wait(lambda: self.session.update.running)
        if self.session.update.failure:
            raise SystemExit(self.session.update.failure)
        self.picture("review", "review")
        self._dream()
        self._compare()
        self.panel.review.ui.acceptButton.click()
        self.picture("accepted", "model", "predict")
        self._predict(volumes[-1])

    def _material(self) -> tuple[Path, dict[str, Any]]:
        settings: dict[str, Any] = {"steps": self.options.steps or 150}
        if self.options.cases:
            return self.options.cases, settings
        from panel_testing import material

        self.session.models.library.accept(material() / "base" / "model", "Abdomen")
        self.session.changed()
        return material() / "patients", {**settings, "patch": 32, "batch": 1}

    def _cases(self, folder: Path) -> list[Any]:
        from IncrementalSegModule.FolderImport import loadFolder

        volumes = []
        for volume, segmentation in loadFolder(folder, self.session.organs):
            volumes.append(volume)
            self.session.addCase(volume, segmentation)
            if len(volumes) == 4:
                break
        self.panel.cases.ui.caseTable.selectRow(0)
        self.panel.cases.onClicked(0, 0)
        return volumes

    def _dream(self) -> None:
        ui = self.panel.review.ui
        ui.dreamSpinBox.value = 4
        ui.dreamButton.click()
        self.wait(lambda: self.session.dreams.running)
        ui.imagesSection.collapsed = False
        self.panel.review.onDreamClicked(ui.gallery.item(0))
        self.picture("inversion-images", "review")
        ui.imagesSection.collapsed = True
        self.session.shown.clear(self.session.state.job)

    def _compare(self) -> None:
        ui = self.panel.review.ui
        ui.mergedSection.collapsed = False
        ui.threeDCheckBox.checked = True
        ui.compareButton.click()
        self.wait(lambda: self.session.predictor.running)
        self.app.layoutManager().resetThreeDViews()
        self.picture("merged-predictions", "review")
        self.session.shown.clear(self.session.state.job)

    def _predict(self, volume: Any) -> None:
        ui = self.panel.predict.ui
        ui.volumeSelector.setCurrentNode(volume)
        ui.predictButton.click()
        self.wait(lambda: self.session.predictor.running)
        for node in self.slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            node.GetDisplayNode().SetVisibility(node.GetName() == f"{volume.GetName()}: all organs")
        self.slicer.util.setSliceViewerLayers(background=volume, fit=True)
        ui.threeDButton.click()
        self.app.layoutManager().resetThreeDViews()
        self.picture("predict", "predict")


class Tutorial(Story):
    """docs/tutorial.md, click by click, with its scans: phantoms, and the starter model."""

    size = (1160, 700)

    def picture(self, name: str, *opened: str, panel: Any = None) -> None:
        """As `Story.picture`; of another module's panel where one is given, and with few colours, for a small file."""
        from host.window import picture
        from PIL import Image

        for section in ("model", "organ", "cases", "update", "review", "predict"):
            getattr(self.panel.ui, f"{section}Section").collapsed = section not in opened
        self.number += 1
        path = self.options.out / f"{self.number}-{name}.png"
        picture(path, panel or self.module.widgetRepresentation(), self.size)
        with Image.open(path) as image:
            few = image.convert("RGB").quantize(80, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(path, optimize=True)
        print(f"{path} {path.stat().st_size / 1000:.0f} kB", flush=True)

    def tell(self) -> None:
        """All steps."""
        volumes = self._plan()
        self._learn()
        self._decide(volumes)

    def _plan(self) -> list[Any]:
        """Sample data, model, organ, cases."""
        ui = self.panel
        self.app.startupCompleted.emit()
        samples = self.slicer.util.getModule("SampleData").widgetRepresentation()
        self.slicer.util.findChild(samples, "Four CT phantomsPushButton").click()
        self.picture("sample-data", panel=samples)
        ui.model.ui.measureButton.click()
        self.wait(lambda: self.session.machine.running)
        self.picture("model", "model")
        ui.organ.ui.searchEdit.setText("pancr")
        self.picture("organ", "organ")
        ui.organ.ui.addButton.click()
        volumes = self.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        for volume in volumes:
            ui.cases.ui.volumeSelector.setCurrentNode(volume)
            ui.cases.ui.segmentationSelector.setCurrentNode(self.slicer.util.getNode(f"{volume.GetName()}: annotation"))
            ui.cases.ui.addButton.click()
        ui.cases.ui.caseTable.selectRow(0)
        ui.cases.onClicked(0, 0)
        self.picture("cases", "cases")
        return list(volumes)

    def _learn(self) -> None:
        """A quick update that leaves the old organs alone."""
        ui = self.panel
        ui.update.ui.presetSelector.currentIndex = 0
        ui.update.ui.advancedSection.collapsed = False
        ui.update.ui.lockCheckBox.click()
        if self.options.steps:
            self.session.state.steps = self.options.steps
        self.picture("settings", "update")
        ui.update.ui.advancedSection.collapsed = True
        ui.update.ui.startButton.click()
        self.wait(lambda: self.session.update.running and len(self.session.update.progress.losses) < 25)
        self.picture("update", "update")
        self.wait(lambda: self.session.update.running)
        if self.session.update.failure:
            raise SystemExit(self.session.update.failure)

    def _decide(self, volumes: list[Any]) -> None:
        """Review, acceptance, prediction."""
        ui = self.panel
        self.picture("review", "review")
        ui.review.ui.mergedSection.collapsed = False
        ui.review.ui.caseSelector.currentIndex = len(volumes) - 1
        ui.review.ui.compareButton.click()
        self.wait(lambda: self.session.predictor.running)
        self.picture("compare", "review")
        self.session.shown.clear(self.session.state.job)
        ui.review.ui.mergedSection.collapsed = True
        ui.review.ui.nameEdit.setText("Abdomen with pancreas")
        ui.review.ui.acceptButton.click()
        self.picture("accepted", "model")
        self._predict(volumes[-1])


if __name__ == "__main__":
    main()
