"""A full disk, a damaged package, an impossible option: one sentence, an exit code, nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helping import add_command, full_disk, train_command

from IncrementalSegLib.cli import main
from IncrementalSegLib.models.package import load_model

pytestmark = pytest.mark.usefixtures("one_thread", "user")


def test_a_disk_that_fills_up_while_the_prediction_is_written(cases, liver_everywhere, tmp_path, refused):
    out = tmp_path / "organs.nii.gz"
    out.write_bytes(b"an earlier prediction")
    with full_disk(100):
        arguments = ["predict", "--model", liver_everywhere, "--ct", cases / "a_ct.nii.gz", "--out", out]
        refused(4, ["organs.nii.gz could not be written", "free space"], *arguments)
    assert out.read_bytes() == b"an earlier prediction"


def test_a_disk_that_fills_up_while_the_model_is_written(cases, tmp_path, refused, monkeypatch):
    from IncrementalSegLib.training import loop

    monkeypatch.setattr(loop._State, "save", lambda state: None)
    with full_disk(1_000_000):
        refused(4, ["model", "could not be written", "free space"], *train_command(cases, tmp_path / "job"))
    assert main(["resume", str(tmp_path / "job")]) == 0
    assert load_model(tmp_path / "job" / "model").organs.names == ["Liver", "Spleen"]


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(cases, tmp_path, refused):
    with full_disk(1_000_000):
        refused(4, ["training.pt could not be written", "free space"], *train_command(cases, tmp_path / "job"))


@pytest.fixture
def package(base_job: Path, tmp_path: Path) -> Path:
    """A copy of a package that the test may spoil, under another name than `model`."""
    return Path(shutil.copytree(base_job / "model", tmp_path / "package"))


def test_a_damaged_package(package, cases, tmp_path, refused):
    weights = (package / "models" / "model.pt").read_bytes()
    (package / "models" / "model.pt").write_bytes(weights[:-1000])
    out = tmp_path / "o.nii.gz"
    predict = ["predict", "--model", package, "--ct", cases / "a_ct.nii.gz", "--out", out]
    refused(3, ["models/model.pt changed since the model was saved", "copy the package again"], *predict)
    refused(3, ["models/model.pt"], *add_command(package, cases, tmp_path / "job"))
    refused(3, ["models/model.pt"], "models", "accept", package, "abdomen")
    assert not out.exists()
    assert not (tmp_path / "job").exists()


def test_a_package_whose_weights_do_not_fit_its_description(package, cases, tmp_path, refused):
    import hashlib

    lines = (package / "labels.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (package / "labels.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    sums = json.loads((package / "checksums.json").read_text(encoding="utf-8"))
    sums["labels.csv"] = hashlib.sha256((package / "labels.csv").read_bytes()).hexdigest()
    (package / "checksums.json").write_text(json.dumps(sums))
    words = ["model.pt does not fit a UNet with 1 organs", "do not belong together"]
    refused(3, words, "predict", "--model", package, "--ct", cases / "a_ct.nii.gz", "--out", tmp_path / "o.nii.gz")


def test_a_folder_that_is_no_package(cases, tmp_path, refused):
    refused(3, ["metadata.json is missing"], *add_command(cases, cases, tmp_path / "job"))


# options


OPTIONS = [
    (["--network", "TransNet"], ["Network 'TransNet' is not known", "SegResNet"]),
    (["--steps", "0"], ["steps 0"]),
    (["--batch", "0"], ["batch 0"]),
    (["--patch", "40"], ["40×40×40", "UNet", "multiples of 16"]),
    (["--patch", "8"], ["32 voxels or more"]),
    (["--patch", "48", "--network", "SwinUNETR"], ["SwinUNETR", "multiples of 32"]),
    (["--learning-rate", "-1"], ["learning rate -1.0", "above 0"]),
    (["--precision", "float16"], ["float16 is for GPUs"]),
    (["--spacing", "3", "0", "3"], ["Spacing"]),
    (["--window", "300", "-100"], ["window"]),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS, ids=lambda value: " ".join(value))
def test_an_option_that_cannot_be_is_refused_before_a_folder_is_made(cases, tmp_path, refused, options, words):
    refused(2, words, *train_command(cases, tmp_path / "job", "Liver", *options))
    assert not (tmp_path / "job").exists()


def test_a_gpu_that_is_not_there(cases, base_job, tmp_path, refused, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["torch sees none", "--device cpu"]
    refused(2, words, *train_command(cases, tmp_path / "job", "Liver", "--device", "cuda"))
    assert not (tmp_path / "job").exists()
    predict = ["predict", "--model", base_job, "--ct", cases / "a_ct.nii.gz", "--out", tmp_path / "o.nii.gz"]
    refused(2, words, *predict, "--device", "cuda")


def test_an_unknown_device(cases, base_job, tmp_path, refused):
    predict = ["predict", "--model", base_job, "--ct", cases / "a_ct.nii.gz", "--out", tmp_path / "o.nii.gz"]
    refused(2, ["'abacus'", "auto"], *predict, "--device", "abacus")


def test_an_unknown_strategy(cases, base_job, tmp_path, refused):
    words = ["Strategy 'magic' is not known", "full"]
    refused(2, words, *add_command(base_job, cases, tmp_path / "job", "Stomach", "--strategy", "magic"))
    assert not (tmp_path / "job").exists()


def test_a_folder_that_holds_a_job_already(cases, base_job, tmp_path, refused):
    out = tmp_path / "job"
    shutil.copytree(base_job, out, ignore=shutil.ignore_patterns("model"))
    before = (out / "job.json").read_bytes()
    refused(2, ["holds a job already", "resume"], *train_command(cases, out))
    assert (out / "job.json").read_bytes() == before
