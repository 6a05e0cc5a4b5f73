"""The benchmark of recipes: the same masks, a clock that stands still while quality is measured, honest ratios."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from IncrementalSegLib.benchmarks import inversion
from IncrementalSegLib.benchmarks.inversion import Point, quality, reached, read_curves, speed_table
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inversion.memory import recall
from IncrementalSegLib.inversion.recipes import RECIPES
from IncrementalSegLib.inversion.starts import Request, draw_start
from IncrementalSegLib.models.package import load_model

pytestmark = pytest.mark.usefixtures("one_thread")
CURVES = {
    "reference": [Point(0, 0.0, 0.0, 9.0), Point(1000, 50.0, 0.9, 1.0), Point(2000, 100.0, 0.8, 0.5)],
    "fast": [Point(0, 0.0, 0.5, 2.0), Point(1, 1.0, 0.9, 0.6), Point(2, 2.0, 0.85, 0.5), Point(3, 3.0, 0.95, 0.4)],
}


def test_a_recipe_is_there_when_both_numbers_are_as_good_as_where_the_published_one_ends() -> None:
    goal = CURVES["reference"][-1]
    there = reached(CURVES["fast"], goal)
    assert there is not None and there.iteration == 2
    assert reached(CURVES["fast"][:2], goal) is None


def cells(curves: dict) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in speed_table(curves).splitlines()[2:]]


def test_the_table_gives_the_ratio_of_seconds_or_says_that_it_was_not_reached() -> None:
    reference, fast = cells(CURVES)
    there = "2.0 s (iteration 2): 50×"
    assert fast == ["fast", "3", "3.0", "0.950", "0.400", there, there] and reference[-1].endswith("): 1×")
    sooner = {**CURVES, "reference": [*CURVES["reference"][:2], Point(1500, 75.0, 0.8, 0.4), CURVES["reference"][-1]]}
    assert cells(sooner)[1][-2] == "2.0 s (iteration 2): 38×"
    assert cells({**CURVES, "fast": CURVES["fast"][:2]})[1][-2:] == ["not reached", "not reached"]
    assert len(cells({"fast": CURVES["fast"]})[0]) == 5


def test_a_mask_that_is_fitted_to_the_voxel_is_told_apart_from_a_good_one() -> None:
    fitted = {**CURVES, "reference": [*CURVES["reference"][:2], Point(2000, 100.0, 0.999, 0.5)]}
    assert cells(fitted)[1][-2:] == ["not reached", "3.0 s (iteration 3): 33×"]


def test_all_recipes_run_on_the_same_masks_and_finished_ones_only_once(
    base_job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, iterations in (("reference", 6), ("fast", 3)):
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], iterations=iterations))
    asked, real = [], inversion.quality

    def measured(model, memory, images, masks):
        asked.append(masks)
        return real(model, memory, images, masks)

    monkeypatch.setattr(inversion, "quality", measured)
    arguments = ["--model", str(base_job / "model"), "--out", str(tmp_path), "--count", "2", "--device", "cpu"]
    assert inversion.main(arguments) == 0
    assert all(np.array_equal(masks, asked[0]) for masks in asked) and asked[0].shape == (2, 32, 32, 32)
    assert "DSC 0.95 and R of reference" in capsys.readouterr().out
    settings = json.loads((tmp_path / "fast.json").read_text())["settings"]
    curves, count = read_curves(tmp_path, settings), len(asked)
    assert [p.iteration for p in curves["fast"]] == [0, 1, 2, 3]
    assert all(a.seconds < b.seconds for a, b in zip(curves["reference"], curves["reference"][1:], strict=False))
    rows = list(csv.DictReader((tmp_path / "inversion.csv").open()))
    assert len(rows) == len(curves["fast"]) + len(curves["reference"])
    assert (tmp_path / "inversion.png").stat().st_size > 10_000 and (tmp_path / "inversion.md").exists()
    assert inversion.main(arguments) == 0 and len(asked) == count
    assert not any(read_curves(tmp_path, {**settings, other: "another"}) for other in settings)
    assert inversion.main([*arguments, "--seed", "1", "--recipes", "fast"]) == 0 and len(asked) == count + 4
    assert {row["recipe"] for row in csv.DictReader((tmp_path / "inversion.csv").open())} == {"fast"}


def test_quality_is_that_of_the_masks_asked_for(base_job: Path) -> None:
    model = load_model(base_job / "model")
    memory = recall(model)
    image = torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        masks = model.network(image).argmax(1).numpy()
    score, distance = quality(model, memory, image, masks)
    assert score == 1.0 and distance > 0
    assert quality(model, memory, image, np.where(masks > 0, masks % 2 + 1, 0))[0] < 0.5


def test_a_recipe_that_needs_scans_is_refused(base_job: Path) -> None:
    model = load_model(base_job / "model")
    with pytest.raises(InputError, match="'grounded' starts from scans"):
        inversion.curve(model, recall(model), RECIPES["grounded"], 1, 0, torch.device("cpu"), Reporter())


def test_masks_do_not_depend_on_where_a_recipe_starts(base_job: Path) -> None:
    model = load_model(base_job / "model")
    starts = [draw_start(model, recall(model), Request(RECIPES[n], 1, model.patch), 0) for n in ("reference", "fast")]
    assert np.array_equal(starts[0].anatomy.organs, starts[1].anatomy.organs)
