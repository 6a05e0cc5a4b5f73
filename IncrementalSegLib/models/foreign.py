"""Networks of other tools behind our interface: a CT in LPS, its HU window scaled to [-1, 1], to logits of all classes.

What the other tool does to a scan just before its network (axes, scale) happens here, inside the network; what it does
to the grid is `Preprocessing`'s. Nothing is executed but constructors from the two lists below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import monai.networks.nets as nets
import torch
from torch import Tensor, nn

from ..errors import InputError

MONAI_NETWORKS = (
    "UNet",
    "SegResNet",
    "SegResNetDS",
    "DynUNet",
    "SwinUNETR",
    "BasicUNet",
    "AttentionUnet",
    "VNet",
)
NNUNET_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
_KNOWN_LAYERS = (nn.Conv3d, nn.InstanceNorm3d, nn.BatchNorm3d, nn.LeakyReLU, nn.ReLU, nn.Dropout3d)
_LAYERS: dict[str, type[nn.Module]] = {layer.__name__: layer for layer in _KNOWN_LAYERS}
_WIDEST_SWIN = 192  # feature_size; published ones have 12 to 96
_AXES = {"L": (0, False), "R": (0, True), "P": (1, False), "A": (1, True), "S": (2, False), "I": (2, True)}


@dataclass(frozen=True)
class Usage:
    """How a foreign network is meant to be used.

    ``family``: ``monai`` or ``nnunet``, whose constructors are meant. ``orientation``: where its three axes grow to,
    for example RAS. ``intensity``: what it is given for the two ends of the HU window; with ``squashed`` the logistic
    function comes behind that. ``overlap`` and ``blend`` (``gaussian`` or ``constant``) of its sliding window;
    ``mirror``: its axes along which predictions are mirrored and averaged.
    """

    family: str
    orientation: str = "LPS"
    intensity: tuple[float, float] = (-1.0, 1.0)
    squashed: bool = False
    overlap: float = 0.25
    blend: str = "gaussian"
    mirror: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """JSON knows no tuples; refuse what cannot be.

        Raises:
            InputError: a setting that no network has.
        """
        object.__setattr__(self, "intensity", tuple(self.intensity))
        object.__setattr__(self, "mirror", tuple(self.mirror))
        axes = sorted(_AXES.get(letter, (3, False))[0] for letter in self.orientation)
        low, high = self.intensity
        whole = axes == [0, 1, 2] and low < high and 0 <= self.overlap < 1 and set(self.mirror) <= {0, 1, 2}
        if not whole or self.family not in ("monai", "nnunet") or self.blend not in ("gaussian", "constant"):
            raise InputError(f"A network cannot be used like this: {self}.")


class ForeignNetwork(nn.Module):
    """A foreign ``trunk`` with its own last layers, called like one of ours.

    Args:
        trunk: the network as its tool builds it.
        tap: name of the module in it whose input are the features before the classes.
        heads: names of the modules whose size depends on the number of classes.
        usage: how it is meant to be used.
        classes: number of its outputs.
        divisor: patch edges must be multiples of it.
    """

    def __init__(self, trunk: nn.Module, tap: str, heads: set[str], usage: Usage, classes: int, divisor: int) -> None:
        super().__init__()
        self.trunk, self.usage, self.classes, self.divisor = trunk, usage, classes, divisor
        self.tap, self.heads = tap, heads
        letters = [_AXES[letter] for letter in usage.orientation]
        self._order = [0, 1, *(2 + axis for axis, _ in letters)]
        self._back = [0, 1, *(2 + [axis for axis, _ in letters].index(axis) for axis in range(3))]
        self._flips = [2 + number for number, (_, flipped) in enumerate(letters) if flipped]

    def head_parameters(self) -> list[nn.Parameter]:
        """What depends on the number of classes."""
        return [value for name, value in self.trunk.named_parameters() if name.rpartition(".")[0] in self.heads]

    def features_and_logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F, x, y, z) and logits (B, 1 + K, x, y, z); coarser features are interpolated."""
        seen: list[Tensor] = []
        tap = self.trunk.get_submodule(self.tap)
        hook = tap.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            logits = self(image)
        finally:
            hook.remove()
        features = self.from_network(seen[-1])
        if features.shape[2:] != logits.shape[2:]:
            features = nn.functional.interpolate(features, logits.shape[2:], mode="trilinear", align_corners=False)
        return features, logits

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, 1 + K, x, y, z) of an image (B, 1, x, y, z)."""
        return self.from_network(self._first(self.trunk(self.to_network(image))))

    def mirrored(self, seen: Tensor) -> Tensor:
        """Logits averaged over the mirror images that its tool predicts; both along the network's own axes."""
        total, count = None, 0
        for choice in range(2 ** len(self.usage.mirror)):
            axes = [2 + axis for bit, axis in enumerate(self.usage.mirror) if choice >> bit & 1]
            logits = self._first(self.trunk(seen.flip(axes) if axes else seen))
            logits = logits.flip(axes) if axes else logits
            total, count = logits if total is None else total + logits, count + 1
        assert total is not None
        return total / count

    def _first(self, output: Any) -> Tensor:
        """The finest of the outputs of deep supervision."""
        output = output[0] if isinstance(output, list | tuple) else output
        return output[:, 0] if output.dim() == 6 else output

    def in_its_order(self, values: Sequence[int]) -> list[int]:
        """Values along (x, y, z), along the network's own axes."""
        return [values[axis - 2] for axis in self._order[2:]]

    def to_network(self, image: Tensor) -> Tensor:
        """An image as the network takes it: its axes, its scale."""
        low, high = self.usage.intensity
        image = image.permute(self._order).flip(self._flips)
        if (low, high) != (-1.0, 1.0):
            image = image * ((high - low) / 2) + (high + low) / 2
        return image.sigmoid() if self.usage.squashed else image

    def from_network(self, maps: Tensor) -> Tensor:
        """Maps along the network's axes, (B, C, x, y, z)."""
        return maps.flip(self._flips).permute(self._back)


def build_foreign(name: str, args: dict[str, Any], usage: Usage, classes: int) -> ForeignNetwork:
    """The network of this class name and arguments with ``classes`` outputs, randomly initialised.

    Raises:
        InputError: it is none of those that are known here, or its arguments do not fit.
    """
    with constructing(name):
        tap, heads = _class_layers(outline(name, args, usage, classes), outline(name, args, usage, classes + 1))
        trunk = _maker(name, usage)(name, args, classes)
        return ForeignNetwork(trunk, tap, heads, usage, classes, _divisor(name, args))


def outline(name: str, args: dict[str, Any], usage: Usage, classes: int) -> nn.Module:
    """The network without memory for its weights; SwinUNETR, which cannot be built so, if it is of a usual size.

    Raises:
        InputError: it is none of those that are known here, or its arguments do not fit.
    """
    with constructing(name):
        make = _maker(name, usage)
        if name == "SwinUNETR" and args.get("feature_size", 24) > _WIDEST_SWIN:
            raise ValueError(f"feature_size {args['feature_size']}")
        with torch.device("cpu" if name == "SwinUNETR" else "meta"):
            return make(name, args, classes)


@contextmanager
def constructing(name: str) -> Iterator[None]:
    """Say in a sentence what a network's constructor, given arguments from a file, may raise.

    Raises:
        InputError: the arguments do not fit.
    """
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError, ArithmeticError) as error:
        raise InputError(f"Network {name} cannot be built with these arguments: {error}.") from error


def _maker(name: str, usage: Usage) -> Callable[[str, dict[str, Any], int], nn.Module]:
    make, known = (_monai, MONAI_NETWORKS) if usage.family == "monai" else (_nnunet, NNUNET_NETWORKS)
    if name not in known:
        raise InputError(f"Network '{name}' is not among those that can be read: {', '.join(known)}.")
    return make


def feature_channels(network: ForeignNetwork) -> int:
    """Number of channels of the features before the classes."""
    tap = network.trunk.get_submodule(network.tap)
    assert isinstance(tap, nn.Conv3d | nn.ConvTranspose3d)
    return tap.in_channels


def _class_layers(narrow: nn.Module, wide: nn.Module) -> tuple[str, set[str]]:
    """Name of the last layer that makes classes of something else, and names of all that depend on their number."""
    before, after = (dict(network.named_parameters()) for network in (narrow, wide))
    grown = [name for name in before if before[name].shape != after[name].shape]
    entries = []
    for name in grown:
        module, _, kind = name.rpartition(".")
        differing = sum(a != b for a, b in zip(before[name].shape, after[name].shape, strict=True))
        if kind == "weight" and before[name].dim() == 5 and differing == 1:
            entries.append(module)
    if not entries:
        raise ValueError("no layer makes classes of features")
    finest = [name for name in entries if name.startswith("output_block")]  # DynUNet lists its coarser outputs last
    return (finest or entries)[-1], {name.rpartition(".")[0] for name in grown}


def _monai(name: str, args: dict[str, Any], classes: int) -> nn.Module:
    made: nn.Module = getattr(nets, name)(**{**args, "in_channels": 1, "out_channels": classes})
    return made


def _nnunet(name: str, args: dict[str, Any], classes: int) -> nn.Module:
    try:
        from dynamic_network_architectures.architectures import unet
    except ModuleNotFoundError as error:
        raise InputError(
            "This is an nnU-Net model: install its networks first, with "
            " pip install --no-deps dynamic-network-architectures."
        ) from error
    layers = {key: _LAYERS[value.rpartition(".")[2]] for key, value in args.items() if key in LAYER_ARGUMENTS and value}
    made: nn.Module = getattr(unet, name)(
        **{**args, **layers, "input_channels": 1, "num_classes": classes, "deep_supervision": False}
    )
    return made


LAYER_ARGUMENTS = ("conv_op", "norm_op", "dropout_op", "nonlin")  # given as names of torch's layers


def _divisor(name: str, args: dict[str, Any]) -> int:
    """How often the network halves the resolution, as a factor; 16 at least, as ours."""
    if name == "SwinUNETR":
        return 32
    if name in ("SegResNet", "SegResNetDS"):
        return max(16, 2 ** (len(args.get("blocks_down", (1, 2, 2, 4))) - 1))
    strides = args.get("strides", ())
    along = [[step[axis] if isinstance(step, list | tuple) else step for step in strides] for axis in range(3)]
    return max(16, *(prod(steps) for steps in along))
