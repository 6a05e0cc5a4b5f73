"""What base training and the incremental step share: where a run keeps its files, its cases, patches and loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ..cases import Case
from ..events import Reporter
from ..models.networks import device_named
from ..organs import OrganTable
from ..preprocessing import Preprocessing
from .config import TrainingConfig
from .loop import Objective, fit
from .patches import CachedCase, PatchSampler, cache_case

_RECORDED = 32  # batches whose feature statistics are recorded where the network keeps none


@dataclass(frozen=True)
class Workspace:
    """Where a run keeps its cache and checkpoint, and to whom it reports."""

    folder: Path
    reporter: Reporter = field(default_factory=Reporter)

    @property
    def cache(self) -> Path:
        """Preprocessed cases."""
        return self.folder / "cache"

    @property
    def synthetic(self) -> Path:
        """Synthetic volumes for replay."""
        return self.folder / "synthetic"

    @property
    def student(self) -> Path:
        """The weights with which the student competed halfway."""
        return self.folder / "checkpoint" / "student.pt"

    @property
    def checkpoint(self) -> Path:
        """The training checkpoint."""
        return self.folder / "checkpoint" / "training.pt"


def prepare(
    cases: Sequence[Case], organs: OrganTable, preprocessing: Preprocessing, workspace: Workspace
) -> list[CachedCase]:
    """The cases on the model's grid.

    Raises:
        InputError: a case cannot be read.  StorageError: the cache cannot be written.
    """
    cached = []
    for number, case in enumerate(cases, start=1):
        cached.append(cache_case(case, organs, preprocessing, workspace.cache))
        workspace.reporter.progress("prepare", number, len(cases))
    return cached


def sampler_of(
    cases: Sequence[CachedCase],
    organs: OrganTable,
    preprocessing: Preprocessing,
    config: TrainingConfig,
    replay: Sequence[CachedCase] = (),
    share: float = 0.0,
) -> PatchSampler:
    """Random patches of these cases, a ``share`` of them from the ``replay`` cases."""
    return PatchSampler(
        cases,
        preprocessing,
        config.augmentation,
        organ_fraction=config.organ_fraction,
        seed=config.seed,
        mirror=organs.mirror_channels(),
        replay=replay,
        replay_share=share,
    )


def batches(sampler: PatchSampler, size: int, patch: Sequence[int]) -> Iterator[Tensor]:
    """Training images (B, 1, x, y, z), as many as feature statistics are recorded on."""
    return (sampler.batch(number, size, patch).image for number in range(_RECORDED))


def run_loop(
    network: nn.Module,
    objective: Objective,
    config: TrainingConfig,
    workspace: Workspace,
    phase: str,
    sampler: PatchSampler,
    frozen: bool = False,
    until: int | None = None,
    carried: nn.Module | None = None,
) -> None:
    """Train ``network`` with `loop.fit`, its checkpoint and events where the workspace keeps them."""
    fit(
        network,
        objective,
        sampler,
        config,
        device=device_named(config.device),
        checkpoint=workspace.checkpoint,
        reporter=workspace.reporter,
        phase=phase,
        frozen_statistics=frozen,
        until=until,
        carried=carried,
    )
