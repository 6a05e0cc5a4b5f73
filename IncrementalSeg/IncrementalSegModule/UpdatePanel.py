"""Step 4: start, watch, cancel and resume an update."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from .Gui import ask, loadInto, saying
from .Jobs import JobFolder, allJobs
from .LossChart import lossChart, lossText
from .Parameters import SceneState
from .Session import Session


class UpdatePanel:
    """Length, advanced settings, Start ↔ Cancel, progress, and the updates so far."""

    def __init__(self, section: Any, folder: str, session: Session) -> None:
        self.session = session
        self.ui = ui = loadInto(section, f"{folder}/Update.ui")
        ui.startButton.connect("clicked(bool)", self.onStart)
        ui.resumeButton.connect("clicked(bool)", self.onResume)
        ui.openButton.connect("clicked(bool)", self.onOpen)
        ui.jobFolderButton.connect("clicked(bool)", self.onFolder)
        ui.deleteJobButton.connect("clicked(bool)", self.onDelete)
        ui.jobList.connect("currentRowChanged(int)", self.onSelected)
        ui.jobsSection.connect("contentsCollapsed(bool)", self.onJobsOpened)
        self._later = qt.QTimer(ui.widget)  # when the scene has the new setting too
        self._later.setSingleShot(True)
        self._later.connect("timeout()", self.showExpected)
        ui.presetSelector.connect("currentIndexChanged(int)", self.onSetting)
        ui.gpuCheckBox.connect("toggled(bool)", self.onSetting)
        for number in (ui.stepsSpinBox, ui.patchSpinBox, ui.batchSpinBox):
            number.connect("valueChanged(int)", self.onSetting)
        ui.jobList.setFixedHeight(90)
        ui.logEdit.setFixedHeight(120)
        self._jobs: list[JobFolder] = []
        self._bound: SceneState | None = None
        self._tag = 0
        self._wasRunning = True  # so that the first look lists the jobs

    def bind(self, state: SceneState) -> None:
        """Show the scene's settings in the widgets and keep both alike."""
        if state is self._bound:
            return
        self.unbind()
        named = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
        # connectGui, which reads the same property, gives no tag, and a closed scene's node would go on writing
        self._tag = state.connectParametersToGui({name: widget for name, widget in named.items() if name})
        self._bound = state

    def unbind(self) -> None:
        """Let go of the scene's settings: the widgets are to show others, or to end."""
        if self._bound is not None:
            self._bound.disconnectGui(self._tag)
            self._bound = None

    def refresh(self) -> None:
        """Show what the update does, or what keeps it from starting."""
        update, ui = self.session.update, self.ui
        valid, reason = (True, "") if update.running else self.session.parameters().isValid()
        ui.startButton.text = _("Cancel") if update.running else _("Start update")
        ui.startButton.enabled = not update.cancelling if update.running else valid and not self.session.preparing
        ui.problemLabel.text = update.failure or reason
        ui.problemLabel.visible = bool(ui.problemLabel.text)
        self.showExpected()
        for widget in (ui.presetSelector, ui.advancedSection):
            widget.enabled = not update.running
        self.watch()
        if update.running != self._wasRunning:
            self._wasRunning = update.running
            self.listJobs()

    def showExpected(self) -> None:
        """Show what an update with these settings takes."""
        self.ui.estimateLabel.text = self.session.expected

    def onSetting(self, value: Any = None) -> None:
        """Time or memory will be other ones."""
        self._later.start(0)

    def watch(self) -> None:
        """Show how far the update is."""
        update, ui = self.session.update, self.ui
        ui.progressBar.visible = ui.phaseLabel.visible = update.running
        ui.progressBar.value = update.progress.percent
        ui.phaseLabel.text = (
            _("Cancelling: the step at hand is finished first …") if update.cancelling else update.progress.sentence
        )
        ui.chartLabel.visible = bool(update.progress.losses)
        if update.progress.losses:
            ui.chartLabel.setPixmap(lossChart(update.progress.losses, ui.chartLabel))
            ui.chartLabel.toolTip = ui.chartLabel.accessibleDescription = lossText(update.progress.losses)
        log = "\n".join(update.progress.log)
        if ui.logEdit.plainText != log:
            ui.logEdit.setPlainText(log)

    def listJobs(self) -> None:
        """Read the job folders again."""
        self._jobs = allJobs()
        row = self.ui.jobList.currentRow
        self.ui.jobList.clear()
        for job in self._jobs:
            size = _("{size} MB").format(size=f"{job.sizeMB:.0f}")
            self.ui.jobList.addItem(f"{job.title}, {size}")
            self.ui.jobList.item(self.ui.jobList.count - 1).setToolTip(job.problem)
        first = 0 if self._jobs else -1
        self.ui.jobList.setCurrentRow(row if 0 <= row < len(self._jobs) else first)
        if self.hasStopped:
            self.ui.jobsSection.collapsed = False
        self.onSelected()

    @property
    def hasStopped(self) -> bool:
        """Whether an update waits to be resumed."""
        return any(job.resumable for job in self._jobs) and not self.session.update.running

    @property
    def selected(self) -> JobFolder | None:
        """The job that is selected in the list."""
        row = self.ui.jobList.currentRow
        return self._jobs[row] if 0 <= row < len(self._jobs) else None

    def onSelected(self, row: int = 0) -> None:
        """Offer what can be done with the selected job."""
        job, busy = self.selected, self.session.update.running
        free = job is not None and not busy and not job.running
        self.ui.resumeButton.enabled = free and job.resumable
        self.ui.openButton.enabled = job is not None and job.finished and not job.problem
        self.ui.deleteJobButton.enabled = free
        self.ui.jobFolderButton.enabled = job is not None

    def onJobsOpened(self, collapsed: bool) -> None:
        """The list was opened: show it as it is now."""
        if not collapsed:
            self.listJobs()

    def onStart(self, checked: bool = False) -> None:
        """Start, or cancel what runs."""
        if self.session.update.running:
            self.session.update.cancel()
            return
        with saying(_("The update did not start.")):
            self.session.startUpdate()

    def onResume(self, checked: bool = False) -> None:
        """Go on with the selected job."""
        with saying(_("The update was not resumed.")):
            self.session.resume(self.selected)

    def onOpen(self, checked: bool = False) -> None:
        """Show the selected job's results in step 5."""
        self.session.review(self.selected)

    def onFolder(self, checked: bool = False) -> None:
        """Open the selected job's folder in the file manager."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.selected.folder)))

    def onDelete(self, checked: bool = False) -> None:
        """Delete the selected job's folder."""
        job = self.selected
        if ask["confirm"](_("Delete this update with its candidate ({size} MB)?").format(size=f"{job.sizeMB:.0f}")):
            with saying(_("The update was not deleted.")):
                self.session.deleteJob(job)
        self.listJobs()
