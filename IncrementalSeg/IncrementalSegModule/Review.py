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
from IncrementalSegLib.report import fate, is_annotated, is_lost, is_not_learned, score

from .SegmentationIO import Steps, onGridOf, segmentArray, segmenting, segmentsOf, slabs
from .Terminology import Terminology

BEFORE_ONLY, AFTER_ONLY = 1, 2  # label values of `difference`
BEFORE, AFTER = (213, 94, 0), (0, 114, 178)  # orange and blue, which everybody can tell apart


class MergePolicy(enum.Enum):
    """What counts where a prediction meets segments that are there already."""

    EMPTY = "empty"
    REPLACE = "replace"
    MINE = "mine"

    def label(self) -> str:
        """What the list says."""
        return {
            MergePolicy.EMPTY: _("Keep mine, fill in around them"),
            MergePolicy.REPLACE: _("The model's replace mine"),
            MergePolicy.MINE: _("My organs stay exactly as drawn"),
        }[self]

    def explanation(self) -> str:
        """The same in a sentence."""
        return {
            MergePolicy.EMPTY: _(
                "What you drew stays; the model adds to it wherever nothing is drawn, also to the organs that you drew."
            ),
            MergePolicy.REPLACE: _("Where the model marks an organ, that counts; what you drew stays elsewhere."),
            MergePolicy.MINE: _(
                "The organs that you drew stay as they are, and the model adds only the organs that you did not draw."
            ),
        }[self]


@dataclass(frozen=True)
class Row:
    """One organ in the review's table; ``bad`` where an old organ was lost or a new one not learned."""

    name: str
    result: str
    before: str
    after: str
    agreement: str
    sentence: str
    bad: bool


def rows(report: Mapping[str, Any]) -> list[Row]:
    """The report's organs, old ones first, as the table shows them."""
    organs = sorted(report["organs"], key=lambda organ: organ["role"] != "old")
    return [
        Row(
            organ["name"],
            _result(organ),
            score(organ["dsc_before"]),
            score(organ["dsc_after"]),
            score(organ["agreement"]),
            _sentence(organ, report["cases"]["heldout"]),
            is_lost(organ) or is_not_learned(organ),
        )
        for organ in organs
    ]


def columns() -> dict[str, str]:
    """The titles of the table, each with what it means."""
    dice = _(
        "Dice score of the {which} model: overlap with the annotation on the held-out scans, from 0 to 1 (full). "
        "A dash: annotated on none of them, or an organ that this model does not know."
    )
    return {
        _("Organ"): _("The organs of the new model, those that the old one knew first."),
        _("Result"): _("What the figures beside it come to; the sentences below say why."),
        _("DSC before"): dice.format(which=_("old")),
        _("DSC after"): dice.format(which=_("new")),
        _("Agreement"): _(
            "Overlap (Dice score) of what the old and the new model mark on the held-out scans. It says how far the "
            "new model moved from the old one, not how good it is; read it where old organs are not annotated."
        ),
    }


def _result(organ: Mapping[str, Any]) -> str:
    """What became of an organ, in a word or two."""
    words = {
        "kept": _("kept"),
        "lost": _("lost"),
        "learned": _("learned"),
        "not learned": _("not learned"),
        "not judged": _("not judged"),
    }
    return words[fate(organ)]


def _sentence(organ: Mapping[str, Any], heldout: int) -> str:
    """What became of an organ and by which figures, as the library's report says it."""
    name, was, now = organ["name"], score(organ["dsc_before"]), score(organ["dsc_after"])
    scans = _("1 held-out case") if heldout == 1 else _("{count} held-out cases").format(count=heldout)
    if organ["role"] == "new":
        if organ["dsc_after"] is None:
            return _("{organ} not learned: no held-out case to judge it on.").format(organ=name)
        text = (
            _("{organ} not learned: {now} on {scans}.")
            if is_not_learned(organ)
            else _("{organ} learned: {now} on {scans}.")
        )
        return text.format(organ=name, now=now, scans=scans)
    if is_annotated(organ):
        text = _("{organ} lost: {was} → {now}.") if is_lost(organ) else _("{organ} kept: {was} → {now}.")
        return text.format(organ=name, was=was, now=now)
    if organ["agreement"] is None:
        return _("{organ} not judged: it was found in no held-out case.").format(organ=name)
    lost = _("{organ} lost: the old and the new model agree at {value} on {scans} (not annotated).")
    kept = _("{organ} kept: the old and the new model agree at {value} on {scans} (not annotated).")
    return (lost if is_lost(organ) else kept).format(organ=name, value=score(organ["agreement"]), scans=scans)


def verdict(report: Mapping[str, Any]) -> str:
    """The report's verdict as advice."""
    return {
        "good": _("Good: the old organs were kept and the new one was learned."),
        "old organ lost": _("An old organ was lost: look at the rows that say “lost” before you accept."),
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


def merging(
    volume: Any, prediction: sitk.Image, organs: OrganTable, segmentation: Any, policy: MergePolicy, name: str
) -> Steps:
    """A new segmentation, in steps: the prediction and the segments of ``segmentation``, which is not touched."""
    terminology, mine = Terminology(), {}
    for segmentID, segment in (segmentsOf(segmentation) if segmentation else {}).items():
        organ = terminology.organOf(segment)
        first = next((known for known in mine if known.key == organ.key), organ)  # two segments of one organ are one
        voxels = segmentArray(segmentation, segmentID, volume) > 0
        mine[first] = mine[first] | voxels if first in mine else voxels
        yield
    predicted = sitk.GetArrayViewFromImage(prediction)
    largest, table = max((organ.label for organ in organs), default=0) + len(mine), organs
    labels = np.zeros(predicted.shape, np.uint16 if largest > 255 else np.uint8)
    for slab in slabs(predicted.shape):
        own = {organ: voxels[slab] for organ, voxels in mine.items()}
        labels[slab], table = merged(predicted[slab], organs, own, policy)
        yield
    image = onGridOf(volume, labels)
    yield
    return (yield from segmenting(image, table, name, volume))


def difference(before: np.ndarray, after: np.ndarray, organs: OrganTable) -> np.ndarray:
    """Where two label maps disagree on the organs that both models know: 1 before only, 2 after only.

    A voxel that went from one organ to another counts as before only.
    """
    old = [organ.label for organ in organs]
    kept = np.zeros(1 + max(before.max(), after.max(), *old), np.uint16)  # other organs become background
    kept[old] = old
    was, now = kept[before], kept[after]
    changed = was != now
    return np.where(changed & (was > 0), BEFORE_ONLY, np.where(changed, AFTER_ONLY, 0)).astype(np.uint8)


def differing(volume: Any, before: sitk.Image, after: sitk.Image, organs: OrganTable, name: str) -> Steps:
    """`difference` as a new segmentation of two segments, orange and blue, in steps."""
    was, now = sitk.GetArrayViewFromImage(before), sitk.GetArrayViewFromImage(after)
    labels = np.zeros(was.shape, np.uint8)
    for slab in slabs(was.shape):
        labels[slab] = difference(was[slab], now[slab], organs)
        yield
    image = onGridOf(volume, labels)
    yield
    parts = (Organ(_("Before only"), BEFORE_ONLY, color=BEFORE), Organ(_("After only"), AFTER_ONLY, color=AFTER))
    return (yield from segmenting(image, OrganTable(parts), name, volume))
