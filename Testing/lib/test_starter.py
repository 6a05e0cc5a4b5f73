"""The starter model that comes with the extension: a whole package with its card, made of nobody's anatomy."""

from __future__ import annotations

import numpy as np
import pytest
from helping import files

from IncrementalSegLib.benchmarks.starter import main, without_patients
from IncrementalSegLib.cases import read_dataset, read_split
from IncrementalSegLib.cli import main as cli
from IncrementalSegLib.evaluation import dice
from IncrementalSegLib.inference import predict_label_map
from IncrementalSegLib.inversion import memory
from IncrementalSegLib.inversion.bank import MaskBank
from IncrementalSegLib.models.networks import device_named
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.starter import starter_model
from IncrementalSegLib.volumes import to_array

pytestmark = pytest.mark.usefixtures("one_thread")
LARGEST = 12 * 1000 * 1000  # bytes


def test_the_package_is_whole_small_and_has_a_model_card():
    folder = starter_model()
    model = load_model(folder)
    assert {"Liver", "Spleen", "Right kidney", "Left kidney"} <= set(model.organs.names)
    assert max(model.preprocessing.spacing) <= 3.0
    assert sum(len(content) for content in files(folder).values()) <= LARGEST
    card = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    for name in (*model.organs.names, "Not a medical device", "CC BY 4.0", "Limits"):
        assert name in card or name.lower() in card


def test_it_remembers_phantoms_and_no_patient(monkeypatch):
    model = load_model(starter_model())
    bank = MaskBank.from_state(model.memory["masks"])
    monkeypatch.setattr(memory, "ANATOMIES", len(bank.anatomies))  # other tests remember fewer
    again = MaskBank.from_state(without_patients(model).memory["masks"])
    assert len(bank.anatomies) == len(again.anatomies) and "phantom" in bank.source
    for kept, made in zip(bank.anatomies, again.anatomies, strict=True):
        assert np.array_equal(kept.organs, made.organs) and np.array_equal(kept.tissue, made.tissue)


@pytest.mark.real_ct
def test_it_finds_its_organs_in_a_patient_it_never_saw(real_ct_folder):
    folder, model = real_ct_folder / "abdomen_3mm", load_model(starter_model())
    (case,) = read_dataset(folder, model.organs.names, read_split(folder / "split.json", "evaluation")[-1:])
    ct, label = case.read()
    seen, truth = (
        to_array(predict_label_map(model, ct, device_named("cpu"))),
        case.channels(to_array(label), model.organs),
    )
    values = [0, *(organ.label for organ in model.organs)]
    found = {organ.name: dice(seen == organ.label, truth == values.index(organ.label)) for organ in model.organs}
    assert found["Liver"] > 0.85 and min(found[name] for name in ("Spleen", "Right kidney", "Left kidney")) > 0.6, found


def test_the_command_line_calls_it_starter(patients, tmp_path, capsys):
    ct = str(patients / "e_ct.nii.gz")
    assert cli(["predict", "--model", "starter", "--ct", ct, "--out", str(tmp_path / "organs.nii.gz")]) == 0
    assert (tmp_path / "organs.nii.gz").exists()
    assert cli(["predict", "--model", "nobody", "--ct", ct, "--out", str(tmp_path / "x.nii.gz")]) == 2
    assert "starter" in capsys.readouterr().err


def test_the_script_makes_a_package_with_a_card_and_goes_on_where_it_stopped(patients, tmp_path, capsys, monkeypatch):
    command = ["--cases", str(patients), "--out", str(tmp_path), "--organs", "Liver", "Spleen"]
    command += ["--steps", "1", "--device", "cpu"]
    assert main(command) == 0
    card = capsys.readouterr().out
    assert "| Liver |" in card and "1 steps" in card and "on 4 patients" in card
    package = tmp_path / "Abdomen"
    assert "phantom" in load_model(package).memory["masks"]["source"]
    before = files(tmp_path / "trained")
    assert main(command) == 0 and files(tmp_path / "trained") == before
