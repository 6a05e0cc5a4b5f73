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

from IncrementalSegLib.benchmarks import benchmark, runs
from IncrementalSegLib.benchmarks.benchmark import main
from IncrementalSegLib.benchmarks.field_of_view import largest_box_without
from IncrementalSegLib.benchmarks.protocols import Protocol, Step
from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.cli import main as cli
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.organs import organ_named
from IncrementalSegLib.phantom import PhantomConfig, write_phantom_cases
from IncrementalSegLib.volumes import to_array

pytestmark = pytest.mark.usefixtures("one_thread", "user")
SHORT = Protocol("btcv-4-1", (Step(("Liver",), "btcv", "step0"), Step(("Stomach",), "btcv", "step1")), ("btcv",))
COLUMNS = "protocol,strategy,seed,step,organ,role,dsc,hd95,nsd,cases,seconds,peak_memory_mb"


@pytest.fixture(scope="module")
def small_patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients cut to 20 × 18 × 14 cm, laid out with a split."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_phantom_cases(folder, ["a", "b", "c"], 5, PhantomConfig((20, 18, 14), (10.0, 10.0, 10.0)))
    (folder / "split.json").write_text(json.dumps({"step0": ["a"], "step1": ["b"], "evaluation": ["c"]}))
    return folder


@pytest.fixture(autouse=True)
def _short_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmark.PROTOCOLS, "btcv-4-1", SHORT)


def _command(cases: Path, out: Path, *strategies: str) -> list[str]:
    place = ["--cases", cases, "--out", out, "--protocol", "btcv-4-1", "--device", "cpu"]
    return [*map(str, place), "--base-steps", "1", "--steps", "1", "--strategies", *strategies]


def test_gives_the_table_and_resumes_without_training_again(small_patients, tmp_path, capsys, monkeypatch):
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
    cases = (tmp_path / "btcv-4-1-cases.csv").read_text(encoding="utf-8").splitlines()
    assert cases[0] == "protocol,strategy,seed,step,organ,case,dsc,hd95,nsd" and len(cases) == 4
    for name in ("btcv-4-1.md", "btcv-4-1.png", "btcv-4-1-steps.png", "btcv-4-1-planes.png"):
        assert (tmp_path / name).stat().st_size > 0

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(runs, "train_base", never)
    monkeypatch.setattr(runs, "update_model", never)
    assert main(command) == 0
    assert (tmp_path / "btcv-4-1.csv").read_text(encoding="utf-8") == text


def test_the_step_learns_from_the_new_organs_alone(small_patients, tmp_path, monkeypatch):
    seen = {}

    def update(model, cases, organs, *rest: object, **options: object):
        seen["annotated"] = [case.annotated for case in cases]
        seen["names"] = [case.name for case in cases]
        raise InputError("enough")

    monkeypatch.setattr(runs, "update_model", update)
    assert main(_command(small_patients, tmp_path, "mib")) == 2
    assert seen == {"annotated": [(organ_named("Stomach").key,)], "names": ["b"]}
    base = load_model(tmp_path / "btcv-4-1" / "seed0" / "base" / "step0" / "model")
    assert base.organs.names == ["Liver"]


def test_an_organ_can_be_cut_out_of_the_steps_field_of_view(small_patients, tmp_path, monkeypatch):
    seen = {}

    def update(model, cases, organs, *rest: object, **options: object):
        seen["cases"] = cases
        raise InputError("enough")

    monkeypatch.setattr(runs, "update_model", update)
    command = [*_command(small_patients, tmp_path, "mib"), "--without", "Spleen"]
    assert main(command) == 2
    (case,) = seen["cases"]
    whole = next(c for c in read_dataset(small_patients) if c.name == case.name)
    spleen, stomach = (case.labels.find(organ_named(name).key).label for name in ("Spleen", "Stomach"))
    (ct, label), (whole_ct, whole_label) = case.read(), whole.read()
    assert np.prod(ct.GetSize()) < np.prod(whole_ct.GetSize())
    found = set(np.unique(to_array(label)))
    assert spleen not in found and stomach in found and spleen in np.unique(to_array(whole_label))
    first = whole_ct.TransformPhysicalPointToIndex(ct.GetOrigin())
    there = tuple(slice(a, a + n) for a, n in zip(first, ct.GetSize(), strict=True))
    assert np.array_equal(to_array(ct), to_array(whole_ct)[there])
    assert np.array_equal(to_array(label), to_array(whole_label)[there])
    assert case.annotated == (organ_named("Stomach").key,)


def test_runs_with_an_organ_out_of_view_share_the_base_model_and_have_results_of_their_own(
    small_patients, tmp_path, capsys, monkeypatch
):
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
        (case,) = read_dataset(scans, names=["b"])
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
    assert "Strategy 'magic' is not known: choose one of fine-tune" in capsys.readouterr().err
    assert files(tmp_path) == {}


def test_refuses_to_mix_runs_of_other_settings(small_patients, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "run_strategy", lambda *_: None)
    for step in ("write_benchmark_csv", "write_case_csv", "plot_strategies", "plot_steps", "plot_predictions"):
        monkeypatch.setattr(benchmark, step, lambda *_: None)
    monkeypatch.setattr(benchmark, "benchmark_report", lambda *_: "")
    assert main(_command(small_patients, tmp_path, "base")) == 0
    assert main([*_command(small_patients, tmp_path, "base"), "--device", "auto"]) == 0
    assert main([*_command(small_patients, tmp_path, "base"), "--learning-rate", "1e-4"]) == 2
    assert "holds runs of other settings" in capsys.readouterr().err
    assert main([*_command(small_patients, tmp_path, "base"), "--learning-rate", "1e-4", "--seeds", "1"]) == 0


def test_the_tables_are_of_all_runs_in_the_folder(small_patients, tmp_path, capsys):
    assert main(_command(small_patients, tmp_path, "base", "fine-tune")) == 0
    assert main([*_command(small_patients, tmp_path, "base"), "--seeds", "1"]) == 0
    rows = list(csv.DictReader((tmp_path / "btcv-4-1.csv").read_text(encoding="utf-8").splitlines()))
    assert {(row["strategy"], row["seed"]) for row in rows} == {("base", "0"), ("fine-tune", "0"), ("base", "1")}
    assert "| fine-tune | " in capsys.readouterr().out.split("HD95")[-1]


def test_another_split_is_another_benchmark(small_patients, tmp_path, capsys):
    assert main(_command(small_patients, tmp_path / "out", "base")) == 0
    other = tmp_path / "split.json"
    other.write_text(json.dumps({"step0": ["a"], "step1": ["c"], "evaluation": ["b"]}))
    assert main([*_command(small_patients, tmp_path / "out", "base"), "--split", str(other)]) == 2
    assert "holds runs of other settings" in capsys.readouterr().err


def test_every_seed_has_a_base_model_of_its_own_and_references_train_as_long_as_the_sequence(
    small_patients, tmp_path, monkeypatch
):
    trained = []
    real = runs.train_base

    def train(cases, organs, config, workspace, **options):
        trained.append((options["strategy"], organs.names, [case.name for case in cases], config.steps, config.seed))
        return real(cases, organs, config, workspace, **options)

    monkeypatch.setattr(runs, "train_base", train)
    command = _command(small_patients, tmp_path, "base", "joint", "specialist")
    assert main([*command, "--seeds", "0", "3", "--steps", "2"]) == 0
    per_seed = [("base", ["Liver"], ["a"], 1), ("joint", ["Liver", "Stomach"], ["a", "b"], 3)]
    per_seed.append(("specialist", ["Stomach"], ["b"], 3))
    assert trained == [(*run, seed) for seed in (0, 3) for run in per_seed]
    rows = list(csv.DictReader((tmp_path / "btcv-4-1.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["seed"] for row in rows} == {"0", "3"}
    report = (tmp_path / "btcv-4-1.md").read_text(encoding="utf-8")
    assert "| specialist | " in report and "HD95 (mm)" in report


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["btcv=A", "B"], "Name the folder of every archive: --cases btcv=DIR"),
        (["word=A"], "Protocol 'btcv-4-1' has no archive 'word': it needs btcv"),
        (["missing"], "missing"),
    ],
)
def test_refuses_folders_that_the_protocol_has_no_use_for(tmp_path, capsys, given, sentence):
    assert main(["--protocol", "btcv-4-1", "--out", str(tmp_path), "--cases", *given]) == 2
    assert sentence in capsys.readouterr().err


def test_the_command_line_has_the_benchmark(small_patients, tmp_path, capsys):
    assert cli(["benchmark", *_command(small_patients, tmp_path, "base")]) == 0
    assert "| base |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli(["benchmark", "--help"])
    assert "full-without-fusion" in capsys.readouterr().out
