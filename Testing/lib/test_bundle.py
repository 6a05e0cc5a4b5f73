"""The package as a MONAI bundle: its metadata, and that plain MONAI predicts what we predict, without our code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helping import UNAUGMENTED
from monai.bundle import ConfigParser, verify_net_in_out
from monai.bundle.properties import MetaProperties

from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.inference import predict_label_map
from IncrementalSegLib.models.bundle import inference_config
from IncrementalSegLib.models.networks import PRESETS, NetworkSpec, build_network
from IncrementalSegLib.models.package import Model, load_model, save_package
from IncrementalSegLib.organs import OrganTable
from IncrementalSegLib.phantom import PhantomConfig, make_phantom, write_phantom_cases
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.training.base import train_base
from IncrementalSegLib.training.config import TrainingConfig
from IncrementalSegLib.training.workspace import Workspace

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:parsing config_file:UserWarning"),
]

LABELS = {"Liver": 2, "Right kidney": 300}
UNET = {"spatial_dims": 3, "channels": [8, 16, 32], "strides": [2, 2], "num_res_units": 0, "norm": "batch"}
# From the specification of MONAI bundles: what metadata.json and a tensor's description must hold.
METADATA = {
    *("version", "monai_version", "pytorch_version", "numpy_version", "task", "description"),
    *("authors", "copyright", "network_data_format", "required_packages_version"),
}
TENSOR = {
    *("type", "format", "modality", "num_channels", "spatial_shape"),
    *("dtype", "value_range", "is_patch_data", "channel_def"),
}


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny UNet that has learned the liver and the right kidney of two phantoms well enough to find them."""
    folder, threads = tmp_path_factory.mktemp("bundle"), torch.get_num_threads()
    torch.set_num_threads(1)
    config = PhantomConfig(size=(48, 40, 40), spacing=(8.0, 8.0, 8.0))
    write_phantom_cases(folder / "cases", ["a", "b"], 3, config, list(LABELS))
    organs = OrganTable(replace(o, label=LABELS[o.name]) for o in OrganTable.from_names(LABELS))
    settings = TrainingConfig(
        steps=180,
        batch=1,
        patch=(32, 32, 32),
        learning_rate=0.02,
        augmentation=UNAUGMENTED,
        precision="float32",
        device="cpu",
    )
    model = train_base(
        read_dataset(folder / "cases"),
        organs,
        settings,
        Workspace(folder / "work"),
        spec=NetworkSpec("UNet", UNET, 8),
        preprocessing=Preprocessing((8.0, 8.0, 8.0)),
    )
    save_package(model, folder / "model")
    torch.set_num_threads(threads)
    return folder / "model"


def write_scans(folder: Path) -> list[Path]:
    """Unseen patients: one anisotropic in RAS orientation, one oblique, with axes swapped."""
    folder.mkdir()
    straight, _ = make_phantom(np.random.default_rng(77), PhantomConfig(size=(130, 110, 64), spacing=(3.0, 3.0, 5.0)))
    oblique, _ = make_phantom(np.random.default_rng(78), PhantomConfig(size=(96, 80, 80)))
    turn = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.05, -0.1, 0.15)
    oblique.SetDirection(turn.GetMatrix())
    paths = [folder / "first.nii.gz", folder / "second.nii.gz"]
    for path, image, axes in zip(paths, (straight, oblique), ("RAS", "SPL"), strict=True):
        sitk.WriteImage(sitk.DICOMOrient(image, axes), path)
    return paths


def run_plain_monai(package: Path, scans: list[Path], out: Path) -> None:
    """``python -m monai.bundle run`` in an empty folder, where our library cannot be imported."""
    empty = out / "empty"
    empty.mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    finder = "import importlib.util as u, sys; sys.exit(u.find_spec('IncrementalSegLib') is not None)"
    found = subprocess.run([sys.executable, "-c", finder], cwd=empty, env=environment, check=False)
    blocked = [] if found.returncode == 0 else ["-c", BLOCKED]
    command = [sys.executable, *(blocked or ["-m", "monai.bundle"]), "run"]
    options = {
        "config_file": package / "configs" / "inference.json",
        "bundle_root": package,
        "datalist": [str(path) for path in scans],
        "output_dir": out,
        "device": "cpu",
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    done = subprocess.run([*command, *arguments], cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Where our library is installed in this Python, the same command with that one import refused.
BLOCKED = """
import runpy, sys
sys.modules["IncrementalSegLib"] = None
sys.argv[0] = "monai.bundle"
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_plain_monai_predicts_what_we_predict_on_the_inputs_grid(package: Path, tmp_path: Path) -> None:
    scans = write_scans(tmp_path / "scans")
    run_plain_monai(package, scans, tmp_path / "out")
    model = load_model(package)
    for path in scans:
        ct = sitk.ReadImage(path)
        ours = predict_label_map(model, ct, torch.device("cpu"))
        (written,) = (tmp_path / "out").rglob(f"{path.name.split('.')[0]}*.nii.gz")
        theirs = sitk.ReadImage(written)
        assert theirs.GetSize() == ct.GetSize() and theirs.GetPixelID() == ours.GetPixelID() == sitk.sitkUInt16
        for tell in ("GetOrigin", "GetSpacing", "GetDirection"):
            assert np.allclose(getattr(theirs, tell)(), getattr(ct, tell)(), atol=1e-4), tell
        a, b = sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs)
        assert set(np.unique(b)) == {0, *LABELS.values()}
        for label in LABELS.values():
            assert (a == label).sum() > 100, "nothing predicted proves nothing"
            assert dsc(a == label, b == label) >= 0.99


def run_config(package: Path, scan: Path, out: Path) -> np.ndarray:
    """The bundle's run in this process: the label values (x, y, z) that it writes."""
    parser = ConfigParser()
    parser.read_config(package / "configs" / "inference.json")
    parser.update({"bundle_root": str(package), "datalist": [str(scan)], "output_dir": str(out), "device": "cpu"})
    gradients = torch.is_grad_enabled()
    parser.get_parsed_content("run")
    torch.set_grad_enabled(gradients)
    (written,) = out.rglob("*.nii.gz")
    return sitk.GetArrayFromImage(sitk.ReadImage(written))


def test_plain_monai_folds_a_structure_inside_an_organ_as_we_do(package: Path, tmp_path: Path) -> None:
    trained = load_model(package)
    liver, kidney = trained.organs
    model = replace(trained, organs=OrganTable([replace(liver, parent=kidney.key), kidney]))
    with torch.no_grad():
        model.network.get_submodule("head").bias[0] += 1.5  # type: ignore[operator, index]  # close calls, where folding matters
    save_package(model, tmp_path / "model")
    scan = write_scans(tmp_path / "scans")[1]
    theirs = run_config(tmp_path / "model", scan, tmp_path / "out")
    ours = sitk.GetArrayFromImage(predict_label_map(model, sitk.ReadImage(scan), torch.device("cpu")))
    unfolded = replace(model, organs=trained.organs)
    without = sitk.GetArrayFromImage(predict_label_map(unfolded, sitk.ReadImage(scan), torch.device("cpu")))
    assert (theirs != ours).sum() < 0.2 * (without != ours).sum()


def test_plain_monai_keeps_the_largest_pieces_as_we_do(package: Path, tmp_path: Path) -> None:
    trained = load_model(package)
    with torch.no_grad():
        trained.network.get_submodule("head").bias[0] -= 4.0  # type: ignore[operator, index]  # many pieces
    model = replace(trained, connected=tuple(trained.organs.keys))
    save_package(model, tmp_path / "model")
    scan = write_scans(tmp_path / "scans")[0]
    theirs = run_config(tmp_path / "model", scan, tmp_path / "out")
    ct, device = sitk.ReadImage(scan), torch.device("cpu")
    ours, every = (sitk.GetArrayFromImage(predict_label_map(m, ct, device)) for m in (model, trained))
    assert (ours == 300).any() and (ours != every).sum() > 200
    assert (theirs != ours).sum() < 0.05 * (every != ours).sum()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "SwinUNETR"])
def test_monai_builds_the_same_network_from_the_config(name: str) -> None:
    spec, organs = NetworkSpec.preset(name), OrganTable.from_names(["Liver", "Spleen"])
    config = inference_config(spec, organs, Preprocessing(), (32, 32, 32))
    network = ConfigParser(json.loads(json.dumps(config))).get_parsed_content("network_def").eval()
    ours = build_network(spec, 3).eval()
    network.load_state_dict(ours.state_dict())
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(network(image), ours(image))


def save_untrained(folder: Path, spec: NetworkSpec, patch: tuple[int, int, int]) -> dict[str, Any]:
    organs = OrganTable.from_names(["Liver", "Spleen"])
    save_package(Model(build_network(spec, 3), spec, organs, patch=patch), folder)
    content: dict[str, Any] = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return content


def test_metadata_holds_what_monai_asks_for(tmp_path: Path) -> None:
    content = save_untrained(tmp_path / "model", NetworkSpec("UNet", UNET, 8), (32, 32, 16))
    assert content.keys() >= METADATA
    assert all(isinstance(content[key], str) for key in METADATA - {"network_data_format", "required_packages_version"})
    assert content["version"] in content["changelog"]
    assert content["pytorch_version"] == torch.__version__ and content["numpy_version"] == np.__version__
    data = content["network_data_format"]
    image, prediction = data["inputs"]["image"], data["outputs"]["pred"]
    assert image.keys() >= TENSOR and prediction.keys() >= TENSOR
    assert image["channel_def"] == {"0": "CT"} and image["spatial_shape"] == [32, 32, 16]
    assert prediction["channel_def"] == {"0": "background", "1": "Liver", "2": "Spleen"}
    assert prediction["num_channels"] == 3


def test_monai_finds_its_properties_and_the_networks_shapes(tmp_path: Path) -> None:
    save_untrained(tmp_path / "model", NetworkSpec("UNet", UNET, 8), (32, 32, 16))
    configs = tmp_path / "model" / "configs"
    parser = ConfigParser()
    parser.read_config(configs / "inference.json")
    parser.read_meta(configs / "metadata.json")
    for name, wanted in MetaProperties.items():
        assert parser.get(wanted["id"]) is not None, name
    verify_net_in_out(
        net_id="network_def", meta_file=configs / "metadata.json", config_file=configs / "inference.json", device="cpu"
    )
