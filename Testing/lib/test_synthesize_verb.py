"""The verb `synthesize`: what is written and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import IncrementalSegLib
from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.cli import main
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inversion import session
from IncrementalSegLib.inversion.memory import recall
from IncrementalSegLib.inversion.recipes import RECIPES
from IncrementalSegLib.models.package import Model, load_model
from IncrementalSegLib.organs import OrganTable

pytestmark = pytest.mark.usefixtures("one_thread", "user", "short_recipes")
CPU = torch.device("cpu")


@pytest.fixture
def short_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of two iterations: what comes out is no good, and it comes soon."""
    for name, recipe in list(RECIPES.items()):
        monkeypatch.setitem(RECIPES, name, replace(recipe, iterations=2))


@pytest.fixture(scope="module")
def model(base_job: Path) -> Model:
    return load_model(base_job / "model")


def test_a_trained_model_remembers_anatomy_and_intensities_but_no_image(model: Model) -> None:
    assert model.memory.keys() == {"masks", "intensities", "prototypes"}
    memory = recall(model)
    assert memory.statistics.source == "batchnorm" and "recombined" in memory.bank.source
    assert all(anatomy.channels == [1, 2] for anatomy in memory.bank.anatomies)
    assert memory.intensities.histogram[5:].sum(1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("recipe", ["fast", "reference", "grounded"])
def test_volumes_label_maps_sheet_and_table_are_written_and_marked(
    base_job: Path, patients: Path, tmp_path: Path, recipe: str
) -> None:
    out, scans = tmp_path / "out", ["--cases", patients] if recipe == "grounded" else []
    options = ["--model", base_job, "--out", out, "--count", 2, "--recipe", recipe, "--device", "cpu", *scans]
    assert main([str(option) for option in ["synthesize", *options]]) == 0
    made = sorted(path.name for path in out.iterdir())
    volumes = [f"synthetic_00{n}_{part}.nii.gz" for n in (1, 2) for part in ("ct", "requested", "seg")]
    assert made == sorted(["contact_sheet.png", "dataset.json", "quality.json", *volumes])
    ct = sitk.ReadImage(str(out / volumes[0]))
    edge = 32 + RECIPES[recipe].jitter  # the model's patch and room for jitter
    assert ct.GetSize() == (edge, edge, edge) and ct.GetSpacing() == (12, 12, 12)
    assert ct.GetMetaData("ITK_FileNotes").startswith("SYNTHETIC")
    hu = sitk.GetArrayFromImage(ct)
    assert hu.min() >= -125 and hu.max() <= 275 and hu.std() > 20
    quality = json.loads((out / "quality.json").read_text())
    assert quality["recipe"] == recipe and quality["requested"] == quality["kept"] + quality["dropped"] >= 2
    assert quality["statistics_source"] == "batchnorm" and quality["seconds_per_volume"] > 0
    assert (quality["dice_to_scan"] is not None) == (recipe == "grounded")
    assert quality["dice"].keys() == {organ.key for organ in load_model(base_job / "model").organs}


def test_the_same_seed_gives_the_same_volumes(base_job: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        IncrementalSegLib.synthesize(base_job / "model", tmp_path / name, count=1, seed=seed, device="cpu")
    a, b, c = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / n / "synthetic_001_ct.nii.gz"))) for n in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"recipe": "grounded"}, "starts from current scans: name their folder with --cases"),
        ({"recipe": "slow"}, "'slow' is not known"),
        ({"count": 0}, "ask for 1 or more"),
        ({"size": (40, 40, 16)}, "or more"),
        ({"size": (40, 40)}, "or more"),
    ],
)
def test_refuses_what_cannot_be_made_and_writes_nothing(
    model: Model, tmp_path: Path, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        IncrementalSegLib.synthesize(model, tmp_path / "out", device="cpu", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_refuses_a_folder_that_holds_something(model: Model, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="already holds something"):
        IncrementalSegLib.synthesize(model, tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_model_that_remembers_nothing_dreams_of_the_scans_or_else_of_phantoms(model: Model, patients: Path) -> None:
    forgetful = replace(model, memory={})
    assert "recombined from 4" in recall(forgetful).bank.source
    scans = [session.scan_of(model, case, CPU, Reporter()) for case in read_dataset(patients, names=["a", "b", "c"])]
    seen = [np.where(channels > 0, channels, 0) for _, channels in scans]
    if any(channels.any() for channels in seen):
        assert "recombined" in recall(forgetful, lambda: scans).bank.source
    strange = replace(forgetful, organs=OrganTable.from_names(["Thyroid gland"]))
    with pytest.raises(InputError, match=r"phantoms have none of its organs \(Thyroid gland\)"):
        recall(strange)
