"""An imported nnU-Net against nnU-Net's own predictor on real CT, where nnU-Net is installed (README, Models)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from foreign_models import nnunet, write_json
from scipy import ndimage
from torch import nn

from IncrementalSegLib.importers.reading import import_model
from IncrementalSegLib.inference import predict_label_map

pytestmark = [pytest.mark.slow, pytest.mark.real_ct, pytest.mark.usefixtures("one_thread")]
RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}


def trained(network: nn.Module, scan: Path) -> None:
    """Teach it fat, soft tissue and bone by a few hundred steps: organs of noise would compare noise."""
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(scan))).astype(np.float32).transpose(0, 2, 1)
    tissue = np.digitize(ndimage.gaussian_filter(hu, 2.0), (-130, -30, 90))
    image, rng = (np.clip(hu, -900, 300) - 80.0) / 140.0, np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    network.train()
    for _ in range(250):
        corners = [[int(rng.integers(0, n - e)) for n, e in zip(hu.shape, (32, 64, 64), strict=True)] for _ in range(2)]
        boxes = [np.s_[z : z + 32, y : y + 64, x : x + 64] for z, y, x in corners]
        logits = network(torch.from_numpy(np.stack([image[box] for box in boxes])[:, None]))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(np.stack([tissue[box] for box in boxes])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


def completed(folder: Path, network: nn.Module) -> None:
    """What nnU-Net itself wants to read beside what an importer needs."""
    plans, dataset = (json.loads((folder / f"{name}.json").read_text()) for name in ("plans", "dataset"))
    configuration = plans["configurations"]["3d_fullres"]
    configuration |= {
        "data_identifier": "any",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "median_image_size_in_voxels": [40, 50, 60],
        "use_mask_for_norm": [False],
        "batch_dice": False,
    }
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        configuration[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{what}_kwargs"] = RESAMPLING | {"is_seg": what == "seg", "order": order}
    forward = plans["transpose_forward"]
    plans |= {
        "dataset_name": "Dataset001_Any",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_backward": [forward.index(axis) for axis in range(3)],
        "experiment_planner_used": "any",
        "label_manager": "LabelManager",
    }
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", dataset | {"numTraining": 1, "file_ending": ".nii.gz"})
    weights = folder / "fold_0/checkpoint_final.pth"
    content = torch.load(weights, weights_only=False)
    torch.save(content | {"trainer_name": "nnUNetTrainer", "network_weights": network.state_dict()}, weights)


@pytest.mark.parametrize("case", ["abd_03", "abd_09"])
def test_label_maps_are_those_of_nnunets_own_predictor(
    case: str, real_ct_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{place}", str(tmp_path / place))
    reason = "nnunetv2 is not installed"
    prediction = pytest.importorskip("nnunetv2.inference.predict_from_raw_data", reason=reason)
    reading = pytest.importorskip("nnunetv2.imageio.simpleitk_reader_writer", reason=reason)
    scan, folder = real_ct_folder / f"abdomen_3mm/{case}_ct.nii.gz", tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    network = nnunet(folder)
    trained(network, scan)
    completed(folder, network)
    predictor = prediction.nnUNetPredictor(
        perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    voxels, properties = reading.SimpleITKIO().read_images([str(scan)])
    theirs = predictor.predict_single_npy_array(voxels, properties, None, None, False)
    image = sitk.ReadImage(str(scan))
    axes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    ours = sitk.GetArrayFromImage(predict_label_map(import_model(folder, orientation=axes), image, torch.device("cpu")))
    for value in (1, 2, 3):
        a, b = ours == value, theirs == value
        assert b.sum() > 10_000 and 2 * (a & b).sum() / (a.sum() + b.sum()) >= 0.995
