"""Step 5: before and after, inversion images, merged predictions; accept or discard."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import qt
import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.document import job_page, write_job_document
from IncrementalSegLib.models.contents import read_contents
from IncrementalSegLib.organs import OrganTable
from IncrementalSegLib.storage import write_text

from .Cases import CaseRow
from .Dreams import THUMBNAIL, Dream, dreamsIn, load, thumbnail
from .Gui import alarm, ask, choices, fill, loadInto, saying
from .Predict import Task
from .PredictPanel import showVolumes, surfaces
from .Review import MergePolicy, columns, differing, merging, rows, verdict
from .SegmentationIO import Steps, segmenting
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
        ui.gallery.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        ui.policySelector.addItems([policy.label() for policy in MergePolicy])
        for number, policy in enumerate(MergePolicy):
            ui.policySelector.setItemData(number, policy.explanation(), qt.Qt.ToolTipRole)
        ui.openReportButton.connect("clicked(bool)", self.onOpenReport)
        ui.saveReportButton.connect("clicked(bool)", self.onSaveReport)
        ui.dreamButton.connect("clicked(bool)", self.onDream)
        ui.gallery.connect("itemClicked(QListWidgetItem*)", self.onDreamClicked)
        ui.gallery.connect("itemActivated(QListWidgetItem*)", self.onDreamClicked)  # by the Enter key
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
        cells = [[row.name, row.result, row.before, row.after, row.agreement] for row in shown]
        fill(self.ui.organTable, list(columns()), cells, [row.bad for row in shown], list(columns().values()))
        self.ui.verdictLabel.text = f"<b>{verdict(report)}</b>" if report else ""
        red = alarm(self.ui.sentencesLabel).name()
        self.ui.sentencesLabel.text = "<br>".join(
            f'<span style="color: {red}">{row.sentence}</span>' if row.bad else row.sentence for row in shown
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
        self.ui.compareButton.text = _("Cancel") if predicting else _("Compare old and new model")
        self.ui.compareButton.enabled = predicting or bool(cases)
        self.ui.compareLabel.text = self.session.predictor.sentence
        self.ui.compareLabel.visible = bool(self.session.predictor.sentence)
        self.ui.dreamButton.text = _("Cancel") if dreams.running else _("Make synthetic images")
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

    @staticmethod
    def _oldOrgans(job: Any) -> OrganTable:
        return read_contents(job.base()).organs

    def onOpenReport(self, checked: bool = False) -> None:
        """Show the report in the browser, with the synthetic images made so far."""
        with saying(_("The report was not opened.")):
            page = write_job_document(self.session.job.folder)
            if not ask["show"](str(page)):
                ask["inform"](_("No browser could be opened. The report is {path}").format(path=page))

    def onSaveReport(self, checked: bool = False) -> None:
        """Write the report where the user wants it; pictures of a patient's scan only where they are asked for."""
        target = ask["saveFile"](_("Save report"), f"{self.session.acceptedName()} report.html")
        if target:
            with saying(_("The report was not saved.")):
                write_text(Path(target), job_page(self.session.job.folder, scans=self.ui.scansCheckBox.checked))

    def onDream(self, checked: bool = False) -> None:
        """Have the candidate dream, or stop it."""
        if self.session.dreams.running:
            self.session.dreams.cancel()
            return
        job = self.session.job
        with saying(_("No images were made.")):
            self.session.dreams.make(job.folder / "model", job.folder, self.ui.dreamSpinBox.value)

    def onDreamClicked(self, item: Any) -> None:
        """Show the image that was clicked, apart from the user's data; it is loaded once."""
        dream, shown, job = self._dreams[self.ui.gallery.row(item)], self.session.shown, self.session.state.job
        with saying(_("The image was not loaded.")):
            nodes = shown.of(str(dream.ct), job)
            if len(nodes) != 2:  # never loaded, or the user deleted one of both
                left, nodes = nodes, load(dream, self._organs(self.session.job), self.session.acceptedName())
                for node in nodes:
                    shown.add(node, _("Synthetic images (no patient)"), job, str(dream.ct))
                for node in left:
                    slicer.mrmlScene.RemoveNode(node)
            scan, segmentation = nodes
            shown.present(scan, [segmentation])

    def onCompare(self, checked: bool = False) -> None:
        """Predict the chosen case with both models and show what they say, the difference and the merge; or cancel."""
        if self.session.predictor.running:
            self.session.predictor.cancel()
            return
        self._maps = {}
        with saying(_("The models were not compared.")):
            job, row = self.session.job, self._rows[self.ui.caseSelector.currentIndex]
            models = {_("old model"): job.base(), _("new model"): job.folder / "model"}
            self.session.predictor.add(
                [
                    Task(model, row.volume, partial(self._compared, job, row, when), name=f"{row.name}, {when}")
                    for when, model in models.items()
                ]
            )

    def _compared(self, job: Any, row: CaseRow, when: str, path: Any) -> Steps:
        """One of the two predictions is there; with both, show them."""
        self._maps[when] = sitk.ReadImage(str(path))
        yield
        if len(self._maps) < 2:
            return
        folder, old, new = _("Review of {name}").format(name=row.name), self._oldOrgans(job), self._organs(job)
        before, after = self._maps.values()
        policy = list(MergePolicy)[self.ui.policySelector.currentIndex]
        steps = {
            _("old model"): lambda name: segmenting(before, old, name, row.volume),
            _("new model"): lambda name: segmenting(after, new, name, row.volume),
            _("difference"): lambda name: differing(row.volume, before, after, old, name),
            _("merged"): lambda name: merging(row.volume, after, new, row.segmentation, policy, name),
        }
        for what, step in steps.items():
            node = yield from step(f"{row.name}: {what}")
            self.session.shown.add(node, folder, str(job.folder), beside=row.volume)
            node.GetDisplayNode().SetVisibility(False)
            yield
        self.session.shown.present(row.volume, [node])
        yield
        showVolumes(self.ui.volumeTable, node)
        if self.ui.threeDCheckBox.checked:
            surfaces(node)

    def onAccept(self, checked: bool = False) -> None:
        """Make the candidate the current version."""
        job, name = self.session.job, self.ui.nameEdit.text.strip() or self.session.acceptedName()
        with saying(_("The model was not accepted.")):
            doubts = [] if job.report["verdict"] == "good" else [verdict(job.report)]
            loss = self.session.models.loss(name, job.folder / "model")
            doubts += [loss] if loss else []
            if not doubts or ask["confirm"](" ".join([*doubts, _("Accept anyway?")])):
                self.session.accept(name, losing=bool(loss))

    def onDiscard(self, checked: bool = False) -> None:
        """Leave the candidate; its job folder stays in step 4 until it is deleted there."""
        if ask["confirm"](_("Discard this update? Its folder stays in the list of updates until you delete it.")):
            self.session.discard()
