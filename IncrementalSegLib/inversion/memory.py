"""What a model remembers for synthesis: feature statistics, intensities, mask bank; kept in ``memory/`` of its package.

Kept of the training scans are: two numbers per feature channel, a histogram and seven numbers per organ and tissue, and
label maps recombined from several patients (see `bank`). No image, no file name, no patient identifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..models.networks import place
from ..models.package import Model
from ..organs import OrganTable
from ..phantom import PHANTOM_ORGANS, PhantomConfig, make_phantom, phantom_table
from ..volumes import to_array
from .anatomy import Anatomy
from .bank import MaskBank, collect_bank
from .intensities import Intensities, measure_intensities
from .layers import carries_statistics
from .statistics import FeatureStatistics, record_statistics, statistics_of

ANATOMIES = 12
_PHANTOMS = 4

Scan = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Memory:
    """What an inversion starts from; ``bank.source`` and ``statistics.source`` say where it comes from."""

    statistics: FeatureStatistics
    intensities: Intensities
    bank: MaskBank


def remember(
    model: Model, scans: Sequence[Scan], batches: Iterable[Tensor], seed: int, device: torch.device
) -> dict[str, Any]:
    """The model's ``memory`` with what these scans taught: HU (x, y, z) and channels (x, y, z) of every case.

    ``batches`` of training images (B, 1, x, y, z) are run, on ``device``, only where the network has no BatchNorm to
    carry statistics. Anatomies that the model remembered before lend their organs to the new ones, since a step's scans
    show only its own; intensities of organs that the scans do not show are those remembered before.
    """
    anatomies = [Anatomy.of(hu, channels, model.preprocessing.spacing) for hu, channels in scans]
    measured = _measured(model, scans, anatomies)
    if "masks" in model.memory:
        earlier = MaskBank.from_state(model.memory["masks"])
        anatomies += [earlier.anatomy(i, model.preprocessing.spacing) for i in range(len(earlier.anatomies))]
        measured = measured.completed(Intensities.from_state(model.memory["intensities"]))
    bank = collect_bank(anatomies, model.preprocessing.spacing, ANATOMIES, np.random.default_rng(seed))
    memory = {**model.memory, "intensities": measured.to_state(), "masks": bank.to_state()}
    if not carries_statistics(model.network):
        network = place(model.network, device)
        memory["statistics"] = record_statistics(network, batches, "training", device).to_state()
        network.cpu()
    return memory


def _measured(model: Model, scans: Sequence[Scan], anatomies: Sequence[Anatomy]) -> Intensities:
    images = (model.preprocessing.normalise(hu) for hu, _ in scans)
    return measure_intensities(zip(images, anatomies, strict=True), len(model.organs))


def recall(model: Model, scans: Callable[[], Iterable[Scan]] | None = None) -> Memory:
    """What to invert the model with: what it remembers, else what the current scans show, else phantoms.

    Args:
        model: the model to invert.
        scans: HU and the model's own predictions as channels, for models that remember nothing (foreign ones).

    Raises:
        InputError: neither memory nor scans, and no phantom has the model's organs.
    """
    if "masks" in model.memory:
        statistics = statistics_of(model.network, model.memory, None)
        intensities = Intensities.from_state(model.memory["intensities"])
        return Memory(statistics, intensities, MaskBank.from_state(model.memory["masks"]))
    shown = list(scans()) if scans else _phantoms(model)
    batches = (lambda: (_as_batch(model, hu) for hu, _ in shown)) if scans else None
    statistics = statistics_of(model.network, model.memory, batches)
    anatomies = [Anatomy.of(hu, channels, model.preprocessing.spacing) for hu, channels in shown]
    bank = collect_bank(anatomies, model.preprocessing.spacing, ANATOMIES, np.random.default_rng(0))
    return Memory(statistics, _measured(model, shown, anatomies), bank)


def _as_batch(model: Model, hu: np.ndarray) -> Tensor:
    """The middle of a scan as a batch of one patch, (1, 1, x, y, z)."""
    box = tuple(
        slice(max(0, (n - edge) // 2), max(0, (n - edge) // 2) + edge)
        for n, edge in zip(hu.shape, model.patch, strict=True)
    )
    image = torch.from_numpy(model.preprocessing.normalise(hu[box]))
    missing = [edge - n for n, edge in zip(image.shape, model.patch, strict=True)]
    return torch.nn.functional.pad(image, [0, missing[2], 0, missing[1], 0, missing[0]], value=-1.0)[None, None]


def _phantoms(model: Model) -> list[Scan]:
    """Scans of made-up patients with those organs of the model that phantoms have."""
    table = phantom_table()
    known = {
        table.find(organ.name).label: c for c, organ in enumerate(model.organs, 1) if _in_phantom(organ.key, table)
    }
    if not known:
        raise InputError(
            f"The model remembers no anatomy and phantoms have none of its organs ({', '.join(model.organs.names)}): "
            "give scans with --cases."
        )
    spacing = model.preprocessing.spacing
    x, y, z = (round(mm / step) for mm, step in zip((384, 320, 320), spacing, strict=True))
    config, generator = PhantomConfig((x, y, z), spacing), np.random.default_rng(0)
    scans = []
    for _ in range(_PHANTOMS):
        ct, label = (to_array(image) for image in make_phantom(generator, config))
        channels = np.zeros(label.shape, np.uint8)
        for value, channel in known.items():
            channels[label == value] = channel
        scans.append((ct, channels))
    return scans


def _in_phantom(key: str, table: OrganTable) -> bool:
    return key in {table.find(name).key for name in PHANTOM_ORGANS}
