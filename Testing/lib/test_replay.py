"""Replay in a step: which organs, from which volumes, made when, and the student's part in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import CONFIG, cancel_at, same_weights, update

from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.errors import Cancelled
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inversion import quality, session
from IncrementalSegLib.inversion.memory import recall
from IncrementalSegLib.inversion.recipes import RECIPES
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.training import replay, workspace
from IncrementalSegLib.training.patches import CachedCase
from IncrementalSegLib.training.strategies import STRATEGIES, Strategy

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _short_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two iterations, and every organ kept: the model is hardly trained."""
    monkeypatch.setattr(quality, "KEEP_FROM", 0.0)
    for name in ("fast", "grounded"):
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], iterations=2))


@pytest.mark.parametrize(
    ("strategy", "volumes", "seen"),
    [("mosinversion", 2, True), ("mosinversion", 1, False), ("full", 2, True)],
)
def test_replay_trains_on_what_the_model_sees_in_its_synthetic_volumes_and_counts_it(
    parent, two_cases, tmp_path, monkeypatch, strategy, volumes, seen
):
    monkeypatch.setattr(quality, "KEEP_FROM", 0.0 if seen else 1.1)
    monkeypatch.setattr(replay, "visible", lambda scans, bank, model: {1: 1.0, 2: 0.1})
    replayed: list[CachedCase] = []
    real = workspace.PatchSampler
    monkeypatch.setattr(
        workspace, "PatchSampler", lambda *a, replay, **k: replayed.__init__(replay) or real(*a, replay=replay, **k)
    )
    events: list[dict] = []
    model = update(parent, two_cases, tmp_path, strategy, Reporter(events.append, every=0))
    record = model.history[-1]["synthetic"]
    assert (record["volumes"], record["replayed"], record["statistics"]) == (volumes, volumes * seen, "batchnorm")
    assert record["organs"] == (["Spleen"] if strategy == "full" else ["Liver", "Spleen"])
    assert record["requested"] == record["kept"] + record["dropped"] > 0
    assert bool(list(tmp_path.glob("synthetic/*/synthetic_*_image.npy"))) == bool(record["kept"]) == seen
    assert bool(list(tmp_path.glob("synthetic/*/contact_sheet.png"))) == seen
    assert len(replayed) == volumes * seen
    for case in replayed:  # pseudo-labels of old organs: nothing in it is annotated
        assert case.annotated.tolist() == [True, False, False, False] and set(np.unique(case.target)) & {1, 2}
    assert any("nothing is replayed" in event.get("text", "") for event in events) != seen


def test_replay_is_made_once_and_again_only_for_another_model_or_seed(
    parent: Model, patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = replay.synthesize
    monkeypatch.setattr(replay, "synthesize", lambda *args: made.append(args[2].recipe.name) or real(*args))
    everything = replace(STRATEGIES["full"], replay_all=True)
    scans = [session.scan_of(parent, case, CPU, Reporter()) for case in read_dataset(patients, names=["a"])]
    scans = [(hu, np.where(hu > 100, np.uint8(1), np.uint8(0))) for hu, _ in scans]

    def of(seed: int = 0, old: Model = parent, strategy: Strategy = everything) -> replay.Replay:
        return replay.Replay(old, 1, scans, strategy, tmp_path, seed, CPU, Reporter())

    def cases(seed: int, old: Model = parent) -> list[replay.CachedCase]:
        return of(seed, old).cases()

    first = cases(0)
    assert made == ["fast", "grounded"]
    assert [case.key for case in cases(0)] == [case.key for case in first] and len(made) == 2
    cases(1)
    cases(0, replace(parent, hash="another"))
    assert len(made) == 6
    assert len(first) == 2
    for case in first:
        assert case.image.dtype == np.int16 and case.image.shape == case.target.shape == (40, 40, 40)
        assert case.annotated.tolist() == [True, False, False, False]
    summary = replay.replay_summary(tmp_path, ["Liver", "Spleen"])
    assert (summary["volumes"], summary["statistics"]) == (6, "batchnorm") and summary["replayed"] == 6
    assert summary["requested"] == summary["kept"] + summary["dropped"] > 0
    assert of(strategy=STRATEGIES["mib"]).cases() == []
    student = replay.frozen_copy(parent.widened(4), tmp_path / "student.pt")
    of().cases(student)
    of().cases(student)
    assert made[6:] == ["fast"]  # the recipe with the competition term, once
    with torch.no_grad():
        next(student.parameters()).add_(1.0)
    of().cases(student)
    assert made[6:] == ["fast", "fast"]
    events: list[dict] = []
    monkeypatch.setattr(quality, "KEEP_FROM", 1.1)
    told = replace(of(2), reporter=Reporter(events.append))
    assert told.cases(student) == []  # those made before are still replayed
    assert all(event["event"] == "progress" for event in events)
    assert told.cases() == [] and "nothing is replayed" in events[-1]["text"]


def test_only_organs_that_the_scans_hardly_show_are_replayed(parent: Model, tmp_path: Path) -> None:
    bank = recall(parent).bank
    whole = bank.anatomy(0, parent.preprocessing.spacing).organs

    def channels(*seen: np.ndarray, old: Model = parent) -> list[int]:
        scans = [(np.zeros(one.shape, np.int16), one) for one in seen]
        return replay.Replay(old, 1, scans, STRATEGIES["full"], tmp_path, 0, CPU, Reporter()).channels

    liver, crumbs = np.where(whole == 1, whole, 0), np.zeros_like(whole)
    crumbs[::4, ::4, ::4] = crumbs[:2, :2, :2] = 2  # as many voxels as a spleen has, but in crumbs
    assert channels(whole, whole) == []
    assert channels(liver, liver) == [2]
    assert channels(whole, liver, liver) == [2]
    assert channels(np.where(whole == 1, whole, crumbs)) == [2]
    assert channels(np.zeros_like(whole)) == [1, 2]
    halves = np.where(whole == 1, whole, 0)
    middle = int(np.median(np.argwhere(whole == 1)[:, 0]))
    halves[middle] = 0
    assert channels(np.where(whole == 2, whole, halves)) == []  # a label in two pieces, such as both kidneys
    assert channels(liver, old=replace(parent, memory={})) == []


def test_halfway_the_student_competes_and_a_stopped_update_still_ends_at_the_same_weights(
    parent, two_cases, tmp_path, monkeypatch
):
    strategy = replace(STRATEGIES["full"], replay=1.0, replay_all=True, refresh=True)
    monkeypatch.setitem(STRATEGIES, "full", strategy)
    pools: list[int] = []
    real = workspace.PatchSampler
    monkeypatch.setattr(
        workspace, "PatchSampler", lambda *a, replay, **k: pools.append(len(replay)) or real(*a, replay=replay, **k)
    )
    whole = update(parent, two_cases, tmp_path / "whole", "full")
    assert pools[:2] == [2, 3]
    made = sorted(path.name for path in (tmp_path / "whole" / "synthetic").iterdir())
    assert [name.split("-")[0] for name in made] == ["fast", "fast", "grounded"]
    for stop in (("update", 1), ("synthesize", 1), ("update", CONFIG.steps - 1)):
        with pytest.raises(Cancelled):
            update(parent, two_cases, tmp_path / "stopped", "full", cancel_at(*stop))
    resumed = update(parent, two_cases, tmp_path / "stopped", "full")
    assert same_weights(whole.network, resumed.network)
    assert sorted(path.name for path in (tmp_path / "stopped" / "synthetic").iterdir()) == made
    monkeypatch.setitem(STRATEGIES, "full", replace(strategy, refresh=False))
    assert not same_weights(whole.network, update(parent, two_cases, tmp_path / "other", "full").network)
