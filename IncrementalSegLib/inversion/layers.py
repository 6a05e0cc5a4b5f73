"""Which layers of a network are watched, and what they see: mean and variance per channel of each one's input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from ..errors import InputError
from ..losses.unbiased import at_least_float32
from ..models.networks import divisor

Note = Callable[[str, Tensor, int], None]

_CHANNELS_LAST = (nn.LayerNorm, nn.RMSNorm)
_NORMALISATIONS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, *_CHANNELS_LAST)


def layer_names(network: nn.Module, example: Tensor | None = None) -> list[str]:
    """The modules that are watched, in forward order.

    Every BatchNorm where most normalisations are BatchNorms with running statistics; else every normalisation (also the
    BatchNorm that our networks have before the head); else every convolution. LayerNorm over the last axis, as in
    SwinUNETR, counts with its channels last; one over several axes has no channels and is left out, and so is a module
    that runs more than once in a pass, since it has no one input. Weights, modes and running statistics stay as they
    are.

    Args:
        network: any network; on the CPU or not.
        example: an image (B, 1, x, y, z) that it can process; random noise if None.

    Raises:
        InputError: there is no such module, or the network cannot process the example.
    """
    normalisations = [name for name, module in network.named_modules() if _normalises(module)]
    convolutions = [name for name, module in network.named_modules() if isinstance(module, _ConvNd)]
    names = tracked_batchnorms(network) if carries_statistics(network) else normalisations or convolutions
    return in_forward_order(network, names, example)


def carries_statistics(network: nn.Module) -> bool:
    """Whether most of the network's normalisations are BatchNorms with running statistics."""
    return 2 * len(tracked_batchnorms(network)) > sum(map(_normalises, network.modules()))


def tracked_batchnorms(network: nn.Module) -> list[str]:
    """Names of the BatchNorms that have running statistics."""
    modules = network.named_modules()
    return [name for name, m in modules if isinstance(m, _BatchNorm) and m.running_mean is not None]


def _normalises(module: nn.Module) -> bool:
    return isinstance(module, _NORMALISATIONS) and channels_of(module) is not None


def channels_of(module: nn.Module) -> int | None:
    """Number of channels of a module's input; None if it has none or is not one to watch."""
    if isinstance(module, _CHANNELS_LAST):
        return module.normalized_shape[0] if len(module.normalized_shape) == 1 else None
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, (_BatchNorm, _InstanceNorm)):
        return module.num_features
    return module.in_channels if isinstance(module, _ConvNd) else None


def in_forward_order(network: nn.Module, names: Iterable[str], example: Tensor | None) -> list[str]:
    """Those of the modules that run exactly once when the network processes the example, in that order.

    Raises:
        InputError: there is none, or the network cannot process the example.
    """
    weight = next(network.parameters())
    if example is None:
        shape = (1, 1, *[2 * divisor(network)] * 3)  # one voxel at the lowest resolution is too few for InstanceNorm
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    calls: list[str] = []
    try:
        with at_rest(network), hooked(network, names, lambda name, *_: calls.append(name)):
            network(example.to(weight))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"The network cannot process a volume of {'×'.join(map(str, example.shape[2:]))} voxels ({error}): "
            "give scans in the size that it was trained on."
        ) from error
    once = [name for name, times in Counter(calls).items() if times == 1]
    if not once:
        raise InputError("The network has no normalisation and no convolution to watch: choose another network.")
    return once


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode in which it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def hooked(network: nn.Module, names: Iterable[str], note: Note) -> Iterator[None]:
    """``note(name, input, channel axis)`` whenever one of these modules is about to run."""
    handles = []
    try:
        for name in names:
            module = network.get_submodule(name)
            axis = -1 if isinstance(module, _CHANNELS_LAST) else 1
            handles.append(module.register_forward_pre_hook(partial(_tell, note, name, axis)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tell(note: Note, name: str, axis: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    note(name, inputs[0], axis)


def moments(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (K,) of features over all axes but ``axis``, with gradient.

    The same as `torch.var_mean`, in a fraction of its time on a CPU. Half precision is summed in float32, but only the
    features themselves are kept for the gradient.
    """
    return _Moments.apply(x, axis)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        axes = [i for i in range(x.ndim) if i != axis % x.ndim]
        values = at_least_float32(x)
        mean = values.mean(axes, keepdim=True)
        ctx.save_for_backward(x, mean)
        return mean.flatten(), (values - mean).square_().mean(axes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        per_mean, per_variance = (gradient.view_as(mean) * (mean.numel() / x.numel()) for gradient in gradients)
        slope = 2 * per_variance
        return torch.addcmul(per_mean - slope * mean, at_least_float32(x), slope).to(x.dtype), None
