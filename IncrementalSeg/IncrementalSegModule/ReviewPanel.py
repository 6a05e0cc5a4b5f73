"""Step 5: before and after, inversion images, merged predictions; accept or discard."""

from __future__ import annotations

from typing import Any

import qt
import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.models.contents import read_contents
from IncrementalSegLib.organs import OrganTable

from .Cases import CaseRow
from .Dreams import THUMBNAIL, Dream, dreamsIn, show, thumbnail
from .Gui import ask, choices, fill, loadInto, saying
from .Predict import Task
from .PredictPanel import showVolumes
from .Review import MergePolicy, differenceSegmentation, mergedSegmentation, rows, verdict
from .SegmentationIO import segmentationOf
from .Session import Session


class ReviewPanel:
    """Shows a finished update and asks for the decision."""

    def __init__(self, section: Any, folder: str, session: Session) -> None:
        self.session = session
        self.ui = ui = loadInto(section, f"{folder}/Review.ui")
        ui.gallery.setViewMode(qt.QListView.IconMode)
        ui.gallery.setIconSize(qt.QSize(THUMBNAIL, THUMBNAIL))
        ui.gallery.setResizeMode(qt.QListView.Adjust)
        ui.gallery.setFixedHeight(2 * THUMBNAIL + 60)
        ui.policySelector.addItems([policy.label() for policy in MergePolicy])
        ui.dreamButton.connect("clicked(bool)", self.onDream)
        ui.gallery.connect("itemClicked(QListWidgetItem*)", self.onDreamClicked)
        ui.compareButton.connect("clicked(bool)", self.onCompare)
        ui.acceptButton.connect("clicked(bool)", self.onAccept)
        ui.discardButton.connect("clicked(bool)", self.onDiscard)
        self._at = ""
        self._dreams: list[Dream] = []
        self._rows: list[CaseRow] = []
        self._maps: dict[str, sitk.Image] = {}

    def refresh(self) -> None:
        """Show the update at hand, once; what goes on in the background, every time."""
        job = self.session.job
        finished = job is not None and job.finished
        at = str(job.folder) if finished else ""
        if at != self._at:
            self._at = at
            self._show(job if finished else None)
        if finished:
            self._showBackground(job)

    def _show(self, job: Any) -> None:
        report = job.report if job else None
        shown = rows(report) if report else []
        head = [_("Organ"), _("DSC before"), _("DSC after"), _("Agreement")]
        fill(
            self.ui.organTable, head, [[r.name, r.before, r.after, r.agreement] for r in shown], [r.bad for r in shown]
        )
        self.ui.verdictLabel.text = verdict(report) if report else ""
        self.ui.sentencesLabel.text = "<br>".join(
            f'<span style="color: #be1e1e">{row.sentence}</span>' if row.bad else row.sentence for row in shown
        )
        self.ui.nameEdit.text = self.session.acceptedName() if job else ""
        self._dreams, self._maps = [], {}
        self.ui.gallery.clear()
        fill(self.ui.volumeTable, [_("Organ"), _("Volume (mL)")], [])

    def _showBackground(self, job: Any) -> None:
        self._rows = [row for row in self.session.cases.rows() if row.volume]
        cases = [row.name for row in self._rows]
        choices(self.ui.caseSelector, cases, max(0, min(self.ui.caseSelector.currentIndex, len(cases) - 1)))
        predicting, dreams = self.session.predictor.running, self.session.dreams
        self.ui.compareButton.enabled = bool(cases) and not predicting
        self.ui.compareLabel.text = self.session.predictor.sentence
        self.ui.compareLabel.visible = bool(self.session.predictor.sentence)
        self.ui.dreamButton.text = _("Cancel") if dreams.running else _("Dream up images")
        self.watch()
        found = dreamsIn(job.folder) if not dreams.running else self._dreams
        if found != self._dreams:
            self._dreams = found
            self.ui.gallery.clear()
            organs = self._organs(job)
            for dream in found:
                self.ui.gallery.addItem(qt.QListWidgetItem(qt.QIcon(thumbnail(dream, organs)), dream.name))

    def watch(self) -> None:
        """Show how far the images are."""
        dreams = self.session.dreams
        state = dreams.progress.sentence if dreams.running else dreams.failure
        self.ui.galleryLabel.text, self.ui.galleryLabel.visible = state, bool(state)

    @staticmethod
    def _organs(job: Any) -> OrganTable:
        return read_contents(job.folder / "model").organs

    def onDream(self, checked: bool = False) -> None:
        """Have the candidate dream, or stop it."""
        if self.session.dreams.running:
            self.session.dreams.cancel()
            return
        job = self.session.job
        with saying(_("No images were made.")):
            self.session.dreams.make(job.folder / "model", job.folder, self.ui.dreamSpinBox.value)

    def onDreamClicked(self, item: Any) -> None:
        """Load the image that was clicked, apart from the user's data."""
        dream = self._dreams[self.ui.gallery.row(item)]
        folder = _("Synthetic images (no patient)")
        with saying(_("The image was not loaded.")):
            for node in show(dream, self._organs(self.session.job), self.session.acceptedName()):
                self.session.shown.add(node, folder, self.session.state.job)

    def onCompare(self, checked: bool = False) -> None:
        """Predict the chosen case with the old and the new model, then show both, their difference and the merge."""
        self._maps = {}
        with saying(_("The models were not compared.")):
            job, row = self.session.job, self._rows[self.ui.caseSelector.currentIndex]
            models = {"before": (job.folder / job.job.model).resolve(), "after": job.folder / "model"}
            self.session.predictor.add(
                [
                    Task(model, row.volume, lambda path, when=when: self._compared(job, row, when, path))
                    for when, model in models.items()
                ]
            )

    def _compared(self, job: Any, row: Any, when: str, path: Any) -> None:
        """One of the two predictions is there; with both, show them."""
        self._maps[when] = sitk.ReadImage(str(path))
        if len(self._maps) < 2 or self.session.state.job != str(job.folder):
            return
        volume, folder = row.volume, _("Review of {name}").format(name=row.name)
        old = read_contents((job.folder / job.job.model).resolve()).organs
        new, policy = self._organs(job), list(MergePolicy)[self.ui.policySelector.currentIndex]
        before, after = self._maps["before"], self._maps["after"]
        merge = mergedSegmentation(
            volume, after, new, row.segmentation, policy, _("{name}: merged").format(name=row.name)
        )
        shown = [
            segmentationOf(before, old, _("{name}: old model").format(name=row.name), volume),
            segmentationOf(after, new, _("{name}: new model").format(name=row.name), volume),
            differenceSegmentation(volume, before, after, old, _("{name}: difference").format(name=row.name)),
            merge,
        ]
        for node in shown:
            self.session.shown.add(node, folder, str(job.folder))
            node.GetDisplayNode().SetVisibility(node is merge)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        if self.ui.threeDCheckBox.checked:
            merge.CreateClosedSurfaceRepresentation()
        showVolumes(self.ui.volumeTable, merge)

    def onAccept(self, checked: bool = False) -> None:
        """Make the candidate the current version."""
        report = self.session.job.report
        if report and report["verdict"] != "good" and not ask["confirm"](verdict(report) + " " + _("Accept anyway?")):
            return
        with saying(_("The model was not accepted.")):
            self.session.accept(self.ui.nameEdit.text.strip())

    def onDiscard(self, checked: bool = False) -> None:
        """Leave the candidate; its job folder stays in step 4 until it is deleted there."""
        if ask["confirm"](_("Discard this update? Its folder stays in the list of updates until you delete it.")):
            self.session.discard()
