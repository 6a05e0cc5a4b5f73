"""The cases of an update as they stand in the scene: which volume, which segments, held out or trained on."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.jobs import held_out_count
from IncrementalSegLib.organs import Organ

from .Context import isContext
from .SegmentationIO import segmentPart, segmentsOf
from .Terminology import Terminology

FEW_SLICES = 3
RECOMMENDED = 5
_PARAMETER = "cases"


@dataclass
class CaseRow:
    """One case: ``segments`` gives the segment ID of each new organ's key; ``heldOut`` None means automatic."""

    key: str
    volume: Any
    segmentation: Any
    segments: dict[str, str]
    heldOut: bool | None = None

    @property
    def name(self) -> str:
        """What the table calls it."""
        return self.volume.GetName() if self.volume else _("(volume deleted)")

    @property
    def present(self) -> dict[str, str]:
        """The segments that are still there."""
        segments = self.segmentation.GetSegmentation() if self.segmentation else None
        return {key: segment for key, segment in self.segments.items() if segments and segments.GetSegment(segment)}


class CaseTable:
    """The rows, kept in a parameter node: nodes by reference, the rest as text, so that a saved scene has them."""

    def __init__(self, node: Any) -> None:
        self.node = node

    def rows(self) -> list[CaseRow]:
        """Every case, in the order in which they were added."""
        return [
            CaseRow(
                entry["key"],
                self.node.GetNodeReference(f"{entry['key']}.volume"),
                self.node.GetNodeReference(f"{entry['key']}.segmentation"),
                dict(entry["segments"]),
                entry["heldOut"],
            )
            for entry in json.loads(self.node.GetParameter(_PARAMETER) or "[]")
        ]

    def write(self, rows: list[CaseRow]) -> None:
        """Put these rows in the place of all."""
        gone = {row.key for row in self.rows()} - {row.key for row in rows}
        with slicer.util.NodeModify(self.node):
            for key in gone:
                self.node.RemoveNodeReferenceIDs(f"{key}.volume")
                self.node.RemoveNodeReferenceIDs(f"{key}.segmentation")
            for row in rows:
                for part, node in (("volume", row.volume), ("segmentation", row.segmentation)):
                    self.node.SetNodeReferenceID(f"{row.key}.{part}", node.GetID() if node else None)
            entries = [{"key": row.key, "segments": row.segments, "heldOut": row.heldOut} for row in rows]
            self.node.SetParameter(_PARAMETER, json.dumps(entries))

    def add(self, volume: Any, segmentation: Any = None, segments: dict[str, str] | None = None) -> CaseRow:
        """A new row, or the one that this volume has already, whose own choices of segments stay.

        Raises:
            InputError: the segmentation is a prediction that was made as context.
        """
        if segmentation and isContext(segmentation):
            text = _("'{name}' is what the current model sees, no annotation: choose another, or none.")
            raise InputError(text.format(name=segmentation.GetName()))
        rows = self.rows()
        row = next((row for row in rows if row.volume is volume), None)
        if row is None:
            row = CaseRow(f"case{uuid.uuid4().hex[:8]}", volume, None, {})
            rows.append(row)
        if segmentation not in (None, row.segmentation):
            row.segmentation, row.segments = segmentation, {}
        row.segments = {**(segments or {}), **row.present}
        self.write(rows)
        return row

    def remove(self, key: str) -> None:
        """Take a case out of the table; its nodes stay in the scene."""
        self.write([row for row in self.rows() if row.key != key])

    def choose(self, key: str, organ: str, segment: str) -> None:
        """Say which segment of a case is the new organ with this key; no segment ID takes the choice back."""
        rows = self.rows()
        for row in rows:
            if row.key == key:
                row.segments = {**row.segments, organ: segment} if segment else _without(row.segments, organ)
        self.write(rows)

    def holdOut(self, key: str, heldOut: bool | None) -> None:
        """Say whether a case is for the check alone; None leaves it to the rule."""
        rows = self.rows()
        for row in rows:
            row.heldOut = heldOut if row.key == key else row.heldOut
        self.write(rows)


def _without(segments: dict[str, str], organ: str) -> dict[str, str]:
    return {key: segment for key, segment in segments.items() if key != organ}


def heldOut(rows: list[CaseRow]) -> set[str]:
    """Keys of the cases for the check: those that were chosen, else the last fifth from four on (as the library)."""
    chosen = {row.key for row in rows if row.heldOut}
    free = [row.key for row in rows if row.heldOut is None]
    count = held_out_count(len(rows))
    return chosen if chosen or not count else set(free[-count:])


def annotatedSegments(segmentation: Any) -> dict[str, Any]:
    """Segments by ID, without those that are context."""
    return {key: segment for key, segment in segmentsOf(segmentation).items() if not isContext(segment)}


def matchSegments(segmentation: Any, organs: list[Organ], terminology: Terminology) -> dict[str, str]:
    """Segment ID of every organ that this segmentation has, by codes or name."""
    wanted, found = {organ.key for organ in organs}, {}
    for segmentID, segment in annotatedSegments(segmentation).items():
        key = terminology.organOf(segment).key
        if key in wanted:
            found.setdefault(key, segmentID)
    return found


def problems(row: CaseRow, organs: list[Organ]) -> list[str]:
    """What keeps a case from being used, one sentence each; none where it is ready."""
    if row.volume is None:
        return [_("The volume is no longer in the scene: remove this case.")]
    if not row.volume.GetImageData():
        return [_("The volume '{name}' is empty: load it again.").format(name=row.name)]
    for node in filter(None, (row.volume, row.segmentation)):
        if node.GetParentTransformNode():
            return [
                _("'{name}' is under a transform: harden it (Data module, right click), or take it out.").format(
                    name=node.GetName()
                )
            ]
    if not row.segmentation:
        return [_("No annotation: press Annotate, or choose a segmentation.")]
    return [text for organ in organs for text in _segmentProblems(row, organ)]


def _segmentProblems(row: CaseRow, organ: Organ) -> list[str]:
    segmentID = row.present.get(organ.key)
    if segmentID is None:
        return [_("No segment is chosen for {organ}: choose it below, or press Annotate.").format(organ=organ.name)]
    slices = annotatedSlices(row, segmentID)
    if slices is None:
        return [_("The segment of {organ} lies outside '{name}'.").format(organ=organ.name, name=row.name)]
    if not len(slices):
        return [_("The segment of {organ} is empty: press Annotate.").format(organ=organ.name)]
    if len(slices) < FEW_SLICES:
        text = _("{organ} is annotated on {count} slice(s) only: annotate the whole organ.")
        return [text.format(organ=organ.name, count=len(slices))]
    return []


def annotatedSlices(row: CaseRow, segmentID: str) -> np.ndarray | None:
    """Numbers of the slices that the segment is on; None where it has voxels but none inside the volume."""
    labelmap = row.segmentation.GetBinaryLabelmapInternalRepresentation(segmentID)
    box, voxels = segmentPart(row.segmentation, segmentID, row.volume)
    slices = box[0].start + np.flatnonzero(voxels.any(axis=(1, 2)))
    if not len(slices) and labelmap is not None and labelmap.GetNumberOfPoints() and _hasVoxels(row, segmentID):
        return None
    return slices


def _hasVoxels(row: CaseRow, segmentID: str) -> bool:
    return bool(slicer.util.arrayFromSegmentInternalBinaryLabelmap(row.segmentation, segmentID).any())


def gaps(slices: np.ndarray) -> int:
    """Slices left out between the first and the last annotated one: *Fill between slices* makes them."""
    return int(slices[-1] - slices[0] + 1 - len(slices)) if len(slices) else 0
