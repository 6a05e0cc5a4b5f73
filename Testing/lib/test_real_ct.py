"""The verbs on real abdominal CT: a few steps each, on the grids that scanners give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import IncrementalSegLib
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.training.config import TrainingConfig

pytestmark = [pytest.mark.real_ct, pytest.mark.usefixtures("one_thread")]
SHORT = TrainingConfig(steps=4, batch=1, patch=(32, 32, 32), device="cpu")


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory, real_ct_folder: Path) -> Path:
    """A base of four organs and a step that adds the pancreas, at 6 mm; the step's job folder."""
    folder = tmp_path_factory.mktemp("real")
    cases, organs = real_ct_folder / "abdomen_3mm", ["Spleen", "Right kidney", "Left kidney", "Liver"]
    split = json.loads((cases / "split.json").read_text(encoding="utf-8"))
    IncrementalSegLib.train(
        cases,
        organs,
        folder / "base",
        train_cases=split["step0"][:2],
        heldout=[],
        spacing=(6.0, 6.0, 6.0),
        training=SHORT,
    )
    IncrementalSegLib.add_organ(
        folder / "base" / "model",
        cases,
        ["Pancreas"],
        folder / "step",
        train_cases=split["step1"][:1],
        heldout=split["evaluation"][:1],
        training=SHORT,
        allow_overlap=True,
    )
    return folder / "step"


def test_a_step_on_real_ct_reports_old_and_new_organs_against_their_annotation(step):
    report = json.loads((step / "report.json").read_text(encoding="utf-8"))
    assert [organ["role"] for organ in report["organs"]] == ["old"] * 4 + ["new"]
    assert report["retention_source"] == "annotation"
    for organ in report["organs"]:
        assert 0 <= organ["dsc_after"] <= 1
        assert 0 < organ["hd95_after"] < 1000
    record = load_model(step / "model").history[-1]
    assert (record["cases"], record["strategy"]) == (1, "full")


def test_evaluate_compares_both_models_on_annotated_real_ct(step, real_ct_folder, tmp_path):
    parent = step.parent / "base" / "model"
    cases = real_ct_folder / "abdomen_3mm"
    report = IncrementalSegLib.evaluate(step / "model", cases, tmp_path, old=parent, names=["abd_20"])
    assert report["cases"]["heldout"] == 1
    assert all(organ["dsc_before"] is not None for organ in report["organs"] if organ["role"] == "old")
    for name in ("report.json", "report.csv", "report.md", "dsc.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_a_prediction_lies_on_the_grid_that_the_scanner_gave(step, real_ct_folder, tmp_path):
    ct = sorted((real_ct_folder / "abdomen_original").rglob("*_ct.nii.gz"))[0]
    label_map = IncrementalSegLib.predict(step / "model", ct, tmp_path / "organs.nii.gz")
    image = sitk.ReadImage(str(ct))
    for got in (label_map, sitk.ReadImage(str(tmp_path / "organs.nii.gz"))):
        assert got.GetSize() == image.GetSize()
        for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(got, geometry)() == pytest.approx(getattr(image, geometry)(), abs=1e-4)
        assert set(np.unique(sitk.GetArrayViewFromImage(got))) <= set(range(6))
