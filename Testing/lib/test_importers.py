"""Models of other tools: they predict what their own tool predicts, and they can be grown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import monai.transforms as mt
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from foreign_models import (
    ORGANS,
    WHOLE_SCAN,
    WINDOW,
    auto3dseg,
    auto3dseg_transforms,
    bundle,
    nnunet,
    preprocessing,
)
from monai.bundle import ConfigParser
from monai.inferers import sliding_window_inference
from torch import nn
from training_runs import CONFIG

from IncrementalSegLib.cases import Case
from IncrementalSegLib.cli import main
from IncrementalSegLib.importers.reading import import_model
from IncrementalSegLib.inference import predict_label_map
from IncrementalSegLib.models.package import Model, load_model, save_package
from IncrementalSegLib.models.tap import features_and_logits
from IncrementalSegLib.models.widen import folded_probabilities
from IncrementalSegLib.organs import organ_named
from IncrementalSegLib.phantom import PhantomConfig, make_phantom
from IncrementalSegLib.preprocessing import on_model_grid
from IncrementalSegLib.training.strategies import strategy_named
from IncrementalSegLib.training.update import update_model
from IncrementalSegLib.training.workspace import Workspace
from IncrementalSegLib.volumes import to_array

pytestmark = pytest.mark.usefixtures("one_thread")
WRITERS: dict[str, Callable[..., nn.Module]] = {"bundle": bundle, "auto3dseg": auto3dseg, "nnunet": nnunet}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient whose spacing is no model's, with axes as NIfTI collections have them."""
    image, _ = make_phantom(np.random.default_rng(5), PhantomConfig(size=(60, 52, 40), spacing=(6.5, 6.5, 8.0)))
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), path)
    return path


@pytest.fixture(params=["phantom", pytest.param("real CT", marks=pytest.mark.real_ct)])
def any_scan(request: pytest.FixtureRequest, scan: Path) -> Path:
    return (
        scan
        if request.param == "phantom"
        else request.getfixturevalue("real_ct_folder") / "abdomen_3mm/abd_03_ct.nii.gz"
    )


@pytest.fixture(params=WRITERS)
def imported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Model, nn.Module]:
    """A model and the network that it was made of."""
    network = WRITERS[request.param](tmp_path / "theirs")
    return import_model(tmp_path / "theirs"), network


def dice(a: np.ndarray, b: np.ndarray) -> list[float]:
    return [2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in range(1, len(ORGANS) + 1)]


def predicted(model: Model, path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(predict_label_map(model, sitk.ReadImage(str(path)), torch.device("cpu"))).T


@pytest.mark.parametrize("scaling", [WINDOW, WHOLE_SCAN], ids=["a window of HU", "the whole scan"])
def test_a_bundle_predicts_what_monai_itself_predicts(tmp_path: Path, any_scan: Path, scaling: list) -> None:
    network, parser = bundle(tmp_path / "theirs", preprocessing=preprocessing(scaling)), ConfigParser()
    parser.read_config(tmp_path / "theirs/configs/inference.json")
    item = parser.get_parsed_content("preprocessing")({"image": str(any_scan)})
    with torch.no_grad():
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], network)[0]
    theirs = parser.get_parsed_content("postprocessing")(item)["pred"][0].numpy()
    ours = predicted(import_model(tmp_path / "theirs"), any_scan)
    assert min(dice(ours, theirs)) >= 0.995 and len(np.unique(theirs)) == 1 + len(ORGANS)


@pytest.mark.parametrize("cut", [True, False], ids=["cut to the body", "whole"])
@pytest.mark.parametrize("near", [False, True], ids=["resampled", "own spacing"])
def test_auto3dseg_predicts_what_its_own_transforms_give(tmp_path: Path, scan: Path, near: bool, cut: bool) -> None:
    spacing = [7.0, 6.0, 9.0] if near else [5.0, 4.5, 6.0]
    network = auto3dseg(tmp_path / "theirs", resample_resolution=spacing, crop_foreground=cut)
    chain = auto3dseg_transforms(spacing, cut)
    item = chain({"image": str(scan)})
    with torch.no_grad():
        logits = sliding_window_inference(item["image"][None], [32, 48, 32], 1, network, 0.625, "gaussian")
    item["pred"] = logits[0].softmax(0)
    inverted = mt.Invertd(keys="pred", orig_keys="image", transform=chain, nearest_interp=False)(item)
    theirs = inverted["pred"].argmax(0).numpy()
    assert min(dice(predicted(import_model(tmp_path / "theirs"), scan), theirs)) >= 0.995


def test_nnunet_sees_the_scan_as_its_own_preprocessing_makes_it(tmp_path: Path, any_scan: Path) -> None:
    """Axes (z, y, x) of the file, transposed; clipped and standardised; the published formula, written out here."""
    network, model = nnunet(tmp_path / "theirs"), import_model(tmp_path / "theirs")
    assert model.preprocessing.spacing == (7.0, 6.0, 9.0) and model.patch == (32, 24, 16)
    grid = sitk.DICOMOrient(on_model_grid(sitk.ReadImage(str(any_scan)), model.preprocessing), "RAS")
    values = (np.clip(sitk.GetArrayFromImage(grid), -900, 300) - 80.0) / 140.0
    values = values.transpose(0, 2, 1)[:16, :32, :24]
    with torch.no_grad():
        theirs = network(torch.from_numpy(values[None, None].astype(np.float32)))[0].numpy()
        image = torch.from_numpy(model.preprocessing.normalise(to_array(sitk.DICOMOrient(grid, "LPS"))))
        part = image[-32:, -24:, :16]
        ours = model.network(part[None, None])[0].numpy()
    expected = theirs.transpose(0, 2, 3, 1)[:, ::-1, ::-1, :]  # (C, x, y, z), from RAS to LPS
    assert np.abs(ours - expected).max() < 1e-4


def test_nnunets_grid_fills_the_scan_from_edge_to_edge(tmp_path: Path, scan: Path) -> None:
    nnunet(tmp_path / "theirs")
    model, image = import_model(tmp_path / "theirs"), sitk.ReadImage(str(scan))
    grid = on_model_grid(image, model.preprocessing)
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    assert grid.GetSize() == tuple(round(n * s / t) for n, s, t in zip(size, spacing, (7.0, 6.0, 9.0), strict=True))
    assert np.allclose(np.array(grid.GetSize()) * grid.GetSpacing(), size * spacing)
    assert grid.GetPixelID() == sitk.sitkFloat32 and to_array(grid).min() >= -901


def test_thick_slices_are_not_mixed_by_nnunets_splines(tmp_path: Path) -> None:
    nnunet(tmp_path / "theirs")
    model, levels = import_model(tmp_path / "theirs"), np.array([-700.0, 10.0, 200.0, -50.0])
    for thickness, mixed in ((40.0, False), (12.0, True)):
        slices = sitk.GetImageFromArray(np.broadcast_to(levels[:, None, None], (4, 20, 20)).copy())
        slices.SetSpacing((8.0, 8.0, thickness))
        seen = np.unique(np.round(to_array(on_model_grid(slices, model.preprocessing)), 3))
        assert (len(set(seen) - set(levels)) > 0) == mixed and seen.min() >= -900


def test_logits_are_those_of_the_original_network(imported: tuple[Model, nn.Module]) -> None:
    model, network = imported
    image = torch.rand(1, 1, 32, 32, 32) * 2 - 1
    letters, usage = model.spec.usage.orientation, model.spec.usage
    axes = ["LPSRAI".index(letter) % 3 for letter in letters]
    flipped = [2 + i for i, letter in enumerate(letters) if letter in "RAI"]
    low, high = usage.intensity
    seen = image.permute(0, 1, *(2 + axis for axis in axes)).flip(flipped) * ((high - low) / 2) + (high + low) / 2
    with torch.no_grad():
        theirs = network(seen.sigmoid() if usage.squashed else seen).flip(flipped)
        theirs = theirs.permute(0, 1, *(2 + axes.index(axis) for axis in range(3)))
        features, ours = features_and_logits(model.network, image)
    assert (ours - theirs).abs().max() < 1e-5
    assert features.shape == (1, model.spec.features, 32, 32, 32)


def test_organs_and_provenance_are_known(imported: tuple[Model, nn.Module]) -> None:
    model, _ = imported
    assert model.organs.keys == [organ_named(name).key for name in ("Liver", "Spleen", "Right kidney")]
    (record,) = model.history
    assert record["strategy"] == "imported" and len(record["source"]["weights"]) == 64
    assert record["source"]["tool"] in ("MONAI bundle", "Auto3DSeg", "nnU-Net")


def test_it_is_kept_as_our_package(imported: tuple[Model, nn.Module], tmp_path: Path) -> None:
    model, _ = imported
    save_package(model, tmp_path / "ours")
    again = load_model(tmp_path / "ours")
    image = torch.rand(1, 1, 32, 32, 32) * 2 - 1
    assert (again.spec, again.preprocessing, again.patch) == (model.spec, model.preprocessing, model.patch)
    with torch.no_grad():
        assert torch.equal(again.network(image), model.network(image))


def test_widening_keeps_what_the_model_knew(imported: tuple[Model, nn.Module]) -> None:
    model, _ = imported
    image, wide = torch.rand(1, 1, 32, 32, 32) * 2 - 1, model.widened(model.classes + 2).eval()
    with torch.no_grad():
        old, new = model.network(image), wide(image)
    assert torch.equal(old[:, 1:], new[:, 1 : model.classes])
    assert torch.allclose(folded_probabilities(new, model.classes), old.softmax(1), atol=1e-6)


@pytest.mark.parametrize("strategy", ["full", "plop", "fine-tune", "locked", "pgcd-dapd"])
@pytest.mark.parametrize("kind", WRITERS)
def test_it_can_be_grown_by_an_organ(kind: str, strategy: str, tmp_path: Path, two_cases: list[Case]) -> None:
    WRITERS[kind](tmp_path / "theirs")
    model = import_model(tmp_path / "theirs")
    chosen, workspace = strategy_named(strategy), Workspace(tmp_path / "job")
    grown = update_model(model, two_cases, [organ_named("Stomach")], CONFIG, chosen, workspace, allow_overlap=True)
    assert grown.organs.names == [*model.organs.names, "Stomach"] and grown.preprocessing == model.preprocessing
    save_package(grown, tmp_path / "grown")
    assert load_model(tmp_path / "grown").classes == model.classes + 1


def test_a_grown_auto3dseg_model_opens_in_its_own_tool(tmp_path: Path, two_cases: list[Case]) -> None:
    auto3dseg(tmp_path / "theirs")
    model, workspace = import_model(tmp_path / "theirs"), Workspace(tmp_path / "job")
    grown = update_model(
        model, two_cases, [organ_named("Stomach")], CONFIG, strategy_named("mib"), workspace, allow_overlap=True
    )
    save_package(grown, tmp_path / "grown")
    assert main(["export", "--model", str(tmp_path / "grown"), "--out", str(tmp_path / "back")]) == 0
    content = torch.load(tmp_path / "back/model.pt", weights_only=True)
    network = ConfigParser(content["config"]["network"]).get_parsed_content()
    network.load_state_dict(content["state_dict"], strict=True)
    again, image = import_model(tmp_path / "back"), torch.rand(1, 1, 32, 32, 32) * 2 - 1
    assert again.organs.names == [*model.organs.names, "Stomach"] and again.preprocessing == model.preprocessing
    with torch.no_grad():
        assert torch.equal(again.network(image), grown.network.eval()(image))
    assert main(["export", "--model", str(tmp_path / "grown"), "--out", str(tmp_path / "back")]) == 4


def test_what_is_no_auto3dseg_model_is_not_written_as_one(tmp_path: Path, capsys) -> None:
    bundle(tmp_path / "theirs")
    save_package(import_model(tmp_path / "theirs"), tmp_path / "ours")
    assert main(["export", "--model", str(tmp_path / "ours"), "--out", str(tmp_path / "back")]) == 2
    assert "Auto3DSeg opens SegResNetDS only" in capsys.readouterr().err and not (tmp_path / "back").exists()


def test_a_zip_of_it_does_as_well_and_the_command_line_says_what_came_in(tmp_path: Path, capsys) -> None:
    bundle(tmp_path / "theirs/spleen", {"img_size": 96})
    archive = shutil.make_archive(str(tmp_path / "sent"), "zip", tmp_path / "theirs")
    assert main(["import", archive, "--out", str(tmp_path / "ours")]) == 0
    said = capsys.readouterr().err
    assert "img_size" in said and "Liver, Spleen, Right kidney" in said
    assert load_model(tmp_path / "ours").preprocessing.orientation == "RAS"
    assert json.loads((tmp_path / "ours/configs/metadata.json").read_text())["incrementalseg"]["network"]["usage"]
