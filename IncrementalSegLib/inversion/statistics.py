"""Feature statistics: what a network's layers saw in training, and R, how far the features of an image are from it.

Mean and variance per channel of the **input** of each normalisation (method §5), over batch and space. Three sources,
one form: BatchNorm's running statistics, a recording made at training and kept in the package, a measurement on the
current scans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import InputError, PackageError
from .layers import (
    at_rest,
    carries_statistics,
    channels_of,
    hooked,
    in_forward_order,
    layer_names,
    moments,
    tracked_batchnorms,
)

Source = Literal["batchnorm", "training", "scans"]
Seen = dict[str, tuple[Tensor, Tensor]]

_EPSILON = 1e-5  # added to every stored variance, as BatchNorm does: a dead channel must not outweigh all others


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and biased variance (K,) of the input of each watched module, by its name, in forward order.

    ``source``: where they come from. Tensors are float32 and on the CPU, unless moved with `to`.
    """

    source: Source
    layers: Seen

    @classmethod
    def of_batchnorm(cls, network: nn.Module) -> FeatureStatistics:
        """The running statistics of every BatchNorm that runs (their variance is the unbiased one, a hair larger).

        Raises:
            InputError: the network has no BatchNorm with running statistics, or cannot be run on a small volume.
        """
        tracked = tracked_batchnorms(network)
        if not tracked:
            raise InputError("This network has no BatchNorm with running statistics: measure them on the scans.")
        buffers, names = dict(network.named_buffers()), in_forward_order(network, tracked, None)
        running = [(_plain(buffers[f"{n}.running_mean"]), _plain(buffers[f"{n}.running_var"])) for n in names]
        return cls("batchnorm", dict(zip(names, running, strict=True)))

    def to(self, device: torch.device) -> FeatureStatistics:
        """The same on another device; spares `feature_distance` a copy per layer and call."""
        layers = {name: (mean.to(device), variance.to(device)) for name, (mean, variance) in self.layers.items()}
        return FeatureStatistics(self.source, layers)

    def to_state(self) -> dict[str, Any]:
        """Plain values and tensors, for ``memory["statistics"]`` of a model package."""
        layers = {name: (_plain(mean), _plain(variance)) for name, (mean, variance) in self.layers.items()}
        return {"source": self.source, "layers": layers}

    @classmethod
    def from_state(cls, state: Any) -> FeatureStatistics:
        """What `to_state` gave.

        Raises:
            PackageError: it is something else, or holds numbers that no statistics can have.
        """
        try:
            layers = {str(name): (mean, variance) for name, (mean, variance) in state["layers"].items()}
            sound = state["source"] in get_args(Source) and len(layers) > 0
            sound = sound and all(_sound(mean, variance) for mean, variance in layers.values())
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            sound = False
        if not sound:
            raise PackageError("The model's feature statistics (memory/statistics.pt) are damaged: copy it again.")
        return cls(state["source"], {name: (_plain(m), _plain(v)) for name, (m, v) in layers.items()})

    def check_fits(self, network: nn.Module) -> None:
        """Every layer exists in the network, with as many channels.

        Raises:
            PackageError: the statistics are those of another network.
        """
        modules = dict(network.named_modules())
        for name, (mean, _) in self.layers.items():
            if name not in modules or channels_of(modules[name]) != len(mean):
                raise PackageError(
                    f"The feature statistics stored with the model do not belong to its network (layer {name}): "
                    "copy the model again."
                )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _sound(mean: Tensor, variance: Tensor) -> bool:
    shaped = mean.ndim == 1 and mean.shape == variance.shape and len(mean) > 0
    return shaped and bool(mean.isfinite().all() and variance.isfinite().all() and (variance >= 0).all())


@contextmanager
def watch(network: nn.Module, statistics: FeatureStatistics) -> Iterator[Seen]:
    """While open, every forward pass leaves mean and biased variance (K,) per layer in the dict, with gradient.

    They are taken at once, before an activation in place can change the features, in float32 at least, and overwritten
    by the next pass. The network should be in evaluation mode; nothing of it is changed, and the hooks go when it
    closes, after an error too.

    Raises:
        PackageError: the statistics are those of another network.
    """
    statistics.check_fits(network)
    seen: Seen = {}

    def note(name: str, x: Tensor, axis: int) -> None:
        seen[name] = moments(x, axis)

    with hooked(network, statistics.layers, note):
        yield seen


def record_statistics(
    network: nn.Module, batches: Iterable[Tensor], source: Source, device: torch.device
) -> FeatureStatistics:
    """Statistics over all voxels of all batches, as if they were one: a stream, in constant memory, pooled in float64.

    Args:
        network: is moved to ``device`` and run in evaluation mode; its modes are restored.
        batches: images (B, 1, x, y, z), normalised as for training; sizes may differ.
        source: what to call them.
        device: where to compute.

    Raises:
        InputError: no batch, values that are not finite, or a network that cannot be watched (see `layer_names`).
    """
    network.to(device)
    stream = iter(batches)
    first = next(stream, None)
    if first is None:
        raise InputError("There is no scan to measure the model's feature statistics on: give at least one.")
    totals: dict[str, tuple[int, Tensor, Tensor]] = {}

    def note(name: str, x: Tensor, axis: int) -> None:
        mean, variance = (moment.cpu().double() for moment in moments(x, axis))
        part = (x.numel() // len(mean), mean, variance)
        totals[name] = _pooled(totals[name], part) if name in totals else part

    with at_rest(network), hooked(network, layer_names(network, first), note):
        for batch in chain([first], stream):
            network(batch.to(device))
    statistics = FeatureStatistics(source, {name: (_plain(m), _plain(v)) for name, (_, m, v) in totals.items()})
    if not all(_sound(mean, variance) for mean, variance in statistics.layers.values()):
        raise InputError("The scans give features that are not finite numbers: check their intensities.")
    return statistics


def _pooled(a: tuple[int, Tensor, Tensor], b: tuple[int, Tensor, Tensor]) -> tuple[int, Tensor, Tensor]:
    """Count, mean and biased variance of two sets together (Chan, Golub, LeVeque 1983)."""
    count, apart = a[0] + b[0], b[1] - a[1]
    variance = (a[0] * a[2] + b[0] * b[2]) / count + apart.square() * (a[0] / count * (b[0] / count))
    return count, a[1] + apart * (b[0] / count), variance


def statistics_of(
    network: nn.Module, memory: Mapping[str, Any], scans: Callable[[], Iterable[Tensor]] | None
) -> FeatureStatistics:
    """The best statistics there are: BatchNorm's, else those recorded at training, else measured on the current scans.

    Args:
        network: runs where it lies.
        memory: the package's; ``memory["statistics"]`` is a `FeatureStatistics.to_state`.
        scans: gives batches (B, 1, x, y, z) as for `record_statistics`; asked for only when needed.

    Raises:
        InputError: none of the three is possible.
        PackageError: what the package remembers is damaged or belongs to another network.
    """
    if carries_statistics(network):
        return FeatureStatistics.of_batchnorm(network)
    if "statistics" in memory:
        statistics = FeatureStatistics.from_state(memory["statistics"])
        statistics.check_fits(network)
        return statistics
    if scans is not None:
        return record_statistics(network, scans(), "scans", next(network.parameters()).device)
    raise InputError(
        "This model carries no feature statistics (few or no BatchNorms, nothing recorded at its training): "
        "give some scans to measure them on."
    )


def feature_distance(
    seen: Mapping[str, tuple[Tensor, Tensor]], statistics: FeatureStatistics, first_layer: float = 10.0
) -> Tensor:
    """The scale-free R of method §5: ``1/L Σ_l r_l (rms_k[(mean - μ)/σ] + rms_k[var/σ² - 1])``, r = 1 after the first.

    Our formulation; DeepInversion (Yin et al. 2020, §3.2) has norms that depend on each layer's scale and width.

    Args:
        seen: from `watch`, after a forward pass.
        statistics: the layers to compare, the first of them weighted ``first_layer``.
        first_layer: r of the first layer.

    Raises:
        ValueError: a layer was not seen or has another number of channels.
    """
    distances = _distances(seen, statistics)
    return (distances.sum() + (first_layer - 1) * distances[0]) / len(distances)


def distance_per_layer(seen: Mapping[str, tuple[Tensor, Tensor]], statistics: FeatureStatistics) -> dict[str, float]:
    """The summands of `feature_distance` by layer, unweighted, as numbers for the quality table.

    Raises:
        ValueError: a layer was not seen or has another number of channels.
    """
    return dict(zip(statistics.layers, _distances(seen, statistics).tolist(), strict=True))


def published_distance(
    seen: Mapping[str, tuple[Tensor, Tensor]], statistics: FeatureStatistics, first_layer: float = 10.0
) -> Tensor:
    """The reference recipe's own form, summed over layers: ``Σ_l r_l (‖mean - μ‖₂ + ‖var - σ²‖₂)/C_l`` (method §5).

    Arguments and errors are those of `feature_distance`.
    """
    norms = [
        (torch.linalg.vector_norm(mean - mu) + torch.linalg.vector_norm(variance - sigma2)) / len(mu)
        for mean, variance, mu, sigma2 in _pairs(seen, statistics)
    ]
    return torch.stack(norms).sum() + (first_layer - 1) * norms[0]


def _distances(seen: Mapping[str, tuple[Tensor, Tensor]], statistics: FeatureStatistics) -> Tensor:
    return torch.stack(
        [
            _rms((mean - mu) / (sigma2 + _EPSILON).sqrt()) + _rms((variance - sigma2) / (sigma2 + _EPSILON))
            for mean, variance, mu, sigma2 in _pairs(seen, statistics)
        ]
    )


def _rms(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values) / len(values) ** 0.5  # unlike the root of a mean, its gradient is 0 at 0


def _pairs(
    seen: Mapping[str, tuple[Tensor, Tensor]], statistics: FeatureStatistics
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Seen mean and variance, stored mean and variance, (K,) each, layer by layer."""
    for name, (mu, sigma2) in statistics.layers.items():
        if name not in seen:
            raise ValueError(f"layer {name} was not seen: run the network inside watch() first")
        mean, variance = seen[name]
        if mean.shape != mu.shape or variance.shape != sigma2.shape:
            raise ValueError(f"layer {name}: seen {tuple(mean.shape)} channels against {tuple(mu.shape)} stored")
        yield mean, variance, mu.to(mean), sigma2.to(variance)
