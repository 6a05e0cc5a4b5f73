"""Loads the cases of a dataset folder into the scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.cases import Case, read_dataset
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import Organ, OrganTable

from .SegmentationIO import segmentationOf


def loadFolder(folder: Path, organs: Sequence[Organ]) -> Iterator[tuple[Any, Any]]:
    """Volume and segmentation (None where a case has none) of every case; of its label map only the wanted organs.

    Raises:
        InputError: the folder holds no cases, or none of them is annotated with these organs.
    """
    wanted = {organ.key for organ in organs}
    cases = read_dataset(folder)
    if not any(wanted & set(case.annotated) for case in cases):
        names = ", ".join(organ.name for organ in organs)
        raise InputError(_("No case in {folder} is annotated with {names}.").format(folder=folder, names=names))
    if series := next((case for case in cases if case.ct.is_dir()), None):
        text = _("{name} is a DICOM folder: load it with Slicer's DICOM module, then add the scan.")
        raise InputError(text.format(name=series.ct.name))
    for case in cases:
        yield _load(case, wanted)
        slicer.app.processEvents()


def _load(case: Case, wanted: set[str]) -> tuple[Any, Any]:
    volume = slicer.util.loadVolume(str(case.ct), {"name": case.name, "show": False})
    if case.label is None:
        return volume, None
    table = OrganTable(organ for organ in case.labels if organ.key in wanted)
    name = _("{name}: annotation").format(name=case.name)
    segmentation = segmentationOf(sitk.ReadImage(str(case.label)), table, name, volume)
    segmentation.GetDisplayNode().SetVisibility(False)  # or every patient's organs lie over the one that is shown
    return volume, segmentation
