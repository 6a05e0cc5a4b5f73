"""Networks: a MONAI trunk by name, BatchNorm and ReLU, and one 1×1×1 head that alone carries the classes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import monai.networks.nets as nets
import torch
from torch import nn

from ..errors import InputError
from .foreign import ForeignNetwork, Usage, build_foreign, constructing
from .locked import LockedNetwork

_RELU = ["relu", {"inplace": True}]
PRESETS: dict[str, dict[str, Any]] = {
    "UNet": {
        "spatial_dims": 3,
        "channels": [32, 64, 128, 256],
        "strides": [2, 2, 2],
        "num_res_units": 0,
        "norm": "batch",
        "act": _RELU,
    },
    "SegResNet": {"spatial_dims": 3, "init_filters": 8, "blocks_down": [1, 2, 2, 4], "norm": "batch"},
    "DynUNet": {
        "spatial_dims": 3,
        "kernel_size": [3, 3, 3, 3],
        "strides": [1, 2, 2, 2],
        "upsample_kernel_size": [2, 2, 2],
        "filters": [16, 32, 64, 128],
        "norm_name": "instance",
    },
    "SwinUNETR": {"spatial_dims": 3, "feature_size": 12},
    "BasicUNet": {"spatial_dims": 3, "features": [16, 16, 32, 64, 128, 16], "norm": "batch"},
    "AttentionUnet": {"spatial_dims": 3, "channels": [16, 32, 64, 128], "strides": [2, 2, 2]},
    "VNet": {"spatial_dims": 3, "dropout_prob_down": None, "dropout_prob_up": [None, 0.0]},
}


@dataclass(frozen=True)
class NetworkSpec:
    """A MONAI network by class name, its constructor arguments and the number of feature channels before the head.

    ``branches``: number of organs of every branch of a locked model (see `locked`). With a ``usage`` it is a network of
    another tool with its own last layers (see `foreign`).
    """

    name: str = "UNet"
    args: dict[str, Any] = field(default_factory=lambda: dict(PRESETS["UNet"]))
    features: int = 16
    branches: tuple[int, ...] = ()
    usage: Usage | None = None

    def __post_init__(self) -> None:
        """JSON knows no tuples and no dataclasses."""
        object.__setattr__(self, "branches", tuple(self.branches))
        if isinstance(self.usage, dict):
            object.__setattr__(self, "usage", Usage(**self.usage))

    @classmethod
    def preset(cls, name: str) -> NetworkSpec:
        """The sensible arguments of a network that this software knows.

        Raises:
            InputError: the name is not known.
        """
        if name not in PRESETS:
            raise InputError(f"Network '{name}' is not known: choose one of {', '.join(PRESETS)}.")
        return cls(name, dict(PRESETS[name]))

    def trunk_args(self) -> dict[str, Any]:
        """Constructor arguments of the trunk: one CT channel in, ``features`` channels out."""
        return {**self.args, "in_channels": 1, "out_channels": self.features}


def build_network(spec: NetworkSpec, classes: int) -> nn.Module:
    """Trunk → BatchNorm and ReLU → head with ``classes`` outputs (background included), randomly initialised.

    A plain ``torch.nn.Sequential`` with children ``trunk``, ``activation``, ``head``: a MONAI bundle builds the same
    without our code. A foreign network is as its own tool builds it. With branches it is a `LockedNetwork` around that.

    Raises:
        InputError: the network's name or arguments do not exist in this MONAI.
    """
    core = _core(spec, classes - sum(spec.branches))
    return LockedNetwork(core, spec.features, spec.branches) if spec.branches else core


def _core(spec: NetworkSpec, classes: int) -> nn.Sequential | ForeignNetwork:
    if spec.usage:
        return build_foreign(spec.name, spec.args, spec.usage, classes)
    if spec.name not in PRESETS:
        raise InputError(f"Network '{spec.name}' is not known: choose one of {', '.join(PRESETS)}.")
    with constructing(spec.name):
        trunk = getattr(nets, spec.name)(**spec.trunk_args())
    activation = nn.Sequential(nn.BatchNorm3d(spec.features), nn.ReLU())
    head = nn.Conv3d(spec.features, classes, kernel_size=1)
    return nn.Sequential(OrderedDict(trunk=trunk, activation=activation, head=head))


def head_parameters(network: nn.Module) -> list[nn.Parameter]:
    """What makes classes of features; a locked network's branch is new as a whole and has no head of its own."""
    if isinstance(network, ForeignNetwork):
        return network.head_parameters()
    return [*network.get_submodule("head").parameters()] if isinstance(network, nn.Sequential) else []


def freeze_statistics(network: nn.Module) -> None:
    """Put every BatchNorm in evaluation mode, so that its statistics stay (method §1); call after ``train()``."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network, in place, to a device in the memory layout in which it runs fastest there: channels last."""
    return network.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def divisor(network: nn.Module) -> int:
    """Patch edges must be multiples of this: SwinUNETR halves the resolution five times, the others four at most."""
    for module in network.modules():
        if isinstance(module, ForeignNetwork):
            return module.divisor
    return 32 if any(type(module).__name__ == "SwinUNETR" for module in network.modules()) else 16


def device_named(name: str) -> torch.device:
    """``auto`` is the first GPU when torch can compute on one, else the CPU; any other name is torch's.

    Raises:
        InputError: a GPU was asked for and torch sees none, or torch cannot use a device of this name.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not unusable("cuda") else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("A GPU was asked for but torch sees none: install a CUDA build of torch or use --device cpu.")
    if reason := unusable(name):
        raise InputError(f"Device '{name}' cannot be used here ({reason}): choose auto, cpu or cuda.")
    return torch.device(name)


@lru_cache
def unusable(name: str) -> str:
    """Why torch cannot compute on a device, empty where it can: a build may lack the kernels of a GPU that it sees."""
    try:
        one = torch.ones(1, 1, 3, 3, 3, device=name)
        torch.nn.functional.conv3d(one, one).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).strip().partition("\n")[0].rstrip(".")
    return ""


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device ran out of memory: CUDA's libraries and MONAI's windows say so in words of their own."""
    said = str(error)
    words = ("out of memory", "ALLOC_FAILED", "Seems to be OOM")
    return isinstance(error, torch.OutOfMemoryError) or any(word in said for word in words)
