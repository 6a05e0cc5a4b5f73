"""The MONAI side of a package: metadata and an inference config that runs without our code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata as distributions
from typing import Any

from .. import __version__
from ..organs import OrganTable
from ..preprocessing import Preprocessing
from .foreign import Usage
from .networks import NetworkSpec

OVERLAP = 0.25
# NIfTI keeps axes in float32; unless they are exactly orthogonal, MONAI puts an oblique scan on another grid than ours.
_SQUARE = (
    "$lambda image: image.affine[:3, :3].copy_(torch.as_tensor("
    "zoom_affine(image.affine.numpy(), image.pixdim.numpy(), diagonal=False)[:3, :3])) is None or image"
)
_SEQUENTIAL = "$torch.nn.Sequential(collections.OrderedDict(trunk=@trunk, activation=@activation, head=@head))"
AIR = -0.9  # on the [-1, 1] scale; prediction runs in the box around everything above it


def metadata(organs: OrganTable, patch: tuple[int, int, int], connected: Sequence[str] = ()) -> dict[str, Any]:
    """The bundle's ``metadata.json`` in MONAI's schema: versions, modality, channel definition."""
    image = {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": 1,
        "spatial_shape": list(patch),
        "dtype": "float32",
        "value_range": [-1, 1],
        "is_patch_data": True,
        "channel_def": {"0": "CT"},
    }
    channels = {"0": "background"} | {str(i): organ.name for i, organ in enumerate(organs, start=1)}
    prediction = image | {
        "format": "segmentation",
        "num_channels": len(organs) + 1,
        "value_range": [0, 1],
        "channel_def": channels,
    }
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": __version__,
        "changelog": {__version__: "made by IncrementalSeg"},
        "monai_version": distributions.version("monai"),
        "pytorch_version": distributions.version("torch"),
        "numpy_version": distributions.version("numpy"),
        "required_packages_version": {"nibabel": "5.2.1"} | ({"scikit-image": "0.22.0"} if connected else {}),
        "name": "IncrementalSeg model",
        "task": f"CT segmentation of {', '.join(organs.names)}",
        "description": "Multi-organ CT segmentation model to which organs can be added. Not a medical device.",
        "authors": "IncrementalSeg",
        "copyright": "The trainer of this model",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": prediction}},
    }


def _network(spec: NetworkSpec, classes: int) -> dict[str, Any]:
    parts = _ours(spec, classes - sum(spec.branches)) if spec.usage is None else _foreign(spec, spec.usage, classes)
    if not spec.branches:
        return parts
    locked = {"core": "@core", "features": spec.features, "new": list(spec.branches)}
    core = parts.pop("network_def")
    return {
        **parts,
        "core": core,
        "network_def": {"_target_": "IncrementalSegLib.models.locked.LockedNetwork", **locked},
    }


def _ours(spec: NetworkSpec, classes: int) -> dict[str, Any]:
    return {
        "trunk": {"_target_": spec.name, **spec.trunk_args()},
        "activation": f"$torch.nn.Sequential(torch.nn.BatchNorm3d({spec.features}), torch.nn.ReLU())",
        "head": {
            "_target_": "torch.nn.Conv3d",
            "in_channels": spec.features,
            "out_channels": classes,
            "kernel_size": 1,
        },
        "network_def": _SEQUENTIAL,
    }


def _foreign(spec: NetworkSpec, usage: Usage, classes: int) -> dict[str, Any]:
    place = "IncrementalSegLib.models.foreign"
    return {
        "network_def": {
            "_target_": f"{place}.build_foreign",
            "name": spec.name,
            "args": spec.args,
            "usage": {"_target_": f"{place}.Usage", **asdict(usage)},
            "classes": classes - sum(spec.branches),
        }
    }


def inference_config(
    spec: NetworkSpec,
    organs: OrganTable,
    preprocessing: Preprocessing,
    patch: tuple[int, int, int],
    connected: Sequence[str] = (),
) -> dict[str, Any]:
    """The bundle's ``inference.json``, for ``python -m monai.bundle run --config_file configs/inference.json``.

    Needs torch, monai, fire and nibabel, and scikit-image where organs are kept in one piece (``connected``, keys);
    ``--bundle_root``, ``--datalist`` and ``--output_dir`` say where. The result is a label map with the organ table's
    values on the input's grid. A locked model needs this library too, and old organs may end a voxel off what our own
    prediction promises: the bundle merges all classes at once. So does a model of another tool, which moreover is
    resampled linearly to a grid in LPS here, whatever its own tool does.
    """
    low, high = preprocessing.window
    labels = [0, *(organ.label for organ in organs)]
    return {
        "imports": [
            "$import collections",
            "$import glob",
            "$import torch",
            "$from monai.data.utils import zoom_affine",
        ],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$sorted(glob.glob(@bundle_root + '/data/*.nii.gz'))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        **_network(spec, len(organs) + 1),
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location=@device, weights_only=True)",
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Lambdad", "keys": "image", "func": _SQUARE},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "LPS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": list(preprocessing.spacing), "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": low,
                    "a_max": high,
                    "b_min": -1,
                    "b_max": 1,
                    "clip": preprocessing.clip,
                },
                {
                    "_target_": "CropForegroundd",
                    "keys": "image",
                    "source_key": "image",
                    "select_fn": f"$lambda image: image > {AIR}",
                    "margin": 1,
                    "allow_smaller": True,
                },
                {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(patch),
            "sw_batch_size": 1,
            "overlap": spec.usage.overlap if spec.usage else OVERLAP,
            "mode": spec.usage.blend if spec.usage else "gaussian",
            "cval": -1,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                *_folds(organs),
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "orig_keys": "image",
                    "transform": "@preprocessing",
                    "nearest_interp": False,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                *_pieces(organs, connected),
                {
                    "_target_": "MapLabelValued",
                    "keys": "pred",
                    "orig_labels": list(range(len(labels))),
                    "target_labels": labels,
                },
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": "seg",
                    "output_dtype": "uint8" if max(labels) < 256 else "uint16",
                    "resample": False,
                },
            ],
        },
        "run": [
            "$torch.set_grad_enabled(False)",
            "$@network.load_state_dict(@weights)",
            "$@network.eval()",
            "$[@postprocessing({**item, 'pred': @inferer(item['image'][None], @network)[0]}) for item in @dataset]",
        ],
    }


def _pieces(organs: OrganTable, connected: Sequence[str]) -> list[dict[str, Any]]:
    channels = [organs.channel(key) for key in connected]
    keep = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": channels}
    return [keep] if channels else []


def _folds(organs: OrganTable) -> list[dict[str, Any]]:
    """A transform per structure inside an organ: the pair's mass goes to the likelier of the two (`fold_children`)."""
    folds = []
    for child, parent in organs.parent_channels().items():
        low, high = sorted((child, parent))
        mass = f"q[{child}] + q[{parent}], torch.zeros_like(q[0])"
        wins = {child: f"q[{child}] > q[{parent}]", parent: f"q[{child}] <= q[{parent}]"}
        first, second = (f"torch.where({wins[channel]}, {mass})[None]" for channel in (low, high))
        parts = f"[q[:{low}], {first}, q[{low + 1}:{high}], {second}, q[{high + 1}:]]"
        folds.append({"_target_": "Lambdad", "keys": "pred", "func": f"$lambda q: torch.cat({parts})"})
    return folds
