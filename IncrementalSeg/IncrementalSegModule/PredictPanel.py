"""Prediction of scans with the current model."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from .CaseChecks import sideWarning
from .Gui import fill, loadInto, saying
from .SegmentationIO import volumesMl
from .Session import Session
from .Shown import Shown


class PredictPanel:
    """A scan, a button that becomes Cancel, and the organs' volumes."""

    def __init__(self, section: Any, folder: str, session: Session) -> None:
        self.session = session
        self.ui = ui = loadInto(section, f"{folder}/Predict.ui")
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onVolume)
        ui.predictButton.connect("clicked(bool)", self.onPredict)
        ui.predictAllButton.connect("clicked(bool)", self.onPredictAll)
        ui.threeDButton.connect("clicked(bool)", self.onThreeD)
        self._shown: Any = None
        self._warning = ""

    def refresh(self) -> None:
        """Show what is predicted now, and the last result."""
        predictor, ui = self.session.predictor, self.ui
        ui.predictButton.text = _("Cancel") if predictor.running else _("Predict all organs")
        ui.predictButton.enabled = predictor.running or ui.volumeSelector.currentNode() is not None
        ui.progressBar.visible = predictor.running
        self.watch()
        ui.predictAllButton.visible = not predictor.running and ui.volumeSelector.nodeCount() > 1
        results = [task.result for task in predictor.done if task.result is not None]
        if results and results[-1] is not self._shown:
            self._shown = results[-1]
            showVolumes(ui.volumeTable, self._shown)
            self._warning = sideWarning(self._shown)
        ui.stateLabel.text = predictor.sentence or self._warning
        ui.stateLabel.visible = bool(ui.stateLabel.text)
        ui.threeDButton.enabled = self._shown is not None and self._shown.GetScene() is not None
        ui.volumeTable.visible = ui.threeDButton.enabled

    def watch(self) -> None:
        """Show how far the prediction is."""
        progress = self.session.predictor.progress
        self.ui.progressBar.setRange(0, progress.of)
        self.ui.progressBar.value = progress.step

    def onVolume(self, node: Any = None) -> None:
        """Another scan was chosen."""
        self.refresh()

    def onPredict(self, checked: bool = False) -> None:
        """Predict the chosen scan, or cancel."""
        if self.session.predictor.running:
            self.session.predictor.cancel()
            return
        with saying(_("Nothing was predicted.")):
            self.session.predict([self.ui.volumeSelector.currentNode()])

    def onPredictAll(self, checked: bool = False) -> None:
        """Predict every scan in the scene, one after another."""
        with saying(_("Nothing was predicted.")):
            self.session.predict(
                [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if _isScan(node)]
            )

    def onThreeD(self, checked: bool = False) -> None:
        """Make surfaces of the last result."""
        surfaces(self._shown)


def _isScan(node: Any) -> bool:
    """Whether a volume is a scan: label maps are no scans, and neither are synthetic ones."""
    return node.GetClassName() == "vtkMRMLScalarVolumeNode" and not Shown.has(node)


def surfaces(segmentation: Any) -> None:
    """Show a segmentation in 3D; Slicer stands still while it makes the surfaces, seconds for a whole CT."""
    with slicer.util.WaitCursor():
        segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetDisplayNode().SetVisibility3D(True)
    slicer.app.layoutManager().resetThreeDViews()


def showVolumes(table: Any, segmentation: Any) -> None:
    """Organ volumes of a segmentation in mL."""
    segments = segmentation.GetSegmentation()
    rows = [[segments.GetSegment(key).GetName(), f"{ml:.1f}"] for key, ml in volumesMl(segmentation).items()]
    fill(table, [_("Organ"), _("Volume (mL)")], rows)
