"""How good a segmentation is, and what a step cost: DSC, HD95 and NSD per organ, old model against new.

Arrays are label maps or masks indexed (x, y, z); spacing is (x, y, z) in mm. Organs are matched by key, so the two
label maps of a comparison may use different label values. A structure that declares a parent (a tumour's liver) counts
into it: the parent's mask is parent ∪ child. An organ missing in both maps has no score (None), left out of means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .organs import OrganTable

NSD_TOLERANCE_MM = 2.0
METRICS = ("dsc", "hd95", "nsd")

Mask = NDArray[np.bool_]
LabelMap = NDArray[np.integer]
Distances = NDArray[np.floating]
Summary = dict[str, float | int | None]


@dataclass(frozen=True)
class OrganScore:
    """One organ in one case: DSC (0..1), HD95 (mm), NSD at 2 mm (0..1); all None where both masks are empty."""

    case: str
    organ: str
    dsc: float | None
    hd95: float | None
    nsd: float | None


def dice(first: Mask, second: Mask) -> float | None:
    """DSC of two masks of one shape; None when both are empty."""
    voxels = np.count_nonzero(first) + np.count_nonzero(second)
    return float(2.0 * np.count_nonzero(first & second) / voxels) if voxels else None


def score_organ(
    prediction: Mask, reference: Mask, spacing: Sequence[float]
) -> tuple[float | None, float | None, float | None]:
    """DSC, HD95 (mm) and NSD at 2 mm of one organ's masks, as MONAI defines them on border voxels.

    Args:
        prediction: bool, (x, y, z).
        reference: bool, the same shape.
        spacing: voxel size in mm, (x, y, z).

    Returns:
        ``(None, None, None)`` when both masks are empty; ``(0, diagonal of the volume in mm, 0)`` when one is.

    Raises:
        InputError: the masks have different shapes.
    """
    _check_same_grid(prediction, reference)
    boxes = [box for box in (_bounding_box(prediction), _bounding_box(reference)) if box]
    if not boxes:
        return None, None, None
    if len(boxes) == 1:
        return 0.0, _diagonal(prediction.shape, spacing), 0.0
    crop = tuple(slice(max(0, min(a.start, b.start) - 1), max(a.stop, b.stop) + 1) for a, b in zip(*boxes, strict=True))
    there, back = _surface_distances(prediction[crop], reference[crop], spacing)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    nsd = np.mean(np.concatenate([there, back]) <= NSD_TOLERANCE_MM)
    return dice(prediction[crop], reference[crop]), float(hd95), float(nsd)


def score_case(
    case: str,
    prediction: LabelMap,
    reference: LabelMap,
    table: OrganTable,
    spacing: Sequence[float],
    annotated: Sequence[str],
    reference_table: OrganTable | None = None,
) -> list[OrganScore]:
    """Scores of the annotated organs that the predicting model knows, in the order of ``annotated``.

    Args:
        case: name of the case, repeated in the scores.
        prediction: label map with the values of ``table``, (x, y, z).
        reference: label map with the values of ``reference_table``, the same shape.
        table: organs of the model that predicted.
        spacing: voxel size in mm, (x, y, z).
        annotated: keys of the organs annotated in this case; the others are unlabelled, not background.
        reference_table: organs of the reference map; ``table`` when left out.

    Raises:
        InputError: the maps have different shapes, or the reference's table lacks an annotated organ.
    """
    _check_same_grid(prediction, reference, case)
    reference_table = reference_table or table
    unknown = [key for key in annotated if key not in reference_table.keys]
    if unknown:
        raise InputError(
            f"Case '{case}': organ {', '.join(unknown)} is listed as annotated, but the label map's table has only "
            f"{', '.join(reference_table.names) or 'no organ'}: correct the case's list or its labels.csv."
        )
    scores = []
    for key in (key for key in annotated if key in table.keys):
        family = _family(key, table, reference_table)
        masks = _mask(prediction, table, family), _mask(reference, reference_table, family)
        scores.append(OrganScore(case, key, *score_organ(*masks, spacing)))
    return scores


def agreement(
    old_prediction: LabelMap,
    new_prediction: LabelMap,
    old_table: OrganTable,
    new_table: OrganTable,
    organs: Iterable[str],
) -> dict[str, float | None]:
    """DSC between the old and the new model's prediction of the same scan, per organ key.

    This is *agreement*, not accuracy: it says how far the new model moved, and is the only honest figure where nobody
    has annotated the old organs. None where neither model finds the organ.

    Raises:
        InputError: the predictions have different shapes.
    """
    _check_same_grid(old_prediction, new_prediction)
    found: dict[str, float | None] = {}
    for key in organs:
        family = _family(key, old_table, new_table)
        found[key] = dice(_mask(old_prediction, old_table, family), _mask(new_prediction, new_table, family))
    return found


def organ_volumes(label_map: LabelMap, table: OrganTable, spacing: Sequence[float]) -> dict[str, float]:
    """Volume in mL of every organ of the table in this label map (children count into their parent)."""
    millilitres = math.prod(spacing) / 1000.0
    masks = {key: _mask(label_map, table, _family(key, table)) for key in table.keys}
    return {key: float(np.count_nonzero(mask)) * millilitres for key, mask in masks.items()}


def mean_per_organ(cases: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean over cases of per-organ figures (agreements, volumes); None only where no case has a figure."""
    gathered: dict[str, list[float]] = {}
    for case in cases:
        for key, value in case.items():
            gathered.setdefault(key, []).extend([] if value is None else [value])
    return {key: _mean(values) for key, values in gathered.items()}


def summarise(scores: Iterable[OrganScore]) -> dict[str, Summary]:
    """Means per organ key: ``{"dsc", "hd95", "nsd", "cases"}``; ``cases`` counts those with a score."""
    gathered: dict[str, list[OrganScore]] = {}
    for score in scores:
        gathered.setdefault(score.organ, []).extend([] if score.dsc is None else [score])
    return {
        key: {metric: _mean([getattr(score, metric) for score in kept]) for metric in METRICS} | {"cases": len(kept)}
        for key, kept in gathered.items()
    }


def retention(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> float | None:
    """Mean DSC after / mean DSC before, over the organs that have both; None when there is nothing to compare.

    Args:
        before: DSC per organ key of the parent model (old organs only).
        after: DSC per organ key of the new model.
    """
    pairs = [(b, a) for b, a in ((before[key], after.get(key)) for key in before) if b is not None and a is not None]
    total = sum(b for b, _ in pairs)
    return sum(a for _, a in pairs) / total if total > 0 else None


def forgetting(learned: Mapping[str, float | None], now: Mapping[str, float | None]) -> dict[str, float]:
    """DSC when an organ was learned minus DSC now, per organ key that has both (positive: forgotten)."""
    pairs = {key: (value, now.get(key)) for key, value in learned.items()}
    return {key: then - later for key, (then, later) in pairs.items() if then is not None and later is not None}


def paired_bootstrap(
    differences: Sequence[float], generator: np.random.Generator, samples: int = 2000
) -> tuple[float, float, float]:
    """Mean of paired differences over cases with its 95 % percentile bootstrap interval.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Args:
        differences: one number per case, for example DSC of a minus DSC of b on the same case.
        generator: the source of randomness.
        samples: number of resamplings of the cases.

    Returns:
        ``(mean, low95, high95)``.

    Raises:
        InputError: there is no difference to resample.
    """
    values = np.asarray(differences, dtype=float)
    if values.size == 0:
        raise InputError("No case has both results to compare: give at least one case that both models were scored on.")
    means = values[generator.integers(0, values.size, size=(samples, values.size))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def _surface_distances(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> tuple[Distances, Distances]:
    """Distances in mm of the border voxels of each non-empty mask to the border of the other."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    edges = get_mask_edges(prediction, reference, crop=False)
    there = get_surface_distance(edges[0], edges[1], spacing=tuple(spacing))
    back = get_surface_distance(edges[1], edges[0], spacing=tuple(spacing))
    return np.asarray(there), np.asarray(back)


def _bounding_box(mask: Mask) -> tuple[slice, ...] | None:
    """Smallest box around the mask's voxels; None for an empty mask."""
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        if hit.size == 0:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
        mask = mask[(slice(None),) * axis + (box[-1],)]
    return tuple(box)


def _family(key: str, *tables: OrganTable) -> frozenset[str]:
    """Keys of an organ and of everything that a table declares to lie inside it, at any depth."""
    family = {key}
    while inside := {o.key for table in tables for o in table if o.parent in family} - family:
        family |= inside
    return frozenset(family)


def _mask(label_map: LabelMap, table: OrganTable, family: frozenset[str]) -> Mask:
    mask = np.zeros_like(label_map, dtype=bool)  # in the label map's own memory order, which is what makes it fast
    for organ in table:
        if organ.key in family:
            mask |= label_map == organ.label
    return mask


def _check_same_grid(first: NDArray[Any], second: NDArray[Any], case: str = "") -> None:
    if first.shape != second.shape:
        raise InputError(
            f"{f'Case {case!r}: t' if case else 'T'}he label maps to compare have {first.shape} and {second.shape} "
            "voxels: resample one onto the other's grid first."
        )


def _diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    return math.hypot(*(size * step for size, step in zip(shape, spacing, strict=True)))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
