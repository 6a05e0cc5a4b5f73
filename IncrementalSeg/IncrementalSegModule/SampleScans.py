"""Scans to try the module on, registered in Slicer's Sample Data module: a CT that Slicer offers, and phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import qt
import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import OrganTable

from . import Dependencies
from .Gui import saying
from .SegmentationIO import segmentationOf

CATEGORY = "IncrementalSeg"
CT, PHANTOMS = "Abdominal CT (CTLiver)", "Four CT phantoms"  # a script gets the second by loadPhantoms()
NEW_ORGAN = "Pancreas"  # which the starter model does not know
COUNT = 4  # from so many cases on, one is kept for the check

# Slicer's own CTLiver: case liver_100 of the Medical Segmentation Decathlon, CC BY-SA 4.0.
_CTLIVER = "SHA256", "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"
_SEED, _SIZE, _SPACING = 7, (128, 108, 108), (3.0, 3.0, 3.0)  # voxels and mm, along x, y, z
_WINDOW, _LEVEL = 400, 40  # HU


def register(icons: str) -> None:
    """Add the scans to Sample Data, where this application has it; ``icons`` is the folder of their thumbnails."""
    try:
        import SampleData
    except ImportError:
        return
    add = SampleData.SampleDataLogic.registerCustomSampleDataSource
    algorithm, digest = _CTLIVER
    add(  # without a thumbnail Sample Data takes its own picture of a node with this name
        category=CATEGORY,
        sampleName=CT,
        uris=f"{slicer.util.TESTING_DATA_URL}{algorithm}/{digest}",
        fileNames="CTLiver.nrrd",
        nodeNames="CTLiver",
        checksums=f"{algorithm}:{digest}",
    )
    add(
        category=CATEGORY,
        sampleName=PHANTOMS,
        uris="",  # nothing is downloaded
        fileNames="",
        nodeNames="Phantom",
        thumbnailFileName=str(Path(icons) / "Phantoms.png"),
        customDownloader=onPhantoms,
    )


def onPhantoms(source: Any = None) -> None:
    """The user asks Sample Data for the phantoms."""
    with saying(_("The phantoms were not made.")):
        loadPhantoms()


def loadPhantoms(count: int = COUNT) -> list[tuple[Any, Any]]:
    """Scans of made-up patients, a second each, with an annotation of the pancreas alone: volumes and segmentations.

    Raises:
        InputError: a package that draws them is missing.
    """
    if "scipy" in Dependencies.missing():
        raise InputError(Dependencies.sentence(["scipy"]) + " " + _("Press Install in step 1."))
    made = []
    with slicer.util.WaitCursor():
        for number in range(1, count + 1):
            words = _("Drawing phantom {number} of {count} …")
            slicer.util.showStatusMessage(words.format(number=number, count=count), 3000)
            made.append(_phantom(number))
            slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)
    slicer.util.setSliceViewerLayers(background=made[0][0], fit=True)
    made[0][1].GetDisplayNode().SetVisibility(True)
    return made


def _phantom(number: int) -> tuple[Any, Any]:
    """One patient; its annotation is hidden, as every patient's would lie over the one that is shown."""
    from IncrementalSegLib.phantom import PhantomConfig, make_phantom, phantom_table

    ct, labels = make_phantom(np.random.default_rng([_SEED, number - 1]), PhantomConfig(_SIZE, _SPACING))
    name = slicer.mrmlScene.GenerateUniqueName(_("Phantom {number}").format(number=number))
    volume = _volume(ct, name)
    table = OrganTable(organ for organ in phantom_table() if organ.name == NEW_ORGAN)
    segmentation = segmentationOf(labels, table, _("{name}: annotation").format(name=name), volume)
    segmentation.GetDisplayNode().SetVisibility(False)
    return volume, segmentation


def _volume(ct: sitk.Image, name: str) -> Any:
    """A scan as a node, in a window for soft tissue."""
    x, y, z = ct.GetOrigin()
    width, height, depth = ct.GetSpacing()
    toRAS = np.array([[-width, 0, 0, -x], [0, -height, 0, -y], [0, 0, depth, z], [0, 0, 0, 1.0]])
    volume = slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(ct), toRAS, name)
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(_WINDOW, _LEVEL)
    return volume
