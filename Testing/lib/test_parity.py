"""Imported models against their own tools on real CT: nnU-Net's predictor where it is installed, MONAI's transforms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import monai.transforms as mt
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from foreign_models import auto3dseg, auto3dseg_transforms, nnunet, write_json
from monai.inferers import sliding_window_inference
from scipy import ndimage
from torch import nn

from IncrementalSegLib.importers.reading import import_model
from IncrementalSegLib.inference import predict_label_map
from IncrementalSegLib.models.package import load_model, save_package

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
TRAINING = Path(__file__).with_name("nnunet_training.py")
PLACES = {"PYTHONPATH": os.pathsep.join(sys.path)}
RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}


def trained(network: nn.Module, image: np.ndarray, hu: np.ndarray, patch: tuple[int, int, int]) -> None:
    """Teach it fat, soft tissue and bone of one scan by a few hundred steps: organs of noise would compare noise.

    ``image`` is what the network sees of the scan, ``hu`` the scan on the same grid.
    """
    tissue = np.digitize(ndimage.gaussian_filter(hu, 2.0), (-130, -30, 90))
    optimizer, rng = torch.optim.AdamW(network.parameters(), 3e-3), np.random.default_rng(0)
    network.train()
    for _ in range(250):
        corners = [rng.integers(0, np.subtract(hu.shape, patch) + 1) for _ in range(2)]
        boxes = [tuple(slice(a, a + edge) for a, edge in zip(corner, patch, strict=True)) for corner in corners]
        logits = network(torch.from_numpy(np.stack([image[box] for box in boxes])[:, None]))
        logits = logits[0] if isinstance(logits, list) else logits
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


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """DSC of 0.995 or more for every tissue."""
    for value in (1, 2, 3):
        a, b = ours == value, theirs == value
        assert b.sum() > 10_000 and 2 * (a & b).sum() / (a.sum() + b.sum()) >= 0.995


@pytest.fixture
def nnunets_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """nnU-Net's module of predictors, its folders in a place of the test."""
    for place in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{place}", str(tmp_path / place))
    return pytest.importorskip("nnunetv2.inference.predict_from_raw_data", reason="nnunetv2 is not installed")


def its_predictor(own: ModuleType, folder: Path) -> Any:
    predictor = own.nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    return predictor


@pytest.mark.real_ct
@pytest.mark.parametrize("case", ["abd_03", "abd_09"])
def test_label_maps_are_those_of_nnunets_own_predictor(
    case: str, real_ct_folder: Path, tmp_path: Path, nnunets_own: ModuleType
) -> None:
    reading = pytest.importorskip("nnunetv2.imageio.simpleitk_reader_writer")
    scan, folder = real_ct_folder / f"abdomen_3mm/{case}_ct.nii.gz", tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    network = nnunet(folder)
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(scan))).astype(np.float32).transpose(0, 2, 1)
    trained(network, (np.clip(hu, -900, 300) - 80.0) / 140.0, hu, (32, 64, 64))
    completed(folder, network)
    predictor = its_predictor(nnunets_own, folder)
    voxels, properties = reading.SimpleITKIO().read_images([str(scan)])
    theirs = predictor.predict_single_npy_array(voxels, properties, None, None, False)
    image = sitk.ReadImage(str(scan))
    axes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    ours = sitk.GetArrayFromImage(predict_label_map(import_model(folder, orientation=axes), image, torch.device("cpu")))
    assert_alike(ours, theirs)


@pytest.mark.real_ct
def test_label_maps_are_those_of_auto3dsegs_own_transforms(real_ct_folder: Path, tmp_path: Path) -> None:
    scan, folder, spacing = real_ct_folder / "abdomen_3mm/abd_03_ct.nii.gz", tmp_path / "theirs", [5.0, 4.5, 6.0]
    network, chain = (
        auto3dseg(folder, resample_resolution=spacing, crop_foreground=True),
        auto3dseg_transforms(spacing, True),
    )
    item = chain({"image": str(scan)})
    image = item["image"][0].numpy()
    trained(network, image, 250 * np.log(image / (1 - image)), (32, 48, 32))
    content = torch.load(folder / "model.pt", weights_only=False)
    torch.save(content | {"state_dict": network.state_dict()}, folder / "model.pt")
    with torch.no_grad():
        logits = sliding_window_inference(item["image"][None], [32, 48, 32], 1, network, 0.625, "gaussian")
    item["pred"] = logits[0].softmax(0)
    theirs = mt.Invertd(keys="pred", orig_keys="image", transform=chain, nearest_interp=False)(item)["pred"].argmax(0)
    ours = predict_label_map(import_model(folder), sitk.ReadImage(str(scan)), torch.device("cpu"))
    assert_alike(sitk.GetArrayFromImage(ours).T, theirs.numpy())


def test_a_checkpoint_of_its_own_trainer_is_read_as_it_reads_it(tmp_path: Path, nnunets_own: ModuleType) -> None:
    own, root = nnunets_own, tmp_path / "trained"
    subprocess.run([sys.executable, str(TRAINING), str(root)], check=True, capture_output=True, env=os.environ | PLACES)
    (folder,) = root.glob("results/*/nnUNetTrainer__nnUNetPlans__3d_fullres")
    model, predictor = import_model(folder), its_predictor(own, folder)
    assert model.organs.names == ["Spleen", "Right kidney", "Left kidney"]
    assert model.preprocessing.spacing == (6.0, 6.0, 8.0) and model.patch == (64, 56, 40)
    seen = torch.randn(1, 1, 40, 56, 64)
    with torch.no_grad():
        theirs = predictor.network.eval()(seen)
        ours = model.network.trunk(seen)
        assert torch.allclose(ours, theirs, atol=1e-5)
    save_package(model, tmp_path / "kept")
    assert load_model(tmp_path / "kept").organs == model.organs
