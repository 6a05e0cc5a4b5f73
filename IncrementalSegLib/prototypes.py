"""Class prototypes: the mean feature vector of every organ before the head, with count and variance (method §2).

Plain vectors in ``memory/`` of the package, no image. Our formulation of what PGCD and DAPD (Zhu et al. 2025, arXiv
2511.07749) state: global prototypes are collected at the end of every step, the background's is updated on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import PackageError
from .events import Reporter
from .losses.unbiased import at_least_float32, product
from .models.networks import out_of_memory, place
from .models.tap import features_and_logits

FORMAT = 1
_MOMENTUM = 0.99  # of the running background, method §2
_SIMILARITY = 0.1  # temperature of the drift that is lent to organs out of view

Scan = tuple[Tensor, np.ndarray]  # an image (x, y, z) in [-1, 1] and its labels (x, y, z)


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Mean and biased variance (C, F), float32, and number of voxels (C,) of the features of every class, on the CPU.

    A class that was nowhere to be seen has count 0 and zeros.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and count."""
        return self.mean, self.variance, self.count

    def completed(self, other: Prototypes) -> Prototypes:
        """These prototypes, and ``other``'s of the classes of which there were none."""
        k, first = len(self.mean), self.count == 0
        mean, variance = (
            torch.where(first[:, None], theirs[:k], mine)
            for mine, theirs in zip(self.parts[:2], other.parts[:2], strict=True)
        )
        return Prototypes(mean, variance, torch.where(first, other.count[:k], self.count))

    def to_state(self) -> dict[str, Any]:
        """Tensors and plain values for a package."""
        return {"format": FORMAT, "mean": self.mean, "variance": self.variance, "count": self.count}

    @classmethod
    def from_state(cls, state: dict[str, Any], classes: int, features: int) -> Prototypes:
        """What `to_state` gave, for a model of so many classes and feature channels.

        Raises:
            PackageError: damaged, of another model, or made by a newer version.
        """
        try:
            if state["format"] > FORMAT:
                raise PackageError("The model's prototypes were made by a newer IncrementalSeg: update IncrementalSeg.")
            mean, variance, count = (state[part] for part in ("mean", "variance", "count"))
            if mean.shape != (classes, features) or variance.shape != mean.shape or count.shape != (classes,):
                raise ValueError(f"{tuple(mean.shape)} where the model has {classes} classes of {features} features")
            if not (torch.isfinite(mean).all() and torch.isfinite(variance).all() and (variance >= 0).all()):
                raise ValueError("a value that is no number, or a negative variance")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise PackageError(
                f"The model's prototypes are damaged ({error}): copy the model package again."
            ) from error
        return cls(mean, variance, count)


class Moments:
    """Sums over voxels, from which prototypes follow exactly: constant memory, whatever is added."""

    def __init__(self, classes: int, features: int) -> None:
        self.count = torch.zeros(classes, dtype=torch.float64)
        self.total, self.squares = (torch.zeros(classes, features, dtype=torch.float64) for _ in range(2))

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add voxels: features (F, …) and their labels (…); labels that are no class count nowhere."""
        values = features.flatten(1).cpu().double()
        for label in labels.unique().tolist():
            if label < len(self.count):
                chosen = values[:, labels.flatten() == label]  #                                                  F,n
                self.count[label] += chosen.shape[1]
                self.total[label] += chosen.sum(1)
                self.squares[label] += chosen.square().sum(1)

    def prototypes(self) -> Prototypes:
        """Mean, biased variance and count of what was added."""
        n = self.count.clamp(min=1)[:, None]
        mean = self.total / n
        return Prototypes(mean.float(), (self.squares / n - mean.square()).clamp(min=0).float(), self.count.long())


def _maps(networks: Sequence[nn.Module], tile: Tensor, device: torch.device) -> list[Tensor] | None:
    """The features (F, x, y, z) of every network; None where the GPU has too little memory."""
    try:
        with torch.inference_mode():
            return [features_and_logits(network, tile.to(device))[0][0] for network in networks]
    except RuntimeError as error:
        if device.type == "cpu" or not out_of_memory(error):
            raise
    return None


def collect(
    networks: Sequence[nn.Module],
    scans: Iterable[Scan],
    classes: int,
    patch: Sequence[int],
    device: torch.device,
    reporter: Reporter,
) -> list[Prototypes]:
    """Prototypes of each network in evaluation mode on the same scans, every voxel counted once.

    Raises:
        Cancelled: the reporter says so; checked before every patch.
    """
    found: list[Moments] = []
    networks = [place(network, device).eval() for network in networks]
    for image, labels in scans:
        for tile, fresh, box in _tiles(image, patch):
            reporter.check()
            maps = _maps(networks, tile, device)
            if maps is None:  # too little memory
                device = torch.device("cpu")
                reporter.message("The device has too little memory for prototypes: the CPU collects them.", "warning")
                networks = [place(network, device) for network in networks]
                maps = _maps(networks, tile, device)
            assert maps is not None
            found = found or [Moments(classes, len(features)) for features in maps]
            seen = torch.from_numpy(np.array(labels[box]))
            for moments, features in zip(found, maps, strict=True):
                moments.add(features[(slice(None), *fresh)], seen)
    return [moments.prototypes() for moments in found]


def _tiles(image: Tensor, patch: Sequence[int]) -> Iterator[tuple[Tensor, tuple[slice, ...], tuple[slice, ...]]]:
    """Patches (1, 1, x, y, z) that cover an image; of each the part that is new, in the patch and in the image."""
    missing = [max(0, edge - n) for n, edge in zip(image.shape, patch, strict=True)]
    padded = nn.functional.pad(image, [0, missing[2], 0, missing[1], 0, missing[0]], value=-1.0)
    counts = [-(-n // edge) for n, edge in zip(image.shape, patch, strict=True)]
    for index in np.ndindex(*counts):
        first = [i * edge for i, edge in zip(index, patch, strict=True)]
        last = [min(a + edge, n) for a, edge, n in zip(first, patch, image.shape, strict=True)]
        start = [max(0, min(a, n - edge)) for a, edge, n in zip(first, patch, padded.shape, strict=True)]
        tile = padded[tuple(slice(s, s + edge) for s, edge in zip(start, patch, strict=True))]
        fresh = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, start, strict=True))
        yield tile[None, None], fresh, tuple(slice(a, b) for a, b in zip(first, last, strict=True))


def grown(known: Prototypes, old: Prototypes, new: Prototypes) -> Prototypes:
    """The prototypes after a step: old ones moved by the step's drift, new organs' as measured (method §2).

    Args:
        known: prototypes (1 + K, F) that the step started from, its background as it ran last.
        old: of the old model on the step's scans, under its own predictions and the annotations.
        new: of the updated model, the same, (1 + K + N, F).

    An organ that the step's scans do not show moves by the drift of those they do, weighted by their likeness to it.
    Variances of old classes are kept; one that nobody had seen before is as measured.
    """
    k = len(known.mean)
    seen = (old.count[:k] > 0) & (new.count[:k] > 0)
    drift = (new.mean[:k] - old.mean[:k]) * seen[:, None]
    if seen.any():
        centred = nn.functional.normalize(known.mean - known.mean.mean(0), dim=1)
        likeness = (centred @ centred[seen].T / _SIMILARITY).softmax(1)  #                                   1+K,seen
        drift = torch.where(seen[:, None], drift, likeness @ drift[seen])
    moved = Prototypes(known.mean + drift, known.variance, known.count).completed(new)
    return Prototypes(*(torch.cat([a, b[k:]]) for a, b in zip(moved.parts, new.parts, strict=True)))


class RunningPrototypes(nn.Module):
    """The old model's prototypes during a step, on the training device; the background's follows the step's scans.

    What "background" means changes with every step, so ``P_0 ← m P_0 + (1 - m) mean F_old`` over the voxels that the
    old model calls background and nobody annotated; m = 0.99. Its state belongs into the checkpoint.
    """

    mean: Tensor
    variance: Tensor
    known: Tensor

    def __init__(self, prototypes: Prototypes) -> None:
        super().__init__()
        self.register_buffer("mean", prototypes.mean.clone())
        self.register_buffer("variance", prototypes.variance.clone())
        self.register_buffer("known", prototypes.count > 0)
        self.count = prototypes.count

    def follow(self, background: Tensor) -> None:
        """Move the background towards the mean (F,) of a batch."""
        self.mean[0] = _MOMENTUM * self.mean[0] + (1 - _MOMENTUM) * background

    def scale(self) -> Tensor:
        """What every feature channel varies by, (F,): within classes and between them, every known class alike."""
        return self.variance[self.known].mean(0) + self.mean[self.known].var(0, correction=0)

    def prototypes(self) -> Prototypes:
        """The prototypes as they are now."""
        return Prototypes(self.mean.cpu().clone(), self.variance.cpu().clone(), self.count)


def local_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean feature vector (C, F) of every class in a batch, and which are present (C,).

    Args:
        features: (B, F, …).
        labels: (B, …); labels that are no class count nowhere.
        classes: number of classes C.
    """
    values = at_least_float32(features).flatten(2)  #                                                           B,F,V
    members = labels.flatten(1)[:, None] == torch.arange(classes, device=labels.device)[:, None]  #             B,C,V
    sums = product(members.to(values.dtype), values.transpose(1, 2)).sum(0)  #                                    C,F
    count = members.sum((0, 2))
    return sums / count.clamp(min=1)[:, None], count > 0
