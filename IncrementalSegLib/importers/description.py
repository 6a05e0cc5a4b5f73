"""What an importer found out about a model, checked, and made into a `Model`."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.networks.nets as nets
import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor

from ..errors import InputError, PackageError
from ..models.foreign import MONAI_NETWORKS, Usage, build_foreign, feature_channels, outline
from ..models.networks import NetworkSpec
from ..models.package import Model
from ..organs import OrganTable, organ_named
from ..preprocessing import Preprocessing
from ..report import versions

_MOST_CHANNELS, _MOST_ENTRIES = 4096, 64
# What checkpoints of other tools hold beside tensors: numbers and strings of numpy, which run no code.
_NUMPY: list[Any] = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "u1", "?")),
    multiarray.scalar,
    (multiarray.scalar, "numpy.core.multiarray.scalar"),  # its name in numpy 1
]


@dataclass(frozen=True)
class Description:
    """Everything of a foreign model but its weights.

    ``tool`` and ``licence`` are for its history; ``weights`` is the file that the state dict came from.
    """

    tool: str
    network: str
    args: dict[str, Any]
    usage: Usage
    organs: OrganTable
    preprocessing: Preprocessing
    patch: tuple[int, int, int]
    weights: Path
    licence: str = ""


def assembled(description: Description, state: Mapping[str, Tensor]) -> Model:
    """The model with these weights.

    Raises:
        InputError: the network is none that is known here.
        PackageError: the weights do not fit it.
    """
    d, classes = description, len(description.organs) + 1
    refuse_absurd(d.args, d.weights)
    try:  # what does not fit is known before memory is taken for it
        expected = outline(d.network, d.args, d.usage, classes).state_dict()
    except InputError as error:
        raise InputError(f"{d.weights}: {error}") from error
    given = {key.removeprefix("module.").removeprefix("_orig_mod."): tensor for key, tensor in state.items()}
    wrong = sorted(key for key in expected.keys() | given.keys() if _shape(expected, key) != _shape(given, key))
    if wrong:
        raise PackageError(
            f"{d.weights} does not fit a {d.network} with {classes - 1} organs ({wrong[0]} and {len(wrong) - 1} more): "
            "weights and description do not belong together."
        )
    network = build_foreign(d.network, d.args, d.usage, classes)
    network.trunk.load_state_dict(given)
    spec = NetworkSpec(d.network, d.args, feature_channels(network), usage=d.usage)
    return Model(network.eval(), spec, d.organs, d.preprocessing, d.patch, history=(provenance(d),))


def _shape(state: Mapping[str, Any], key: str) -> torch.Size | None:
    return state[key].shape if isinstance(state.get(key), Tensor) else None


def provenance(description: Description) -> dict[str, Any]:
    """The first line of the model's history: where it came from."""
    digest = hashlib.sha256(description.weights.read_bytes()).hexdigest()
    return {
        "step": 0,
        "strategy": "imported",
        "organs": description.organs.keys,
        "parent": "",
        "cases": 0,
        "source": {"tool": description.tool, "weights": digest, "licence": description.licence},
        "metrics": {},
        "versions": versions(),
    }


def read_weights(path: Path) -> Any:
    """Tensors, numbers and texts of a checkpoint; code in the file is never executed.

    Raises:
        PackageError: missing, truncated, or holding anything else.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise PackageError(f"{path} is missing: give the whole folder of the model.") from error
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError, MemoryError) as error:
        raise PackageError(f"{path} is damaged: copy or export it again.") from error
    except (pickle.UnpicklingError, AttributeError, OverflowError) as error:
        raise PackageError(f"{path} holds more than weights, or is damaged; it was not loaded.") from error


def state_dict_in(content: Any, path: Path, *keys: str) -> dict[str, Tensor]:
    """The state dict that a checkpoint is, or has under one of these keys.

    Raises:
        PackageError: there is none.
    """
    for key in keys:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise PackageError(f"{path} holds no weights of a network: give the checkpoint of a finished training.")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def table_of(names: Mapping[int, str]) -> OrganTable:
    """Organs by channel, with codes where the name is known.

    Raises:
        InputError: two of them are the same, or channels are left out.
    """
    channels = sorted(names)
    if channels != list(range(1, len(channels) + 1)) or not channels:
        raise InputError(f"The model's channels {channels} do not number its organs from 1 on: it cannot be read.")
    return OrganTable(organ_named(names[channel], channel) for channel in channels)


def known_arguments(name: str, args: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What MONAI's network takes of these arguments, but for its inputs and outputs, and the names of the rest.

    Raises:
        InputError: the network is none that is known here.
    """
    if name not in MONAI_NETWORKS:
        raise InputError(f"Network '{name}' is not among those that can be read: {', '.join(MONAI_NETWORKS)}.")
    accepted = inspect.signature(getattr(nets, name)).parameters
    kept = {key: value for key, value in args.items() if key in accepted}
    return {key: kept[key] for key in kept if key not in ("in_channels", "out_channels")}, sorted(
        args.keys() - kept.keys()
    )


def refuse_absurd(value: Any, source: Path, depth: int = 0) -> None:
    """Refuse a network's arguments that are no plain values, or larger than any real network's.

    Raises:
        InputError: says so.
    """
    parts = [*value.values()] if isinstance(value, dict) else [*value] if isinstance(value, list | tuple) else []
    number = isinstance(value, int | float) and not isinstance(value, bool)
    plain = value is None or isinstance(value, bool | int | float | str | dict | list | tuple)
    if not plain or depth > 6 or len(parts) > _MOST_ENTRIES or (number and not abs(value) <= _MOST_CHANNELS):
        raise InputError(f"{source}: the description of its network is not one of a network: {str(value)[:60]}.")
    for part in parts:
        refuse_absurd(part, source, depth + 1)


def triple(values: Any, what: str, source: Path) -> tuple[Any, Any, Any]:
    """Three numbers above 0; one counts for all three.

    Raises:
        InputError: it is something else.
    """
    numbers = [values] * 3 if isinstance(values, int | float) else values
    fine = isinstance(numbers, list | tuple) and len(numbers) == 3
    if not fine or not all(isinstance(n, int | float) and 0 < n <= _MOST_CHANNELS for n in numbers):
        raise InputError(f"{source}: {what} is {str(values)[:60]}, not three numbers above 0.")
    return numbers[0], numbers[1], numbers[2]
