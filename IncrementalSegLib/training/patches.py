"""Patches: cached preprocessing on disk (memory-mapped) and random, augmented, organ-balanced patches from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cases import Case
from ..inversion.manipulation import random_rotation
from ..losses.unbiased import IGNORE
from ..organs import OrganTable
from ..preprocessing import Preprocessing, on_model_grid, resample
from ..storage import write_atomically, write_json
from ..volumes import to_array
from .config import Augmentation

_POINTS = 20_000


@dataclass(frozen=True)
class CachedCase:
    """A case on the model's grid: HU int16 and channels uint8, both (x, y, z) memory maps.

    ``key`` is a hash of what went in; ``annotated`` (C,) tells which channels were annotated; ``points`` holds voxels
    (n, 3) of each organ present.
    """

    key: str
    image: np.ndarray
    target: np.ndarray
    annotated: np.ndarray
    points: dict[int, np.ndarray]


def cache_case(case: Case, organs: OrganTable, preprocessing: Preprocessing, folder: Path) -> CachedCase:
    """Resample a case once and keep it under ``folder``; later calls with the same input only open the files.

    Raises:
        InputError: the case cannot be read.  StorageError: it cannot be written.
    """
    recipe = json.dumps([case.fingerprint(), organs.to_csv(), asdict(preprocessing)])
    place = folder / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not (place / "done.json").exists():
        _fill(case, organs, preprocessing, place)
    image, target = (np.load(place / f"{part}.npy", mmap_mode="r") for part in ("image", "target"))
    annotated = np.array([True, *(organ.key in case.annotated for organ in organs)])
    with np.load(place / "points.npz") as stored:
        points = {int(channel): stored[channel] for channel in stored.files}
    return CachedCase(place.name, image, target, annotated, points)


def _fill(case: Case, organs: OrganTable, preprocessing: Preprocessing, place: Path) -> None:
    ct, label = case.read()
    scan = on_model_grid(ct, preprocessing)
    image = preprocessing.stored(to_array(scan))
    target = np.zeros(image.shape, np.uint8)
    if label is not None:
        target = case.channels(to_array(resample(label, scan, label=True)), organs)
    save_array(place / "image.npy", image)
    save_array(place / "target.npy", target)
    points = organ_points(target)
    write_atomically(place / "points.npz", lambda p: _savez(p, points))
    write_json(place / "done.json", {"shape": image.shape})


def save_array(path: Path, array: np.ndarray) -> None:
    """Save an array atomically in numpy's format."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, array)

    write_atomically(path, write)


def _savez(path: Path, points: dict[int, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{str(channel): xyz for channel, xyz in points.items()})


def organ_points(target: np.ndarray) -> dict[int, np.ndarray]:
    """Up to 20,000 voxels (n, 3) of every organ channel, evenly taken."""
    points = {}
    for channel in np.unique(target):
        if channel not in (0, IGNORE):
            xyz = np.argwhere(target == channel).astype(np.int16)
            points[int(channel)] = xyz[:: max(1, len(xyz) // _POINTS)]
    return points


@dataclass(frozen=True)
class Batch:
    """Patches of a step.

    ``image`` and ``plain`` (B, 1, x, y, z), with and without changed intensities; ``target`` (B, x, y, z) channels;
    ``annotated`` (B, C) bool.
    """

    image: Tensor
    plain: Tensor
    target: Tensor
    annotated: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(part.to(device) for part in (self.image, self.plain, self.target, self.annotated)))


class PatchSampler:
    """Random patches, the same for the same seed and step.

    A case is drawn evenly; then, with probability ``organ_fraction``, an organ present in it, evenly, so that small
    organs come as often as large ones, and a voxel of it to be near the centre; otherwise any place in the scan.
    With ``replay`` cases a patch comes from one of them with probability ``replay_share``.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        organ_fraction: float,
        seed: int,
        mirror: Sequence[int] | None = None,
        replay: Sequence[CachedCase] = (),
        replay_share: float = 0.0,
    ) -> None:
        self.cases, self.replay = list(cases), list(replay)
        self.replay_share = replay_share if replay else 0.0
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.organ_fraction = organ_fraction
        self.seed = seed
        self.mirror = None if mirror is None else torch.tensor([*mirror, *range(len(mirror), IGNORE + 1)])

    def batch(self, step: int, size: int, patch: Sequence[int]) -> Batch:
        """The patches of a step: a pure function of seed, step, size and patch edge lengths (voxels)."""
        generator = np.random.default_rng([self.seed, step])
        items = [self._patch(generator, tuple(patch)) for _ in range(size)]
        return Batch(*(torch.stack(parts) for parts in zip(*items, strict=True)))

    def _patch(self, generator: np.random.Generator, patch: tuple[int, ...]) -> tuple[Tensor, ...]:
        pool = self.replay if self.replay_share and generator.random() < self.replay_share else self.cases
        case = pool[generator.integers(len(pool))]
        affine = self._affine(generator)
        centre = self._centre(generator, case, patch)
        plain, target = self._cut(case, patch, affine, centre)
        annotated = torch.from_numpy(case.annotated)
        if self.mirror is not None and generator.random() < self.augmentation.flip:
            plain, target = plain.flip(0), self.mirror[target.flip(0)]
            annotated = annotated[self.mirror[: len(annotated)]]
        return self._intensities(generator, plain, target)[None], plain[None], target, annotated

    def _centre(self, generator: np.random.Generator, case: CachedCase, patch: tuple[int, ...]) -> np.ndarray:
        shape, half = np.array(case.image.shape), np.array(patch) / 2
        centre = generator.uniform(0, shape)
        if case.points and generator.random() < self.organ_fraction:
            xyz = case.points[sorted(case.points)[generator.integers(len(case.points))]]
            centre = xyz[generator.integers(len(xyz))] + generator.uniform(-0.75, 0.75, 3) * half
        margin = np.minimum(half * 0.75, shape / 2)
        return np.clip(centre, margin, shape - margin)

    def _affine(self, generator: np.random.Generator) -> np.ndarray:
        turn = random_rotation(self.augmentation.rotation, generator)
        return turn * generator.uniform(*self.augmentation.scale, 3)

    def _cut(
        self, case: CachedCase, patch: tuple[int, ...], affine: np.ndarray, centre: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """Trilinear image and nearest target of a turned, scaled box; outside the scan is the window's low end."""
        reach = (np.array(patch) - 1) / 2
        corners = np.stack(np.meshgrid(*zip(-reach, reach, strict=True), indexing="ij"), -1).reshape(-1, 3) @ affine.T
        first = np.maximum(np.floor(centre + corners.min(0)).astype(int) - 1, 0)
        last = np.minimum(np.ceil(centre + corners.max(0)).astype(int) + 2, case.image.shape)
        first = np.minimum(first, last - 2)
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        half = (last - first - 1) / 2  # torch's grids run from -1 to 1, the last axis first
        theta = np.column_stack([affine * reach / half[:, None], (centre - first) / half - 1])
        theta = np.column_stack([theta[::-1, 2::-1], theta[::-1, 3]])[None]
        turned = torch.nn.functional.affine_grid(torch.tensor(theta, dtype=torch.float32), [1, 1, *patch], True)
        image = torch.from_numpy(self.preprocessing.normalise(case.image[box]) + 1)[None, None]
        target = torch.from_numpy(case.target[box].astype(np.float32))[None, None]
        warp = torch.nn.functional.grid_sample
        cut = warp(image, turned, mode="bilinear", padding_mode="zeros", align_corners=True)[0, 0] - 1
        labels = warp(target, turned, mode="nearest", padding_mode="zeros", align_corners=True)[0, 0]
        return cut, labels.long()

    def _shading(self, generator: np.random.Generator, shape: torch.Size) -> Tensor:
        """A smooth random field (x, y, z): organs of other patients are brighter or darker than their surroundings."""
        strength = np.float32(generator.uniform(0, self.augmentation.shading))
        coarse = torch.from_numpy(generator.standard_normal((1, 1, 3, 3, 3), dtype=np.float32) * strength)
        return torch.nn.functional.interpolate(coarse, tuple(shape), mode="trilinear", align_corners=True)[0, 0]

    def _organ_shift(self, generator: np.random.Generator, target: Tensor) -> Tensor:
        """A change of brightness (x, y, z) of every annotated organ as a whole, with soft borders."""
        shifts = generator.uniform(-1, 1, IGNORE + 1).astype(np.float32) * np.float32(self.augmentation.organ_shift)
        shifts[[0, IGNORE]] = 0
        return _smoothed(torch.from_numpy(shifts)[target])

    def _intensities(self, generator: np.random.Generator, image: Tensor, target: Tensor) -> Tensor:
        a = self.augmentation
        noise = generator.standard_normal(tuple(image.shape), dtype=np.float32) * generator.uniform(0, a.noise)
        image = image * generator.uniform(*a.contrast) + generator.uniform(-a.brightness, a.brightness)
        image = (image + torch.from_numpy(noise)).float() + self._shading(generator, image.shape)
        image = image + self._organ_shift(generator, target)
        if generator.random() < a.blur:
            image = _smoothed(image)
        return image


def _smoothed(image: Tensor) -> Tensor:
    """Mean over 3 × 3 × 3 voxels of an image (x, y, z), zero beyond its edges: an axis at a time is faster."""
    for axis in range(3):
        whole, inner = image.shape[axis], image.clone()
        inner.narrow(axis, 1, whole - 1).add_(image.narrow(axis, 0, whole - 1))
        inner.narrow(axis, 0, whole - 1).add_(image.narrow(axis, 1, whole - 1))
        image = inner
    return image / 27
