"""The whole panel: five steps that open as they become possible, and prediction."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.util import VTKObservationMixin

from .CasesPanel import CasesPanel
from .Gui import orderTabs
from .ModelPanel import ModelPanel
from .OrganPanel import OrganPanel
from .PredictPanel import PredictPanel
from .ReviewPanel import ReviewPanel
from .Session import Session
from .UpdatePanel import UpdatePanel


class Panel(VTKObservationMixin):
    """Puts the steps into their sections and refreshes them when the session or the scene changes."""

    def __init__(self, layout: Any, folder: str, session: Session) -> None:
        VTKObservationMixin.__init__(self)
        self.session = session
        self.widget = slicer.util.loadUI(f"{folder}/IncrementalSeg.ui")
        layout.addWidget(self.widget)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.model = ModelPanel(self.ui.modelSection, folder, session)
        self.organ = OrganPanel(self.ui.organSection, folder, session)
        self.cases = CasesPanel(self.ui.casesSection, folder, session)
        self.update = UpdatePanel(self.ui.updateSection, folder, session)
        self.review = ReviewPanel(self.ui.reviewSection, folder, session)
        self.predict = PredictPanel(self.ui.predictSection, folder, session)
        orderTabs(self.widget)
        session.listeners.append(self.refresh)
        session.watchers.append(self.watch)
        for event in (slicer.mrmlScene.EndCloseEvent, slicer.mrmlScene.EndImportEvent):
            self.addObserver(slicer.mrmlScene, event, self._sceneChanged)
        self._reviewed, self._opened = "", set()
        self.enter()

    @property
    def steps(self) -> list[Any]:
        """The parts of the panel from top to bottom."""
        return [self.model, self.organ, self.cases, self.update, self.review, self.predict]

    def enter(self) -> None:
        """The user came to this module: annotations may have changed elsewhere."""
        self.cases.enter()
        self.update.bind(self.session.state)
        self.refresh()

    def exit(self) -> None:
        """The user went to another module; work goes on."""

    def cleanup(self) -> None:
        """The panel goes: the worker stops where it can be resumed."""
        self.removeObservers()
        self.update.unbind()
        self.session.listeners.remove(self.refresh)
        self.session.watchers.remove(self.watch)
        self.session.update.cancel()
        for work in (self.session.predictor, self.session.dreams, self.session.foreign, self.session.machine.process):
            work.cancel()

    def _sceneChanged(self, caller: Any, event: Any) -> None:
        self.update.bind(self.session.state)
        self.session.forget()

    def refresh(self) -> None:
        """Show the session as it is."""
        for step in self.steps:
            step.refresh()
        self._openWhatIsPossible()

    def watch(self) -> None:
        """Show how far the work in the background is."""
        for step in (self.update, self.review, self.predict):
            step.watch()

    def _openWhatIsPossible(self) -> None:
        """A step that nothing can be done in yet is greyed; the review opens when an update has finished."""
        session = self.session
        usable = session.model is not None and session.model.contents is not None
        finished = session.job is not None and session.job.finished
        self.ui.organSection.enabled = usable
        self.ui.casesSection.enabled = usable and bool(session.organs)
        self.ui.updateSection.enabled = usable
        self.ui.reviewSection.enabled = finished
        self.ui.predictSection.enabled = usable
        at = str(session.job.folder) if finished else ""
        if at != self._reviewed:
            self._reviewed = at
            self.ui.reviewSection.collapsed = not finished
        self._openOnce("cases", bool(session.organs))
        self._openOnce("update", session.parameters().isValid()[0] or self.update.hasStopped)

    def _openOnce(self, step: str, possible: bool) -> None:
        """Open a step when it becomes possible; the user may close it again."""
        if possible and step not in self._opened:
            getattr(self.ui, f"{step}Section").collapsed = False
        self._opened = self._opened | {step} if possible else self._opened - {step}
