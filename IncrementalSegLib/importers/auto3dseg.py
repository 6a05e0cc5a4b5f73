"""Auto3DSeg's SegResNetDS as the Slicer extension MONAIAuto3DSeg shares it: ``model.pt`` with a recipe, ``labels.csv``.

Its scan is turned to RAS, cut to what is denser than water and a margin, resampled unless its spacing is within a
quarter of the model's, its window scaled to [-1, 1] without clipping, and put through the logistic function.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, PackageError, StorageError
from ..models.checkpoint import save_state
from ..models.foreign import ForeignNetwork, Usage
from ..models.package import Model
from ..organs import OrganTable
from ..preprocessing import Preprocessing
from ..storage import write_text
from .description import Description, assembled, known_arguments, read_weights, state_dict_in, triple

_TOLERANCE, _OVERLAP = 0.25, 0.625
_PLAIN_NORM = {"instance_nvfuser": "instance"}  # the same numbers without NVIDIA's own kernels


def is_auto3dseg(folder: Path) -> bool:
    """Whether a folder looks like a shared Auto3DSeg model."""
    return (folder / "model.pt").exists() and (folder / "labels.csv").exists()


def import_auto3dseg(folder: Path, orientation: str) -> tuple[Model, list[str]]:
    """The model in a folder, and what the user should know of it; ``orientation`` counts where it does not turn scans.

    Raises:
        InputError: the recipe is incomplete, or asks for what is not supported.
        PackageError: the weights are damaged or do not fit.
    """
    path = folder / "model.pt"
    content = read_weights(path)
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("network"), dict):
        raise PackageError(f"{path} holds no recipe (config) beside its weights: it is no Auto3DSeg model.")
    try:
        organs = OrganTable.from_csv((folder / "labels.csv").read_text(encoding="utf-8"), str(folder / "labels.csv"))
        description, warnings = _described(config, organs, path, orientation)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
        raise InputError(f"{path}: its recipe lacks something ({error!r}): export the model again.") from error
    return assembled(description, state_dict_in(content, path, "state_dict")), warnings


def export_auto3dseg(model: Model, folder: Path) -> None:
    """Write a model that was read from this format, and may have been grown since, in it again.

    Raises:
        InputError: its network is another one.
        StorageError: the folder exists, or cannot be written.
    """
    usage, recipe = model.spec.usage, model.preprocessing
    network = model.network
    known = model.spec.name == "SegResNetDS" and usage is not None and usage.squashed
    if not isinstance(network, ForeignNetwork) or not known:
        raise InputError(
            f"The model is a {model.spec.name}: Auto3DSeg opens SegResNetDS only, as read from an Auto3DSeg model."
        )
    if folder.exists():
        raise StorageError(f"{folder} exists already: give a new folder name.")
    target = {"_target_": "SegResNetDS", **model.spec.args, "in_channels": 1, "out_channels": model.classes}
    config = {
        "network": target,
        "sigmoid": False,
        "normalize_mode": "range",
        "intensity_bounds": list(recipe.window),
        "resample_resolution": list(recipe.spacing),
        "roi_size": list(model.patch),
        "orientation_ras": recipe.orientation == "RAS",
        "crop_foreground": recipe.foreground,
        "bundle_root": "",
    }
    labels = OrganTable(replace(organ, label=channel) for channel, organ in enumerate(model.organs, start=1))
    weights = {key: tensor.cpu().contiguous() for key, tensor in network.trunk.state_dict().items()}
    save_state(folder / "model.pt", {"epoch": 0, "best_metric": 0.0, "config": config, "state_dict": weights})
    write_text(folder / "labels.csv", labels.to_csv())


def _described(
    config: dict[str, Any], organs: OrganTable, path: Path, orientation: str
) -> tuple[Description, list[str]]:
    if config.get("sigmoid"):
        raise InputError(f"{path}: the model predicts overlapping regions, which cannot be grown here: choose another.")
    if config["normalize_mode"] not in ("range", "ct"):
        raise InputError(f"{path}: it normalises scans by '{config['normalize_mode']}', not as CT: choose a CT model.")
    if config.get("resample_resolution") is None:
        raise InputError(
            f"{path}: it does not say which spacing it was trained on, so it cannot be used on other scans."
        )
    network = dict(config["network"])
    name = str(network.pop("_target_")).rpartition(".")[2]
    if name != "SegResNetDS" or network.get("in_channels", 1) != 1:
        raise InputError(f"{path}: only SegResNetDS of one channel can be read, this is {name}.")
    args, dropped = known_arguments(name, network)
    args["norm"] = _plain_norm(args.get("norm", "batch"))
    low, high = (float(bound) for bound in config["intensity_bounds"])
    patch = triple(config["roi_size"], "its patch", path)
    by_value = sorted(organs, key=lambda organ: organ.label)
    description = Description(
        "Auto3DSeg",
        name,
        args,
        Usage("monai", "RAS" if config.get("orientation_ras") else orientation, squashed=True, overlap=_OVERLAP),
        OrganTable(by_value),
        Preprocessing(
            triple(config["resample_resolution"], "its spacing", path),
            (low, high),
            clip=False,
            orientation="RAS" if config.get("orientation_ras") else orientation,
            tolerance=_TOLERANCE,
            foreground=bool(config.get("crop_foreground", True)),
        ),
        (int(patch[0]), int(patch[1]), int(patch[2])),
        path,
    )
    return description, [f"Unknown arguments of the network were left out: {', '.join(dropped)}."] if dropped else []


def _plain_norm(norm: Any) -> Any:
    if isinstance(norm, list | tuple):
        return [_plain_norm(norm[0]), *norm[1:]]
    return _PLAIN_NORM.get(str(norm).lower(), norm)
