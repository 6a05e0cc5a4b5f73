"""Widening: more output classes for any network, by comparing the state dicts of the narrow and the wide one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..errors import PackageError


def widen(
    build: Callable[[int], nn.Module],
    state: Mapping[str, Tensor],
    old: int,
    new: int,
    from_background: bool = True,
) -> nn.Module:
    """The network with ``new`` classes that computes what the one with ``old`` classes did.

    Every tensor whose shape depends on the number of classes is found by comparison; the overlap is copied, old outputs
    get zero weight from new inputs, new outputs copy the background's row, and the biases of background and new outputs
    become ``b_bg - log(N + 1)``. Organ logits then are identical and ``softmax`` folded over background and new classes
    equals the old one (method §1; our formulation, the background split as in MiB, Cermelli et al. 2020, §3.3).

    Args:
        build: makes the network for a number of classes (background included).
        state: state dict of the old network.
        old: its number of classes.
        new: wanted number of classes, ``new > old``.
        from_background: without it new outputs begin at random and the background keeps its bias, as plain fine-tuning
            has it; then only the old outputs compute what they did.

    Raises:
        PackageError: the state does not belong to the network, or the head has no bias.
    """
    if new <= old:
        raise ValueError(f"widening needs more classes than before, got {old} -> {new}")
    network = build(new)
    target = network.state_dict()
    narrow = {key: tensor.shape for key, tensor in build(old).state_dict().items()}
    if narrow != {key: tensor.shape for key, tensor in state.items()}:
        raise PackageError(f"The weights do not fit a network with {old} classes: the package is damaged or mixed up.")
    transposed = _transposed_weights(network)
    grown = [key for key in target if target[key].shape != narrow[key]]
    for key in target:
        axis = 1 if key in transposed else 0
        target[key] = _grow(state[key], target[key], axis, from_background) if key in grown else state[key].clone()
    for key in head_biases(state, target):
        bias = target[key]
        bias[0] -= math.log(new - old + 1) if from_background else 0.0
        bias[old:] = bias[0] if from_background else 0.0
    network.load_state_dict(target)
    return network


def _transposed_weights(network: nn.Module) -> set[str]:
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, kinds)}


def _grow(tensor: Tensor, fresh: Tensor, output_axis: int, from_background: bool) -> Tensor:
    """A tensor in the shape of ``fresh``: old outputs see no new input; new ones are as fresh, or as the background."""
    wide = torch.zeros_like(fresh)
    wide[tuple(slice(0, n) for n in tensor.shape)] = tensor
    before, after = tensor.shape[output_axis], fresh.shape[output_axis]
    if after > before:
        rows, begun = (part.narrow(output_axis, before, after - before) for part in (wide, fresh))
        rows.copy_(wide.narrow(output_axis, 0, 1).expand_as(rows) if from_background else begun)
    return wide


def head_biases(narrow: Mapping[str, Tensor], wide: Mapping[str, Tensor]) -> list[str]:
    """Biases of the last class-carrying convolutions: those from class to class if there are any, else all of them.

    Args:
        narrow: state dict of the network with fewer classes.
        wide: that of the one with more.

    Raises:
        PackageError: the head has no bias.
    """
    grown = {key: tensor.shape for key, tensor in narrow.items() if tensor.shape != wide[key].shape}
    weights = [key for key, shape in grown.items() if key.endswith("weight") and len(shape) > 2]
    both = [key for key in weights if sum(a != b for a, b in zip(wide[key].shape, grown[key], strict=True)) == 2]
    biases = [key.removesuffix("weight") + "bias" for key in both or weights]
    if not biases or any(bias not in wide for bias in biases):
        raise PackageError("The network's output layer has no bias, so a new organ cannot start from the background.")
    return biases


def folded_probabilities(logits: Tensor, old: int) -> Tensor:
    """Softmax over (B, 1 + K + N, …) with the new classes' mass added to the background: (B, 1 + K, …)."""
    probabilities = logits.softmax(1)
    background = probabilities[:, :1] + probabilities[:, old:].sum(1, keepdim=True)
    return torch.cat([background, probabilities[:, 1:old]], 1)
