"""Transfer: another model judges synthetic volumes beside real scans, and the table says what it found."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from IncrementalSegLib.benchmarks import transfer
from IncrementalSegLib.benchmarks.transfer import judged, transfer_table
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inversion import quality
from IncrementalSegLib.inversion.quality import Synthetic
from IncrementalSegLib.inversion.recipes import RECIPES
from IncrementalSegLib.models.package import load_model

pytestmark = pytest.mark.usefixtures("one_thread")


def row(recipe: str, organ: str, **values: object) -> dict:
    real = {"requested": 4, "kept": 4, "dice": 0.9, "judge": 0.8, "judge_on_real": 0.8}
    return {
        "recipe": recipe,
        "volumes": 4,
        "organ": organ,
        "dice_to_scan": None,
        "feature_distance": 0.1,
        **real,
        **values,
    }


def test_the_table_weighs_what_the_judge_finds_against_real_scans() -> None:
    rows = [row("fast", "Liver"), row("fast", "Spleen", kept=1, dice=0.5, judge=0.4)]
    rows += [row("fast", "Stomach", dice=0.7, judge_on_real=None)]  # annotated in no real scan
    rows += [row("reference", "Liver", kept=0, judge=None, dice_to_scan=0.75)]
    fast, reference = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in transfer_table(rows).splitlines()[2:]
    )
    assert fast == ["fast", "4", "9/12", "75 %", "0.700", "0.600", "0.800", "75 %", "—", "0.100"]
    assert reference == ["reference", "4", "0/4", "100 %", "0.900", "—", "—", "—", "0.75", "0.100"]


def test_the_judge_is_asked_about_organs_that_were_kept(base_job: Path) -> None:
    judge = load_model(base_job / "model")
    image = np.random.default_rng(0).uniform(-1, 1, (32, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        own = judge.network(torch.from_numpy(image)[None, None]).argmax(1)[0].numpy().astype(np.uint8)
    own[0, 0, :2] = 1, 2
    same, none = Synthetic(image, own, own, {"a": 1.0}), Synthetic(image, np.zeros_like(own), own, {"a": 1.0})
    scores = judged([same, none], judge, torch.device("cpu"), Reporter())
    assert scores[0].keys() == {1, 2} and max(scores[0].values()) > 0.99 and scores[1] == {}


def test_a_run_writes_what_every_recipe_got_and_repeats_nothing(
    base_job: Path, patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "KEEP_FROM", 0.0)  # the model is hardly trained
    for name in RECIPES:
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], iterations=2))
    model = ["--model", base_job / "model", "--judge", base_job / "model", "--device", "cpu"]
    arguments = [str(part) for part in (*model, "--cases", patients, "--out", tmp_path, "--count", 2)]
    assert transfer.main(arguments) == 0
    assert "Transfer" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "transfer.csv").open()))
    assert [r["recipe"] for r in rows] == [name for name in RECIPES for _ in range(2)]
    assert all((r["dice_to_scan"] != "") == (r["recipe"] == "grounded") for r in rows)
    assert len(rows[0]["dice"]) <= 8 and all(0 <= float(r["judge_on_real"]) <= 1 for r in rows)
    made: list[tuple[str, int]] = []
    real = transfer.synthesize
    monkeypatch.setattr(
        transfer, "synthesize", lambda *args: made.append((args[2].recipe.name, args[2].count)) or real(*args)
    )
    assert transfer.main(arguments) == 0 and made == []
    assert transfer.main([*arguments[:-1], "1", "--recipes", "fast"]) == 0 and made == [("fast", 1)]
    rows = list(csv.DictReader((tmp_path / "transfer.csv").open()))
    assert [(r["recipe"], r["volumes"]) for r in rows[::2]] == [("reference", "2"), ("fast", "1"), ("grounded", "2")]


def test_a_judge_of_other_organs_is_refused(
    base_job: Path, patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = transfer.load_model
    other = replace(real(base_job / "model"), organs=real(base_job / "model").organs.extended([]))
    thick = replace(other, preprocessing=replace(other.preprocessing, spacing=(9.0, 9.0, 9.0)))
    monkeypatch.setattr(transfer, "load_model", lambda path: thick if path.name == "thick" else real(path))
    model = ["--model", base_job / "model", "--judge", "thick", "--cases", patients, "--out", tmp_path]
    assert transfer.main([str(part) for part in model]) == 2
    assert "other organs or another preprocessing" in capsys.readouterr().err
