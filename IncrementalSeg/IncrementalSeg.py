"""IncrementalSeg: teach a multi-organ CT segmentation model a further organ without forgetting those it knows."""

import slicer
from IncrementalSegModule.Paths import forgetPanel, makeLibraryImportable
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class IncrementalSeg(ScriptedLoadableModule):
    """What the application shows of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        makeLibraryImportable()
        parent.title = _("IncrementalSeg")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Terminologies", "Volumes"]
        parent.contributors = ["The IncrementalSeg contributors"]
        parent.helpText = _(
            "Add an organ to a CT segmentation model from a few scans on which only that organ is annotated. "
            "For research use only."
        )
        parent.acknowledgementText = _(
            "Joins MOSInversion (mask-guided model inversion) with prototype-guided calibrated distillation and "
            "dual-aligned prototypes; see the README for the papers."
        )
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self):
        """The application has loaded its modules: tell Sample Data which scans this one can be tried on."""
        from IncrementalSegModule.SampleScans import register

        register(self.resourcePath("Icons"))


class IncrementalSegWidget(ScriptedLoadableModuleWidget):
    """The panel's shell; what it shows is in IncrementalSegModule."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.logic = None
        self.panel = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from IncrementalSegModule.Panel import Panel

        self.logic = IncrementalSegLogic()
        self.panel = Panel(self.layout, self.resourcePath("UI"), self.logic.session)

    def enter(self):
        self.panel.enter()
        self.logic.session.look()

    def exit(self):
        self.panel.exit()

    def cleanup(self):
        """The module is unloaded or reloaded; Reload reads this file alone, what is forgotten here is read with it."""
        if self.panel:  # there is none where setup() failed
            self.panel.cleanup()
        forgetPanel()


class IncrementalSegLogic(ScriptedLoadableModuleLogic):
    """The verbs of the module, for the Python console and for other modules.

    ``wait=True`` returns when the work is done and keeps the GUI alive meanwhile; without it the work goes on in the
    background and the panel follows it. What cannot be done is an ``IncrementalSegError`` with one sentence.
    """

    _session = None  # the application's one, which the panel shows too

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        makeLibraryImportable()
        from IncrementalSegModule.Session import Session

        self.session = IncrementalSegLogic._session = IncrementalSegLogic._session or Session(self.getParameterNode)

    def models(self):
        """The models that can be chosen: ``ModelInfo`` with name, version, folder and contents (organs, history)."""
        return self.session.models.all()

    def useModel(self, name):
        """Make a model of the library, or "starter", the current one."""
        self.session.chooseModel(name)

    def addOrgan(self, name, parent=""):
        """Have the next update learn an organ, found by name in Slicer's terminologies.

        ``parent`` names the old organ that a tumour or cyst lies inside.
        """
        self.session.addOrgan(self.session.terminology.named(name), parent)

    def addCase(self, volume, segmentation, segment=""):
        """Add a scan with its annotation; ``segment`` is an ID, needed where neither codes nor name tell the organ."""
        self.session.addCase(volume, segmentation, segment)

    def startUpdate(self, wait=False, **settings):
        """Learn the new organs; the answer is the job's folder. ``settings`` are those of `Parameters.SETTINGS`."""
        self.session.configure(settings)
        job = self.session.startUpdate()
        if wait:
            self.session.wait()
        return str(job.folder)

    def cancel(self):
        """Stop update and predictions; an update can be resumed in the panel."""
        self.session.update.cancel()
        self.session.predictor.cancel()

    def report(self):
        """The content of ``report.json`` of the update at hand, None before it has finished."""
        return self.session.job.report if self.session.job else None

    def accept(self, name="", losing=False):
        """Make the candidate the current version of a model (by default the one it grew from), even if organs go."""
        return str(self.session.accept(name, losing))

    def discard(self):
        """Leave the candidate; the scene is as it was before the review."""
        self.session.discard()

    def revert(self, name, version):
        """Make a kept version of a model current again."""
        self.session.models.library.revert(name, version)
        self.session.changed()

    def predict(self, *volumes, wait=False):
        """Predict scans with the current model into new segmentations, which are the answer where ``wait`` is set."""
        self.session.predict(list(volumes))
        if wait:
            self.session.wait()
        return [task.result for task in self.session.predictor.done] if wait else None


class IncrementalSegTest(ScriptedLoadableModuleTest):
    """Reload and Test runs the panel's tests, where the extension was built with them."""

    def runTest(self):
        from IncrementalSegModule.SelfTest import runTests

        runTests()
