"""MONAI bundles (folder or zip): metadata, network definition and transforms are read as data, nothing is evaluated.

Understood is what a CT segmentation bundle is made of: ``Orientationd``, ``Spacingd``, ``ScaleIntensityRanged`` or a
normalisation of the whole scan to [-1, 1], a sliding window, softmax. A transform that changes the image in a way that
is not known here is refused by name: a model whose preprocessing is guessed predicts nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..models.foreign import Usage
from ..models.package import Model
from ..preprocessing import Preprocessing
from .archive import read_json
from .description import Description, assembled, known_arguments, read_weights, state_dict_in, table_of, triple

# Transforms that leave the values and the grid alone, or only cut away air.
_HARMLESS = {
    "LoadImage",
    "EnsureChannelFirst",
    "EnsureType",
    "ToTensor",
    "CastToType",
    "CropForeground",
    "ToDevice",
    "Identity",
    "SpatialPad",
    "DivisiblePad",
}
_DICTIONARY = re.compile(r"(d|D|Dict)$")  # how MONAI calls a transform of dictionaries
_HU = (-1024.0, 3071.0)
CANNOT_GROW = (
    "which cannot grow an output, but can teach a network of ours: incrementalseg distill --teacher MODEL --cases "
    "SCANS --out JOB. Or ask its makers for the bundle with model.pt."
)
_REFERENCE = re.compile(r"@(\w+)")


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a MONAI bundle."""
    return (folder / "configs" / "metadata.json").exists()


def import_bundle(folder: Path, orientation: str) -> tuple[Model, list[str]]:
    """The model of a bundle, and what the user should know; ``orientation`` counts where it does not turn scans.

    Raises:
        InputError: the description is incomplete, or asks for what is not supported.
        PackageError: the weights are damaged or do not fit.
    """
    metadata, config = read_configs(folder)
    path = folder / "models" / "model.pt"
    if not path.exists() and (folder / "models" / "model.ts").exists():
        raise InputError(f"{folder} holds TorchScript (model.ts) only, {CANNOT_GROW}")
    content = read_weights(path)
    description, notes = described(metadata, config, path, orientation)
    with _complete(path):
        name, args, dropped = _network(config, path)
    if dropped:
        notes.append(f"Unknown arguments of {name} were left out: {', '.join(dropped)}.")
    state = state_dict_in(content, path, "state_dict", "model", "network")
    return assembled(replace(description, network=name, args=args), state), notes


def read_configs(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Metadata and inference configuration of a bundle.

    Raises:
        InputError: missing or damaged.
    """
    return read_json(folder / "configs" / "metadata.json"), _inference(folder)


def _inference(folder: Path) -> dict[str, Any]:
    path = folder / "configs" / "inference.json"
    if not path.exists() and list((folder / "configs").glob("inference.y*ml")):
        raise InputError(f"{folder} is described in YAML: convert inference.yaml to inference.json first.")
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} is no configuration of a bundle.")
    return config


def described(metadata: Any, config: dict[str, Any], path: Path, orientation: str) -> tuple[Description, list[str]]:
    """What a bundle's configuration says of the weights at ``path``, but for the network, and what to tell the user.

    Raises:
        InputError: something is missing in it, or asks for what is not supported.
    """
    with _complete(path):
        return _described(metadata, config, path, orientation)


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: its configs lack something ({error!r}): export the bundle again.") from error


def _network(config: dict[str, Any], path: Path) -> tuple[str, dict[str, Any], list[str]]:
    """Name and arguments, and those that MONAI's network does not know."""
    network = dict(_value(config, config["network_def"]))
    name = str(network.pop("_target_")).rpartition(".")[2]
    given = {key: _value(config, value) for key, value in network.items()}
    if given.get("in_channels", 1) != 1 or given.get("spatial_dims", 3) != 3:
        raise InputError(f"{path}: the network takes no single 3D CT: it cannot be used here.")
    return name, *known_arguments(name, given)


def _described(metadata: Any, config: dict[str, Any], path: Path, orientation: str) -> tuple[Description, list[str]]:
    names = _organ_names(metadata, path)
    _refuse_sigmoid(config, path)
    preprocessing, intensity, turned = _preprocessing(config, path, orientation)
    inferer = dict(_value(config, config["inferer"]))
    patch = triple(_value(config, inferer["roi_size"]), "its patch", path)
    usage = Usage(
        "monai",
        preprocessing.orientation,
        intensity,
        overlap=float(_value(config, inferer.get("overlap", 0.25))),
        blend=str(_value(config, inferer.get("mode", "constant"))),
    )
    description = Description(
        "MONAI bundle",
        "",
        {},
        usage,
        table_of(names),
        preprocessing,
        _in_xyz((int(patch[0]), int(patch[1]), int(patch[2])), preprocessing.orientation),
        path,
        str(metadata.get("license") or metadata.get("copyright") or ""),
    )
    return description, [] if turned else [f"The bundle does not turn its scans; they are taken to be {orientation}."]


def _value(config: dict[str, Any], value: Any, depth: int = 0) -> Any:
    """A setting as it stands, or the one that ``@name`` refers to.

    Raises:
        InputError: it is an expression, which would have to be executed.
    """
    if isinstance(value, list):
        return [_value(config, part, depth) for part in value]
    if not isinstance(value, str) or not value.startswith(("$", "@")):
        return value
    found = _REFERENCE.fullmatch(value)
    if not found or found[1] not in config or depth > 8:
        raise InputError(
            f"The bundle computes a setting ({value[:60]}), and nothing in it is executed here: replace it."
        )
    return _value(config, config[found[1]], depth + 1)


def _organ_names(metadata: Any, path: Path) -> dict[int, str]:
    outputs = metadata["network_data_format"]["outputs"]
    prediction = outputs["pred"] if "pred" in outputs else next(iter(outputs.values()), {})
    channels = {int(channel): str(name) for channel, name in prediction["channel_def"].items()}
    if "background" not in channels.get(0, "").lower():
        raise InputError(f"{path}: its first channel is not the background, so a new organ cannot come out of it.")
    return {channel: name for channel, name in channels.items() if channel}


def _transforms(config: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    found = _value(config, next((config[name] for name in names if name in config), []))
    listed = found["transforms"] if isinstance(found, dict) else found
    return [part for part in _value(config, listed) if isinstance(part, dict) and part.get("_disabled_") is not True]


def _refuse_sigmoid(config: dict[str, Any], path: Path) -> None:
    if any(part.get("sigmoid") for part in _transforms(config, "postprocessing", "post_transforms")):
        raise InputError(f"{path}: the model predicts overlapping regions, which cannot be grown here: choose another.")


def _preprocessing(
    config: dict[str, Any], path: Path, orientation: str
) -> tuple[Preprocessing, tuple[float, float], bool]:
    """The grid and the window, what the network is given for the window's ends, and whether the bundle turns scans."""
    found: dict[str, dict[str, Any]] = {}
    for part in _transforms(config, "preprocessing", "pre_transforms"):
        kind = _DICTIONARY.sub("", str(part["_target_"]).rpartition(".")[2])
        if kind not in _HARMLESS:
            found[kind] = {key: _value(config, value) for key, value in part.items()}
    grid, turn = found.pop("Spacing", None), found.pop("Orientation", None)
    if grid is None:
        raise InputError(f"{path}: the bundle does not say which spacing its scans have: it cannot be used on others.")
    axes = str(turn["axcodes"]).upper() if turn else orientation
    spacing = _in_xyz(triple(grid["pixdim"], "its spacing", path), axes)
    window, intensity = _intensity(found, path)
    return Preprocessing(spacing, orientation=axes, **window), intensity, turn is not None


def _in_xyz(values: tuple[Any, Any, Any], axes: str) -> tuple[Any, Any, Any]:
    """Values along axes such as RAS, along (x, y, z)."""
    x, y, z = (values[[letter in pair for letter in axes].index(True)] for pair in ("LR", "PA", "SI"))
    return x, y, z


def _intensity(found: dict[str, dict[str, Any]], path: Path) -> tuple[dict[str, Any], tuple[float, float]]:
    """Settings of `Preprocessing`, and what the network is given for the ends of the window."""
    scaled, own = found.pop("ScaleIntensityRange", None), found.pop("ScaleIntensity", None)
    if own and not scaled:
        found.pop("NormalizeIntensity", None)  # the scaling behind it undoes it
    if found:
        raise InputError(f"{path}: its preprocessing has {', '.join(sorted(found))}, which is not known here.")
    if scaled:
        window = {"window": (float(scaled["a_min"]), float(scaled["a_max"])), "clip": bool(scaled.get("clip", False))}
        return window, (float(scaled.get("b_min", 0.0)), float(scaled.get("b_max", 1.0)))
    if own:
        window = {"window": _HU, "clip": False, "whole_scan": True}
        return window, (float(own.get("minv", 0.0)), float(own.get("maxv", 1.0)))
    raise InputError(f"{path}: the bundle does not say how it scales HU: it cannot be used on other scans.")
