"""The benchmark: a protocol times strategies, on a tiny data set, with the columns that scripts rely on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helping import files

from IncrementalSegLib.benchmarks import protocol
from IncrementalSegLib.benchmarks.field_of_view import largest_box_without
from IncrementalSegLib.benchmarks.protocol import main
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.phantom import PhantomConfig, write_phantom_cases

pytestmark = pytest.mark.usefixtures("one_thread", "user")
COLUMNS = "protocol,strategy,seed,step,organ,role,dsc,hd95,nsd,cases,seconds,peak_memory_mb"


@pytest.fixture(scope="module")
def small_patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients cut to 20 × 18 × 14 cm, laid out with a split."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_phantom_cases(folder, ["a", "b", "c"], 5, PhantomConfig((20, 18, 14), (10.0, 10.0, 10.0)))
    (folder / "split.json").write_text(json.dumps({"step0": ["a"], "step1": ["b"], "evaluation": ["c"]}))
    return folder


def _command(cases: Path, out: Path, *strategies: str) -> list[str]:
    place = ["--cases", cases, "--out", out, "--protocol", "btcv-4-1", "--device", "cpu"]
    return [*map(str, place), "--base-steps", "1", "--steps", "1", "--strategies", *strategies]


def test_gives_the_table_and_resumes_without_training_again(small_patients, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(protocol, "PROTOCOLS", {"btcv-4-1": [["Liver"], ["Stomach"]]})
    command = _command(small_patients, tmp_path, "base", "fine-tune")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "fine-tune" in shown
    text = (tmp_path / "btcv-4-1.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == COLUMNS
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["strategy"], row["step"], row["organ"], row["role"]) for row in rows] == [
        ("base", "0", "Liver", "old"),
        ("fine-tune", "1", "Liver", "old"),
        ("fine-tune", "1", "Stomach", "new"),
    ]
    assert all(0 <= float(row["dsc"]) <= 1 and float(row["seconds"]) > 0 and row["cases"] == "1" for row in rows)
    for name in ("btcv-4-1.md", "btcv-4-1.png"):
        assert (tmp_path / name).stat().st_size > 0

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(protocol, "train_base", never)
    monkeypatch.setattr(protocol, "update_model", never)
    assert main(command) == 0
    assert (tmp_path / "btcv-4-1.csv").read_text(encoding="utf-8") == text


def test_the_step_learns_from_the_new_organs_alone(small_patients, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "PROTOCOLS", {"btcv-4-1": [["Liver"], ["Stomach"]]})
    seen = {}

    def update(model, cases, organs, *rest: object, **options: object):
        seen["annotated"] = [case.annotated for case in cases]
        seen["names"] = [case.name for case in cases]
        raise protocol.InputError("enough")

    monkeypatch.setattr(protocol, "update_model", update)
    assert main(_command(small_patients, tmp_path, "mib")) == 2
    assert seen == {"annotated": [(protocol.organ_named("Stomach").key,)], "names": ["b"]}
    base = load_model(tmp_path / "btcv-4-1" / "seed0" / "base" / "step0" / "model")
    assert base.organs.names == ["Liver"]


def test_an_organ_can_be_cut_out_of_the_steps_field_of_view(small_patients, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "PROTOCOLS", {"btcv-4-1": [["Liver"], ["Stomach"]]})
    seen = {}

    def update(model, cases, organs, *rest: object, **options: object):
        seen["cases"] = cases
        raise protocol.InputError("enough")

    monkeypatch.setattr(protocol, "update_model", update)
    command = [*_command(small_patients, tmp_path, "mib"), "--without", "Spleen"]
    assert main(command) == 2
    (case,) = seen["cases"]
    whole = next(c for c in protocol.read_dataset(small_patients) if c.name == case.name)
    spleen, stomach = (case.labels.find(protocol.organ_named(name).key).label for name in ("Spleen", "Stomach"))
    (ct, label), (whole_ct, whole_label) = case.read(), whole.read()
    assert np.prod(ct.GetSize()) < np.prod(whole_ct.GetSize())
    found = set(np.unique(protocol.to_array(label)))
    assert spleen not in found and stomach in found and spleen in np.unique(protocol.to_array(whole_label))
    first = whole_ct.TransformPhysicalPointToIndex(ct.GetOrigin())
    there = tuple(slice(a, a + n) for a, n in zip(first, ct.GetSize(), strict=True))
    assert np.array_equal(protocol.to_array(ct), protocol.to_array(whole_ct)[there])
    assert np.array_equal(protocol.to_array(label), protocol.to_array(whole_label)[there])
    assert case.annotated == (protocol.organ_named("Stomach").key,)


def test_runs_with_an_organ_out_of_view_share_the_base_model_and_have_results_of_their_own(
    small_patients, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(protocol, "PROTOCOLS", {"btcv-4-1": [["Liver"], ["Stomach"]]})
    command = _command(small_patients, tmp_path, "base", "fine-tune")
    assert main([*command, "--without", "Spleen"]) == 0
    rows = list(csv.DictReader((tmp_path / "btcv-4-1-without-spleen.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["protocol"] for row in rows} == {"btcv-4-1-without-spleen"} and len(rows) == 3
    base, step = (tmp_path / "btcv-4-1" / "seed0" / "base", tmp_path / "btcv-4-1-without-spleen" / "seed0")
    assert (base / "step0" / "model").exists() and [path.name for path in step.iterdir()] == ["fine-tune"]
    assert main(_command(small_patients, tmp_path, "base")) == 0
    assert "| base |" in capsys.readouterr().out and (tmp_path / "btcv-4-1.csv").exists()


@pytest.mark.parametrize(("organ", "sentence"), [("Spleen", "is not annotated in case 'b'"), ("Liver", "all of case")])
def test_an_organ_that_cannot_be_cut_out_is_refused_before_anything_is_trained(
    small_patients, tmp_path, capsys, organ, sentence
):
    scans = tmp_path / "scans"
    shutil.copytree(small_patients, scans)
    if organ == "Spleen":
        description = json.loads((scans / "dataset.json").read_text())
        description["cases"] = [{"case": "b", "annotated": ["Liver", "Stomach", "Pancreas"]}]
        (scans / "dataset.json").write_text(json.dumps(description))
    else:
        (case,) = protocol.read_dataset(scans, names=["b"])
        sitk.WriteImage(case.read()[1] * 0 + case.labels.find("Liver").label, str(scans / "b_seg.nii.gz"))
    assert main([*_command(scans, tmp_path / "out", "mib"), "--without", organ]) == 2
    assert sentence in capsys.readouterr().err
    assert not files(tmp_path / "out")


def test_the_largest_box_without_an_organ():
    mask = np.zeros((10, 8, 6), bool)
    assert largest_box_without(mask, (1, 1, 1)) == (slice(0, 10), slice(0, 8), slice(0, 6))
    mask[6:8, 2:5, 2] = True
    assert largest_box_without(mask, (1, 1, 1)) == (slice(0, 5), slice(0, 8), slice(0, 6))
    assert largest_box_without(mask, (5, 1, 0)) == (slice(0, 10), slice(0, 8), slice(3, 6))
    mask[:] = True
    assert largest_box_without(mask, (0, 0, 0)) is None


def test_refuses_an_unknown_strategy_before_it_begins(small_patients, tmp_path, capsys):
    assert main(_command(small_patients, tmp_path, "base", "magic")) == 2
    assert "Strategy 'magic' is not known: choose from base, fine-tune" in capsys.readouterr().err
    assert files(tmp_path) == {}


def test_refuses_to_mix_runs_of_other_settings(small_patients, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(protocol, "run_strategy", lambda *_: [])
    monkeypatch.setattr(protocol, "write_benchmark_csv", lambda *_: None)
    monkeypatch.setattr(protocol, "comparison_table", lambda *_: "")
    monkeypatch.setattr(protocol, "plot_strategies", lambda *_: None)
    assert main(_command(small_patients, tmp_path, "base")) == 0
    assert main([*_command(small_patients, tmp_path, "base"), "--device", "auto"]) == 0
    assert main([*_command(small_patients, tmp_path, "base"), "--learning-rate", "1e-4"]) == 2
    assert "holds runs of other settings" in capsys.readouterr().err
    assert main([*_command(small_patients, tmp_path, "base"), "--learning-rate", "1e-4", "--seed", "1"]) == 0
