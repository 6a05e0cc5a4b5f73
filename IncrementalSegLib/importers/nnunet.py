"""nnU-Net v2 (Isensee et al., Nature Methods 18, 2021), TotalSegmentator's models included.

::

    plans.json  dataset.json  fold_0/checkpoint_final.pth      in a folder <trainer>__<plans>__<configuration>

The scan goes in as its file has it, slices first, clipped and standardised by the training set's intensities, on a grid
that fills the scan at the plans' spacing. Since the file's own axes are used, somebody must say how the training scans
lay (``orientation``): RAS, as most NIfTI collections and TotalSegmentator have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..models.foreign import LAYER_ARGUMENTS, Usage
from ..models.package import Model
from ..preprocessing import Preprocessing
from .archive import read_json
from .description import Description, assembled, read_weights, state_dict_in, table_of, triple

_FINAL = ("checkpoint_final.pth", "checkpoint_best.pth")


def is_nnunet(folder: Path) -> bool:
    """Whether a folder looks like a trained configuration of nnU-Net."""
    return (folder / "plans.json").exists() and (folder / "dataset.json").exists()


def import_nnunet(folder: Path, orientation: str) -> tuple[Model, list[str]]:
    """The model of a trained configuration, and what the user should know of it.

    Raises:
        InputError: the description is incomplete, or asks for what is not supported.
        PackageError: the weights are damaged or do not fit.
    """
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    path, others = _checkpoint(folder)
    content = read_weights(path)
    try:
        name, configuration = _configuration(plans, folder, content)
        description = _described(plans, dataset, configuration, content, path, orientation)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"{folder}: plans.json or dataset.json lacks something ({error!r}): export it again."
        ) from error
    notes = [f"Configuration {name}, trained on scans that lie as {orientation}."]
    if others:
        notes.append(f"{path.parent.name} is used alone; nnU-Net itself would average {others + 1} folds.")
    return assembled(description, state_dict_in(content, path, "network_weights", "state_dict")), notes


def _checkpoint(folder: Path) -> tuple[Path, int]:
    """The weights of the first fold, and how many other folds there are."""
    found = [
        next((fold / name for name in _FINAL if (fold / name).exists()), None) for fold in sorted(folder.glob("fold_*"))
    ]
    paths = [path for path in found if path]
    if not paths:
        raise InputError(f"{folder} holds no fold with {' or '.join(_FINAL)}: the training has not finished.")
    return paths[0], len(paths) - 1


def _configuration(plans: Any, folder: Path, content: Any) -> tuple[str, dict[str, Any]]:
    known = plans["configurations"]
    trained = content.get("init_args", {}).get("configuration") if isinstance(content, dict) else None
    name = next((n for n in (folder.name.rpartition("__")[2], trained, "3d_fullres") if n in known), None)
    if name is None:
        raise InputError(f"{folder}: its configuration is none of {', '.join(known)}: name the folder as nnU-Net did.")
    merged: dict[str, Any] = {}
    above: Any = name
    for _ in range(len(known)):  # a configuration may inherit from another one
        merged = {**known[above], **merged}
        above = known[above].get("inherits_from")
        if above is None:
            break
    return str(name), merged


def _described(
    plans: Any, dataset: Any, configuration: dict[str, Any], content: Any, path: Path, orientation: str
) -> Description:
    _refuse_unsupported(dataset, configuration, path)
    network, args = _network(configuration)
    facts = plans["foreground_intensity_properties_per_channel"]["0"]
    low, high, mean, spread = (float(facts[key]) for key in ("percentile_00_5", "percentile_99_5", "mean", "std"))
    spread = max(spread, 1e-8)
    order = [int(axis) for axis in plans["transpose_forward"]]
    if sorted(order) != [0, 1, 2]:
        raise ValueError("transpose_forward")
    slices_first = orientation[::-1]  # nnU-Net's arrays are (z, y, x)
    mirror = content.get("inference_allowed_mirroring_axes") if isinstance(content, dict) else None
    usage = Usage(
        "nnunet",
        "".join(slices_first[axis] for axis in order),
        ((low - mean) / spread, (high - mean) / spread),
        overlap=0.5,
        mirror=tuple(int(axis) for axis in mirror or ()),
    )
    spacing = triple(configuration["spacing"], "its spacing", path)
    patch = triple(configuration["patch_size"], "its patch", path)
    return Description(
        "nnU-Net",
        network,
        args,
        usage,
        table_of(_labels(dataset)),
        Preprocessing(_in_xyz(spacing, order), (low, high), spline=True),
        _in_xyz((int(patch[0]), int(patch[1]), int(patch[2])), order),
        path,
        str(dataset.get("licence") or dataset.get("license") or ""),
    )


def _refuse_unsupported(dataset: Any, configuration: dict[str, Any], path: Path) -> None:
    if len(configuration["patch_size"]) != 3:
        raise InputError(f"{path}: this is a 2D configuration: choose 3d_fullres or 3d_lowres.")
    if configuration.get("previous_stage"):
        raise InputError(f"{path}: this is the second stage of a cascade: choose 3d_fullres or 3d_lowres.")
    if list(configuration["normalization_schemes"]) != ["CTNormalization"]:
        raise InputError(f"{path}: the model was not trained on CT alone: only CT models can be grown here.")
    if any(isinstance(value, list | tuple) for value in dataset["labels"].values()):
        raise InputError(f"{path}: the model predicts overlapping regions, which cannot be grown here: choose another.")


def _labels(dataset: Any) -> dict[int, str]:
    labels = {int(value): str(name) for name, value in dataset["labels"].items() if name != "ignore"}
    if 0 not in labels:
        raise InputError("dataset.json names no background with the value 0: it cannot be read.")
    return {value: name for value, name in labels.items() if value}


def _network(configuration: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class name and arguments, also from plans of before nnU-Net 2.3, which describe them by numbers."""
    if "architecture" in configuration:
        found = configuration["architecture"]
        return str(found["network_class_name"]).rpartition(".")[2], dict(found["arch_kwargs"])
    c = configuration
    stages, base, most = len(c["conv_kernel_sizes"]), int(c["UNet_base_num_features"]), int(c["unet_max_num_features"])
    name = str(c["UNet_class_name"])
    per_stage = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    args = {
        "n_stages": stages,
        "features_per_stage": [min(base * 2**stage, most) for stage in range(min(stages, 32))],
        "conv_op": "torch.nn.Conv3d",
        "kernel_sizes": c["conv_kernel_sizes"],
        "strides": c["pool_op_kernel_sizes"],
        per_stage: c["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": c["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "torch.nn.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return name, args | {key: None for key in LAYER_ARGUMENTS if key not in args}


def _in_xyz(values: tuple[Any, ...], order: list[int]) -> tuple[Any, Any, Any]:
    """Values along the network's axes, which are those of (z, y, x) in this order, along (x, y, z)."""
    slices_first = [values[order.index(axis)] for axis in range(3)]
    return slices_first[2], slices_first[1], slices_first[0]
