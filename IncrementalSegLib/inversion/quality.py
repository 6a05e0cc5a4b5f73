"""What a synthetic image is worth: does the model see what was asked for, in the right HU, and are they different?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation import dice
from ..losses.unbiased import IGNORE
from ..organs import OrganTable
from .intensities import TISSUES, Intensities, histogram_distance, histogram_of

KEEP_FROM = 0.8


@dataclass(frozen=True)
class Synthetic:
    """A synthetic volume: ``image`` on the [-1, 1] scale, ``requested`` and ``predicted`` channels, all (x, y, z).

    ``predicted`` is the frozen model's answer on the finished image; ``layers`` the feature distance per layer;
    ``unwarped`` the channels of the scan it was made from, before they were warped.
    """

    image: np.ndarray
    requested: np.ndarray
    predicted: np.ndarray
    layers: dict[str, float]
    unwarped: np.ndarray | None = None

    @property
    def feature_distance(self) -> float:
        """R of method §5: the mean over layers, the first of them ten times."""
        first, *others = self.layers.values()
        return (10 * first + sum(others)) / len(self.layers)

    def dice(self, channel: int) -> float | None:
        """DSC of an organ between what was asked for and what the model sees; None where it is in neither."""
        return dice(self.requested == channel, self.predicted == channel)

    def kept(self, channel: int) -> bool:
        """Whether the organ, which was asked for, is seen well enough to be learned from."""
        return bool((self.requested == channel).any()) and (self.dice(channel) or 0.0) >= KEEP_FROM

    def target(self, channels: int) -> np.ndarray:
        """Training labels (x, y, z): the model's prediction, `IGNORE` around organs that did not come out."""
        target = self.predicted.astype(np.uint8)
        for channel in range(1, channels + 1):
            if not self.kept(channel):
                target[(self.requested == channel) | (self.predicted == channel)] = IGNORE
        return target


def quality_table(
    samples: Sequence[Synthetic], organs: OrganTable, intensities: Intensities, window: float
) -> dict[str, Any]:
    """Numbers of a set of synthetic volumes, per organ and in the mean.

    ``window`` is the width of the HU window, in which histogram distances are told. ``requested``, ``kept`` and
    ``dropped`` count organs in volumes.
    """
    rows = {organ.key: _organ_row(samples, c, intensities, window) for c, organ in enumerate(organs, start=1)}
    scores = [
        sample.dice(c) or 0.0 for sample in samples for c in range(1, len(organs) + 1) if (sample.requested == c).any()
    ]
    kept = [score for score in scores if score >= KEEP_FROM]
    layers = {name: float(np.mean([sample.layers[name] for sample in samples])) for name in samples[0].layers}
    return {
        "requested": len(scores),
        "kept": len(kept),
        "dropped": len(scores) - len(kept),
        "dice_mean": _mean(scores),
        "dice_kept": _mean(kept),
        "dice": {key: row["dice"] for key, row in rows.items()},
        "organs": rows,
        "names": {organ.key: organ.name for organ in organs},
        "feature_distance": float(np.mean([sample.feature_distance for sample in samples])),
        "layers": layers,
        "dice_to_scan": _mean([score for sample in samples for score in _dice_to_scan(sample)]),
        **diversity(samples),
    }


def _dice_to_scan(sample: Synthetic) -> list[float]:
    """DSC of the masks of the scan's organs before and after they were manipulated: how little they were changed."""
    if sample.unwarped is None:
        return []
    requested = np.intersect1d(sample.requested[sample.requested > 0], sample.unwarped)
    return [dice(sample.unwarped == c, sample.requested == c) or 0.0 for c in requested]


def _organ_row(samples: Sequence[Synthetic], channel: int, intensities: Intensities, window: float) -> dict[str, Any]:
    asked = [sample for sample in samples if (sample.requested == channel).any()]
    voxels = [sample.image[sample.requested == channel] for sample in asked]
    learned = intensities.histogram[channel + len(TISSUES) - 1]
    apart = histogram_distance(histogram_of(np.concatenate(voxels)), learned) * window / 2 if voxels else None
    kept = sum(sample.kept(channel) for sample in asked)
    return {
        "requested": len(asked),
        "kept": kept,
        "dropped": len(asked) - kept,
        "dice": _mean([sample.dice(channel) or 0.0 for sample in asked]),
        "histogram_distance_hu": apart,
    }


def described(quality: dict[str, Any]) -> str:
    """The quality of a set for people: a line per organ."""
    lines = [f"{quality['kept']} of {quality['requested']} organs kept; R {quality['feature_distance']:.3f}"]
    for key, row in quality["organs"].items():
        if row["requested"]:
            name, apart = quality["names"][key], row["histogram_distance_hu"]
            lines.append(f"{name}: DSC {row['dice']:.2f}, {row['kept']}/{row['requested']} kept, {apart:.0f} HU apart")
    return "\n".join(lines)


def diversity(samples: Sequence[Synthetic]) -> dict[str, float | None]:
    """Mean over pairs of the images' root mean square difference ([-1, 1] scale) and of 1 - DSC of their organs."""
    pairs = list(itertools.combinations([s for s in samples if s.image.shape == samples[0].image.shape], 2))
    apart = [float(np.sqrt(np.mean((a.image - b.image) ** 2))) for a, b in pairs]
    shapes = [1 - (dice((a.requested > 0), (b.requested > 0) & (a.requested == b.requested)) or 0.0) for a, b in pairs]
    return {"image_diversity": _mean(apart), "mask_diversity": _mean(shapes)}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
