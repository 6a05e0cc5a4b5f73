"""Whether a case is ready, and what is unusual about its scan; looked at again only when something changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from IncrementalSegLib.models.contents import Contents
from IncrementalSegLib.organs import Organ, organ_named

from .Cases import CaseRow, annotatedSlices, gaps, problems
from .SegmentationIO import segmentsOf
from .Terminology import Terminology

_AIR = 25.0  # HU; above the model's window by more than this at its darkest, a scan shows no air
_COARSE = 2.0  # times the model's spacing
_SHALLOW_MM = 60.0


@dataclass(frozen=True)
class State:
    """``problem`` is what is missing, empty where the case is ready; ``text`` says either, with warnings.

    ``sparse`` are the keys of organs with empty slices between annotated ones.
    """

    problem: str
    text: str
    sparse: tuple[str, ...] = ()


class Checks:
    """States of cases, remembered until the volume, the segmentation or what is asked of it changes."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[object, ...], State]] = {}

    def state(self, row: CaseRow, organs: Sequence[Organ], contents: Contents | None) -> State:
        """The state of a case for an update of a model with these ``contents``."""
        asked = tuple(organ.key for organ in organs)
        mark = (asked, tuple(row.segments.items()), _stamp(row), contents.hash if contents else "")
        known = self._known.get(row.key)
        if known is None or known[0] != mark:
            known = self._known[row.key] = mark, _state(row, list(organs), contents)
        return known[1]


def _stamp(row: CaseRow) -> tuple[object, ...]:
    """Modified times of the nodes and of the voxels in them, which an effect of Segment Editor changes in place."""
    parts = [row.volume, row.volume.GetImageData()] if row.volume else []
    if row.segmentation:
        parts += [row.segmentation, row.segmentation.GetSegmentation()]
        parts += [row.segmentation.GetBinaryLabelmapInternalRepresentation(key) for key in row.present.values()]
    return tuple(part.GetMTime() for part in parts if part is not None)


def _state(row: CaseRow, organs: list[Organ], contents: Contents | None) -> State:
    missing = problems(row, organs)
    if missing:
        return State(missing[0], missing[0])
    left = {organ.key: gaps(annotatedSlices(row, row.segments[organ.key])) for organ in organs}
    warnings = [*_sparse(sum(left.values())), *(unusual(row, contents) if contents else [])]
    return State("", " ".join([_("Ready."), *warnings]), tuple(key for key, count in left.items() if count))


def _sparse(count: int) -> list[str]:
    text = _("{count} slices between annotated ones are empty: Fill between slices completes them.")
    return [text.format(count=count)] if count else []


def unusual(row: CaseRow, contents: Contents) -> list[str]:
    """How the scan differs from what a CT model was trained on, a sentence each."""
    voxels = slicer.util.arrayFromVolume(row.volume)
    spacing, found = row.volume.GetSpacing(), []
    darkest = float(np.percentile(voxels[:: max(1, len(voxels) // 8), ::8, ::8], 1))
    if darkest > contents.preprocessing.window[0] + _AIR:
        found.append(_("Its values do not look like HU (no air in it): is it a CT?"))
    wanted = max(contents.preprocessing.spacing)
    if max(spacing) > _COARSE * wanted:
        text = _("Its voxels are coarse ({mm} mm) for this model ({wanted} mm).")
        found.append(text.format(mm=f"{max(spacing):.1f}", wanted=f"{wanted:.1f}"))
    height = _heightMm(row.volume)
    if height < _SHALLOW_MM:
        found.append(_("It shows {mm} mm of the body's length only.").format(mm=round(height)))
    return found


def _heightMm(volume: Any) -> float:
    """Length of the scan along the axis that lies nearest to head-foot, which in a sagittal one is no slice axis."""
    toRAS = vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(toRAS)
    axis = int(np.abs(slicer.util.arrayFromVTKMatrix(toRAS)[2, :3]).argmax())
    return volume.GetSpacing()[axis] * volume.GetImageData().GetDimensions()[axis]


def sideWarning(segmentation: Any) -> str:
    """A sentence where the liver was found left of the spleen, which a mirrored scan makes; else empty."""
    terminology, right = Terminology(), {}
    for segment in segmentsOf(segmentation).values():
        bounds = [0.0] * 6
        segment.GetBounds(bounds)
        right[terminology.organOf(segment).key] = sum(bounds[:2])
    liver, spleen = (right.get(organ_named(name).key) for name in ("Liver", "Spleen"))
    if liver is None or spleen is None or liver > spleen:
        return ""
    return _("The liver was found left of the spleen: is this scan mirrored?")
