"""Calibration after the step: old organs get the volume that the old model saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from packages import SPEC
from training_runs import CONFIG, train

from IncrementalSegLib.cases import Case
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inference import probabilities
from IncrementalSegLib.models.networks import build_network
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.organs import OrganTable, organ_named
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.training.calibration import calibrated, shifts_to_volumes
from IncrementalSegLib.training.strategies import strategy_named
from IncrementalSegLib.training.update import update_model
from IncrementalSegLib.training.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")


def volumes(scores: np.ndarray, shifts: np.ndarray) -> list[int]:
    return np.bincount((scores + shifts[:, None]).argmax(0), minlength=len(scores)).tolist()


def drawn(organs: int, voxels: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Scores that win their own labels mostly, and every organ too often."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, organs + 1, voxels)
    scores = rng.normal(0, 1, (organs + 1, voxels)).astype(np.float32)
    scores[labels, np.arange(voxels)] += 2
    scores[1:] += 0.7
    return scores, labels


def test_old_organs_win_the_voxels_that_their_labels_give_them() -> None:
    scores, labels = drawn(3)
    shifts = shifts_to_volumes(scores, labels, 4)
    wanted = np.bincount(labels)
    assert shifts[0] == 0 and (shifts[1:] < 0).all()
    before, after = (np.abs(np.array(volumes(scores, s)) / wanted - 1)[1:].max() for s in (0 * shifts, shifts))
    assert before > 0.1 and after < 0.02


def test_new_organs_and_what_nobody_labelled_stay() -> None:
    scores, labels = drawn(4)
    labels[labels == 2] = 0
    shifts = shifts_to_volumes(scores, labels, 4)
    assert shifts[2] == 0 and shifts[4] == 0 and shifts[1] != 0 and shifts[3] != 0


def test_no_organ_is_moved_far() -> None:
    scores, labels = drawn(2)
    scores[1] += 50
    assert shifts_to_volumes(scores, labels, 3)[1] == -2


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-150, 250, (32, 32, 32)).astype(np.int16)


@pytest.fixture
def grown(hu: np.ndarray) -> tuple[Model, Model]:
    """A model that sees its organs in parts of a scan, and one with an organ more whose second old one has grown."""
    torch.manual_seed(0)
    network, organs = build_network(SPEC, 3).eval(), OrganTable.from_names(["Liver", "Spleen"])
    parent = Model(network, SPEC, organs, Preprocessing(), (32, 32, 32))
    with torch.no_grad():
        network.head.weight.mul_(40)
        image = torch.from_numpy(parent.preprocessing.normalise(hu))
        network.head.bias.sub_(network(image[None, None]).mean((0, 2, 3, 4)))
        wide = parent.widened(4)
        wide.head.bias[2] += 0.4
    organs = organs.extended([replace(organ_named("Stomach"), label=0)])
    return parent, replace(parent, network=wide.eval(), organs=organs)


def test_a_model_whose_organ_grew_sees_it_in_its_old_size_again(grown: tuple[Model, Model], hu: np.ndarray) -> None:
    parent, updated = grown
    image = torch.from_numpy(parent.preprocessing.normalise(hu))
    device, told = torch.device("cpu"), []

    def size(model: Model) -> int:
        return int((probabilities(model.network, image, model.patch, device).argmax(0) == 2).sum())

    labels = probabilities(parent.network, image, parent.patch, device).argmax(0).numpy()
    weights = {key: tensor.clone() for key, tensor in updated.network.state_dict().items()}
    done = calibrated(parent, updated, [(hu, labels)], device, Reporter(told.append))
    assert size(updated) > 1.05 * size(parent) and abs(size(done) - size(parent)) <= 0.02 * size(parent)
    assert "Spleen -" in next(event["text"] for event in told if event["event"] == "message")
    changed = [key for key, tensor in done.network.state_dict().items() if not torch.equal(tensor, weights[key])]
    assert changed == ["head.bias"]
    assert all(torch.equal(weights[key], tensor) for key, tensor in updated.network.state_dict().items())


def test_only_what_was_taught_by_a_teacher_before_is_calibrated(two_cases: list[Case], tmp_path: Path) -> None:
    model, phases = train(two_cases, tmp_path / "base"), []
    for number, organ in enumerate(["Stomach", "Pancreas"], start=1):
        seen: list[dict] = []
        workspace = Workspace(tmp_path / str(number), Reporter(seen.append, every=0))
        full = strategy_named("full-without-inversion")
        model = update_model(model, two_cases, [organ_named(organ)], CONFIG, full, workspace, allow_overlap=True)
        phases.append({event.get("phase") for event in seen})
    assert "calibration" not in phases[0] and "calibration" in phases[1]
