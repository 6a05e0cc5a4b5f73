"""Before and after: the report in rows, the merged predictions, and what changed between two models."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from slicer.i18n import tr as _

from IncrementalSegLib.organs import Organ, OrganTable
from IncrementalSegLib.report import decimals, is_lost, is_not_learned, verdict_sentences

from .SegmentationIO import onGridOf, segmentArray, segmentationOf
from .Terminology import Terminology

BEFORE_ONLY = Organ("Before only", 1, color=(220, 50, 40))
AFTER_ONLY = Organ("After only", 2, color=(60, 170, 80))


class MergePolicy(enum.Enum):
    """What counts where a prediction meets segments that are there already."""

    EMPTY = "empty"
    REPLACE = "replace"
    MINE = "mine"

    def label(self) -> str:
        """What the list says."""
        return {
            MergePolicy.EMPTY: _("Fill empty voxels only"),
            MergePolicy.REPLACE: _("The prediction replaces mine"),
            MergePolicy.MINE: _("Keep my organs as they are"),
        }[self]


@dataclass(frozen=True)
class Row:
    """One organ in the review's table; ``bad`` where an old organ was lost or a new one not learned."""

    name: str
    before: str
    after: str
    agreement: str
    sentence: str
    bad: bool


def rows(report: Mapping[str, Any]) -> list[Row]:
    """The report's organs, old ones first, as the table shows them."""
    organs = sorted(report["organs"], key=lambda organ: organ["role"] != "old")
    sentences = verdict_sentences(report)
    return [
        Row(
            organ["name"],
            decimals(organ["dsc_before"]),
            decimals(organ["dsc_after"]),
            decimals(organ["agreement"]),
            sentence,
            is_lost(organ) or is_not_learned(organ),
        )
        for organ, sentence in zip(organs, sentences, strict=True)
    ]


def verdict(report: Mapping[str, Any]) -> str:
    """The report's verdict as advice."""
    return {
        "good": _("Good: the old organs were kept and the new one was learned."),
        "old organ lost": _("An old organ was lost: look at the red rows before you accept."),
        "new organ not learned": _("The new organ was not learned well: more or better annotated scans help most."),
    }[report["verdict"]]


def merged(
    prediction: np.ndarray, organs: OrganTable, mine: Mapping[Organ, np.ndarray], policy: MergePolicy
) -> tuple[np.ndarray, OrganTable]:
    """A prediction (label values of ``organs``) and one's own segments (bool arrays) as one label map.

    Own organs that the model does not know are appended to the table.
    """
    table = organs.extended(replace(organ, label=0) for organ in mine if organ.key not in organs.keys)
    largest = max((organ.label for organ in table), default=0)
    own = np.zeros(prediction.shape, np.uint16 if largest > 255 else np.uint8)
    for organ, voxels in mine.items():
        own[voxels] = table.find(organ.key).label
    predicted = prediction.astype(own.dtype)
    if policy is MergePolicy.MINE:
        for organ in mine:
            predicted[predicted == table.find(organ.key).label] = 0
    over, under = (predicted, own) if policy is MergePolicy.REPLACE else (own, predicted)
    return np.where(over > 0, over, under), table


def mergedSegmentation(
    volume: Any, prediction: sitk.Image, organs: OrganTable, segmentation: Any, policy: MergePolicy, name: str
) -> Any:
    """A new segmentation: the prediction and the segments of ``segmentation``, which is not touched."""
    terminology, mine = Terminology(), {}
    segments = segmentation.GetSegmentation() if segmentation else None
    for number in range(segments.GetNumberOfSegments() if segments else 0):
        organ = terminology.organOf(segments.GetNthSegment(number))
        first = next((known for known in mine if known.key == organ.key), organ)  # two segments of one organ are one
        voxels = segmentArray(segmentation, segments.GetNthSegmentID(number), volume) > 0
        mine[first] = mine[first] | voxels if first in mine else voxels
    labels, table = merged(sitk.GetArrayFromImage(prediction), organs, mine, policy)
    return segmentationOf(onGridOf(volume, labels), table, name, volume)


def difference(before: np.ndarray, after: np.ndarray, organs: OrganTable) -> np.ndarray:
    """Where two label maps disagree on the organs that both models know: 1 before only, 2 after only.

    A voxel that went from one organ to another counts as before only.
    """
    old = [organ.label for organ in organs]
    was, now = np.where(np.isin(before, old), before, 0), np.where(np.isin(after, old), after, 0)
    changed = was != now
    return np.where(changed & (was > 0), 1, np.where(changed, 2, 0)).astype(np.uint8)


def differenceSegmentation(volume: Any, before: sitk.Image, after: sitk.Image, organs: OrganTable, name: str) -> Any:
    """`difference` as a new segmentation of two segments, red and green."""
    voxels = difference(sitk.GetArrayViewFromImage(before), sitk.GetArrayViewFromImage(after), organs)
    return segmentationOf(onGridOf(volume, voxels), OrganTable([BEFORE_ONLY, AFTER_ONLY]), name, volume)
