"""Step 1: the current model, its versions, and the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.library import Change
from IncrementalSegLib.starter import STARTER

from . import Dependencies
from .Gui import ask, choices, loadInto, saying, swatch
from .Models import ModelInfo
from .Session import Session

# Files by which a folder is chosen, and how far below it they lie.
_MARKS = {"checksums.json": 0, "plans.json": 0, "labels.csv": 0, "metadata.json": 1}


class ModelPanel:
    """Lists the models and acts on the current one."""

    def __init__(self, section: Any, folder: str, session: Session) -> None:
        self.session = session
        self.ui = ui = loadInto(section, f"{folder}/Model.ui")
        ui.modelSelector.connect("currentIndexChanged(int)", self.onChosen)
        ui.importButton.connect("clicked(bool)", self.onImport)
        ui.exportButton.connect("clicked(bool)", self.onExport)
        ui.auto3DSegButton.connect("clicked(bool)", self.onAuto3DSeg)
        ui.folderButton.connect("clicked(bool)", self.onFolder)
        ui.deleteButton.connect("clicked(bool)", self.onDelete)
        ui.revertButton.connect("clicked(bool)", self.onRevert)
        ui.measureButton.connect("clicked(bool)", self.onMeasure)
        ui.installButton.connect("clicked(bool)", self.onInstall)
        ui.copyReportButton.connect("clicked(bool)", self.onCopyReport)
        self._infos: list[ModelInfo] = []
        self.showEnvironment()

    def refresh(self) -> None:
        """Show the models as they are."""
        self._infos, info = self.session.models.all(), self.session.model
        names = [each.name for each in self._infos]
        choices(self.ui.modelSelector, [each.title for each in self._infos], names.index(info.name) if info else -1)
        self.ui.organsLabel.text = _organs(info) if info else _("No model: import one.")
        self.ui.factsLabel.text = self._facts(info) if info else ""
        self.ui.factsLabel.toolTip = "\n".join(map(_change, info.history)) if info else ""
        own = bool(info and info.version)
        versions = self.session.models.library.versions(info.name) if own else []
        texts = [_("version {number}").format(number=number) for number in versions]
        choices(self.ui.versionSelector, texts, versions.index(info.version) if own else -1)
        for widget in (self.ui.versionLabel, self.ui.versionSelector, self.ui.revertButton):
            widget.visible = len(versions) > 1
        self.ui.importButton.enabled = not self.session.foreign.running
        self.ui.importButton.text = _("Import…") if self.ui.importButton.enabled else _("Reading …")
        self.ui.exportButton.enabled = self.ui.folderButton.enabled = bool(info and info.folder)
        self.ui.auto3DSegButton.visible = bool(info and info.contents and info.contents.is_auto3dseg)
        self.ui.auto3DSegButton.enabled = not self.session.foreign.running
        self.ui.deleteButton.enabled = bool(info and info.name != STARTER)
        self.ui.deviceLabel.text = self.session.machine.sentence
        self.ui.measureButton.enabled = bool(info and info.contents) and not self.session.machine.running

    def showEnvironment(self) -> None:
        """Look at what is installed, which changes by installing only."""
        missing = Dependencies.missing()
        self.ui.environmentLabel.text = Dependencies.sentence(missing)
        self.ui.installButton.visible = bool(missing)

    def _facts(self, info: ModelInfo) -> str:
        if info.problem:
            return info.problem
        size = self.session.models.library.size_mb(info.name) if info.version else None
        return "; ".join(filter(None, [info.date, size and _("{size} MB on disk").format(size=f"{size:.1f}")]))

    def onChosen(self, index: int) -> None:
        """Another model was chosen from the list."""
        with saying(_("The model was not chosen.")):
            self.session.chooseModel(self._infos[index].name)

    def onImport(self, checked: bool = False) -> None:
        """Take a package, or a model of another tool, into the library."""
        chosen = ask["openFile"](
            _("Model: zip, or the file in its folder (MONAI, Auto3DSeg, nnU-Net)"), " ".join(["*.zip", *_MARKS])
        )
        if not chosen:
            return
        path, models = Path(chosen), self.session.models
        source = path.parents[_MARKS[path.name]] if path.name in _MARKS else path
        with saying(_("The model was not imported.")):
            if models.isPackage(source):
                with models.opened(source) as package:
                    self._take(package, source.stem)
            else:
                self.session.readForeign(source, lambda package, said: self._arrived(package, source.stem, said))

    def _arrived(self, package: Path | None, name: str, said: str) -> None:
        """The worker has read a model of another tool, or says why it cannot."""
        with saying(_("The model was not imported.")):
            if package is None:
                raise InputError(said)
            if said:
                ask["inform"](said)
            self._take(package, name)

    def _take(self, package: Path, suggested: str) -> None:
        """Make a package a model of the library, under a name that the user gives."""
        name = ask["text"](_("Name of the model"), suggested)
        if name and self._replaces(name, package):
            self.session.models.library.accept(package, name)
            self.session.chooseModel(name)

    def _replaces(self, name: str, package: Path) -> bool:
        """Whether a package is to become a version of this model: asked where there is one of that name."""
        models = self.session.models
        if name not in models.library.names():
            return True
        text = _("There is a model '{name}' already. Import this one as its newest version?").format(name=name)
        return bool(ask["confirm"](" ".join(filter(None, [models.loss(name, package), text]))))

    def onExport(self, checked: bool = False) -> None:
        """Write the current model as a zip."""
        info = self.session.model
        target = ask["saveFile"](_("Export model"), f"{info.name}-v{info.version}.zip")
        if target:
            with saying(_("The model was not exported.")):
                self.session.models.zipped(info.folder, Path(target))

    def onAuto3DSeg(self, checked: bool = False) -> None:
        """Write the current model as a zip that MONAIAuto3DSeg opens."""
        info = self.session.model
        target = ask["saveFile"](_("Export for MONAIAuto3DSeg"), f"{info.name}-v{info.version}-auto3dseg.zip")
        if target:
            with saying(_("The model was not exported.")):
                self.session.writeForAuto3DSeg(lambda folder, said: self._written(folder, Path(target), said))

    def _written(self, folder: Path | None, target: Path, said: str) -> None:
        """The worker has written the model, or says why it cannot."""
        with saying(_("The model was not exported.")):
            if folder is None:
                raise InputError(said)
            self.session.models.zipped(folder, target)

    def onFolder(self, checked: bool = False) -> None:
        """Open the package's folder in the file manager."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.session.model.folder)))

    def onDelete(self, checked: bool = False) -> None:
        """Delete the current model with all its versions."""
        name = self.session.model.name
        if ask["confirm"](_("Delete model '{name}' with all its versions? This cannot be undone.").format(name=name)):
            with saying(_("The model was not deleted.")):
                self.session.deleteModel(name)
        self.session.changed()

    def onRevert(self, checked: bool = False) -> None:
        """Make the chosen version current."""
        info = self.session.model
        with saying(_("The version was not changed.")):
            versions = self.session.models.library.versions(info.name)
            self.session.models.library.revert(info.name, versions[self.ui.versionSelector.currentIndex])
        self.session.changed()

    def onMeasure(self, checked: bool = False) -> None:
        """Find out what an update takes here."""
        with saying(_("The machine was not measured.")):
            self.session.measure()

    def onInstall(self, checked: bool = False) -> None:
        """Install what is missing, after asking."""
        missing = Dependencies.missing()
        if ask["confirm"](_("Install {names}?").format(names=", ".join(missing))):
            with saying(_("Not everything was installed.")):
                Dependencies.install(missing)
        self.showEnvironment()
        self.session.look()

    def onCopyReport(self, checked: bool = False) -> None:
        """Put versions and paths on the clipboard."""
        qt.QApplication.clipboard().setText(Dependencies.report())


def _change(change: Change) -> str:
    """Who made which version current, and when."""
    text = _("version {number} accepted") if change.action == "accept" else _("back to version {number}")
    return f"{change.when[:16].replace('T', ' ')} UTC, {change.who}: {text.format(number=change.version)}"


def _organs(info: ModelInfo) -> str:
    """Organs with colour and, where it is known, DSC."""
    if info.contents is None:
        return ""
    dsc = info.contents.dsc
    return " &nbsp; ".join(
        swatch(organ.color, organ.name + (f" {dsc[organ.key]:.2f}" if organ.key in dsc else ""))
        for organ in info.contents.organs
    )
