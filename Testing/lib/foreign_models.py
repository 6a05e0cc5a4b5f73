"""Models as other tools write them: a MONAI bundle, an Auto3DSeg folder, a trained nnU-Net configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import monai.networks.nets as nets
import monai.transforms as mt
import numpy as np
import torch
from torch import nn

ORGANS = ("liver", "spleen", "kidney_right")
UNET = {"channels": [8, 16], "strides": [2], "num_res_units": 2, "norm": "batch"}
SEGRESNET_DS = {"init_filters": 8, "blocks_down": [1, 1, 1], "norm": "INSTANCE_NVFUSER", "dsdepth": 2}
_SPACING, _PATCH = [7.0, 6.0, 9.0], [32, 48, 32]


def bundle(folder: Path, more: dict[str, Any] | None = None, **changes: Any) -> nn.Module:
    """A MONAI bundle; ``more`` are further arguments of its network, ``changes`` replace entries of inference.json."""
    torch.manual_seed(0)
    given = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1 + len(ORGANS), **UNET}
    network = livened(nets.UNet(**given))
    write_json(folder / "configs/metadata.json", metadata())
    write_json(folder / "configs/inference.json", inference({"_target_": "UNet", **given, **(more or {})}) | changes)
    (folder / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), folder / "models/model.pt")
    return network


def metadata() -> dict[str, Any]:
    channels = {"0": "background"} | {str(i): name for i, name in enumerate(ORGANS, 1)}
    outputs = {"pred": {"type": "image", "num_channels": len(channels), "channel_def": channels}}
    return {"version": "0.1.0", "license": "Apache-2.0", "network_data_format": {"inputs": {}, "outputs": outputs}}


WINDOW = [("ScaleIntensityRanged", {"a_min": -175, "a_max": 250, "b_min": 0.0, "b_max": 1.0, "clip": True})]
WHOLE_SCAN = [("NormalizeIntensityd", {"nonzero": True}), ("ScaleIntensityd", {"minv": -1.0, "maxv": 1.0})]


def preprocessing(scaling: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    keyed = [
        ("LoadImaged", {}),
        ("EnsureChannelFirstd", {}),
        ("Orientationd", {"axcodes": "RAS"}),
        ("Spacingd", {"pixdim": "@pixdim", "mode": "bilinear"}),
        *scaling,
        ("EnsureTyped", {}),
    ]
    return {"_target_": "Compose", "transforms": [{"_target_": kind, "keys": "image", **more} for kind, more in keyed]}


def inference(network: dict[str, Any]) -> dict[str, Any]:
    return {
        "pixdim": _SPACING,
        "network_def": network,
        "preprocessing": preprocessing(WINDOW),
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": _PATCH, "sw_batch_size": 4, "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "orig_keys": "image",
                    "transform": "@preprocessing",
                    "nearest_interp": False,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            ],
        },
    }


def auto3dseg(folder: Path, **changes: Any) -> nn.Module:
    """A folder as MONAIAuto3DSeg shares it; ``changes`` replace entries of its recipe."""
    torch.manual_seed(1)
    given = {"in_channels": 1, "out_channels": 1 + len(ORGANS), **SEGRESNET_DS}
    network = livened(nets.SegResNetDS(**{**given, "norm": "INSTANCE"}))
    config = {
        "network": {"_target_": "SegResNetDS", **given},
        "sigmoid": False,
        "normalize_mode": "range",
        "intensity_bounds": [-250.0, 250.0],
        "resample_resolution": _SPACING,
        "roi_size": _PATCH,
        "orientation_ras": True,
        "crop_foreground": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "epoch": 3,
        "best_metric": np.float64(0.8),
        "config": config | changes,
        "state_dict": network.state_dict(),
    }
    torch.save(content, folder / "model.pt")
    rows = [f"{value},{name}" for value, name in enumerate(("background", *ORGANS))]
    (folder / "labels.csv").write_text("\n".join(["LabelValue,Name", *rows]) + "\n")
    return network


def auto3dseg_transforms(spacing: list[float], cut: bool) -> mt.Compose:
    """What Auto3DSeg does to a scan before its network, in MONAI's transforms, as its inference script has them."""
    near = {"min_pixdim": np.array(spacing) * 0.75, "max_pixdim": np.array(spacing) * 1.25}
    body = mt.CropForegroundd(keys="image", source_key="image", margin=10, allow_smaller=True)
    return mt.Compose(
        [
            mt.LoadImaged(keys="image", ensure_channel_first=True),
            mt.Orientationd(keys="image", axcodes="RAS"),
            *([body] if cut else []),
            mt.Spacingd(keys="image", pixdim=spacing, mode="bilinear", **near),
            mt.ScaleIntensityRanged(keys="image", a_min=-250, a_max=250, b_min=-1, b_max=1, clip=False),
            mt.Lambdad(keys="image", func=torch.sigmoid, inv_func=torch.logit),
        ]
    )


def nnunet(folder: Path, **changes: Any) -> nn.Module:
    """A trained configuration with anisotropic strides and swapped axes; ``changes`` replace entries of it."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    torch.manual_seed(2)
    given = {
        "n_stages": 3,
        "features_per_stage": [8, 12, 16],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin_kwargs": {"inplace": True},
    }
    layers = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    network = livened(PlainConvUNet(input_channels=1, num_classes=1 + len(ORGANS), **given, **layers))
    named = {key: f"torch.nn.{layer.__name__}" for key, layer in layers.items()}
    configuration = {
        "spacing": [9.0, 7.0, 6.0],
        "patch_size": [16, 32, 24],
        "normalization_schemes": ["CTNormalization"],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": given | named,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    facts = {"mean": 80.0, "std": 140.0, "percentile_00_5": -900.0, "percentile_99_5": 300.0}
    plans = {
        "configurations": {"3d_fullres": configuration | changes},
        "transpose_forward": [0, 2, 1],
        "foreground_intensity_properties_per_channel": {"0": facts},
    }
    labels = {"background": 0} | {name: value for value, name in enumerate(ORGANS, 1)}
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", {"channel_names": {"0": "CT"}, "labels": labels, "licence": "CC BY 4.0"})
    (folder / "fold_0").mkdir(exist_ok=True)
    content = {
        "network_weights": network.state_dict(),
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "logging": {"mean_fg_dice": [np.float64(0.5), 0.6]},
        "_best_ema": np.float32(0.6),
        "inference_allowed_mirroring_axes": (0, 1),
    }
    torch.save(content, folder / "fold_0/checkpoint_final.pth")
    return network


def livened(network: nn.Module) -> nn.Module:
    """Random weights whose classes all come up somewhere, as they do in a trained network."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
