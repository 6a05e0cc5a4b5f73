"""Loads the cases of a dataset folder into the scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.cases import Case, read_dataset
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import Organ, OrganTable
from IncrementalSegLib.volumes import EXTENSIONS, read_label_map, read_volume

from .SegmentationIO import segmentationOf


def loadFolder(folder: Path, organs: Sequence[Organ], beside: Sequence[Any] = ()) -> Iterator[tuple[Any, Any]]:
    """Volume and segmentation (None where a case has none) of every case; of its label map only the wanted organs.

    ``beside`` are the volumes of the cases that the update has already.

    Raises:
        InputError: the folder holds no cases, or none of them is annotated with these organs; at the end, after the
            others, for the cases that could not be loaded: a line for each.
    """
    wanted = {organ.key for organ in organs}
    cases = read_dataset(folder)
    if not any(wanted & set(case.annotated) for case in cases):
        names = ", ".join(organ.name for organ in organs)
        raise InputError(_("No case in {folder} is annotated with {names}.").format(folder=folder, names=names))
    known, skipped = {_source(volume) for volume in beside}, []
    for case in cases:
        try:
            _refuse(case, known)
            loaded = _load(case, wanted)
        except InputError as error:
            skipped.append(str(error))
            continue
        yield loaded
        slicer.app.processEvents()
    if skipped:
        raise InputError("\n".join(skipped))


def _source(volume: Any) -> Path | None:
    """The file that a volume was loaded from."""
    storage = volume.GetStorageNode() if volume else None
    return Path(storage.GetFileName()).resolve() if storage and storage.GetFileName() else None


def _refuse(case: Case, known: set[Path | None]) -> None:
    """Say what keeps a case from being loaded, as far as the names of its files tell."""
    if case.ct.is_dir():
        text = _("{name} is a DICOM folder: load it with Slicer's DICOM module, then add the scan.")
        raise InputError(text.format(name=case.ct.name))
    if case.ct.resolve() in known:
        raise InputError(_("{name} is in the table already.").format(name=case.ct.name))
    for stem in (f"{case.name}_ct", f"{case.name}_seg"):
        files = [stem + ending for ending in EXTENSIONS if (case.ct.parent / (stem + ending)).exists()]
        if len(files) > 1:
            text = _("{stem} is there more than once ({files}): leave one of them in the folder.")
            raise InputError(text.format(stem=stem, files=", ".join(files)))


def _load(case: Case, wanted: set[str]) -> tuple[Any, Any]:
    labels = read_label_map(case.label) if case.label else None
    read_volume(case.ct)  # Slicer shows the part of a damaged NIfTI file that can be read as if it were the whole
    volume = slicer.util.loadVolume(str(case.ct), {"name": case.name, "show": False})
    if labels is None:
        return volume, None
    table = OrganTable(organ for organ in case.labels if organ.key in wanted)
    name = _("{name}: annotation").format(name=volume.GetName())
    segmentation = segmentationOf(labels, table, name, volume)
    segmentation.GetDisplayNode().SetVisibility(False)  # or every patient's organs lie over the one that is shown
    return volume, segmentation
