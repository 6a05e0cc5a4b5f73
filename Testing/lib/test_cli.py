"""The command line: every verb, on a tiny data set, with its exit code and what it prints."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helping import SMALL, files
from packages import small_model

from IncrementalSegLib.cli import main
from IncrementalSegLib.models.package import load_model, save_package

pytestmark = pytest.mark.usefixtures("one_thread", "user")
COARSE = ["--spacing", "12", "12", "12"]


def run(*arguments: object) -> int:
    """The exit code of a command line, also where argparse ends it."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)


HELP = {
    "demo": ["--out", "--cases", "--base-organs", "--new-organ"],
    "train": ["--cases", "--organ", "--out", "<case>_ct", "labels.csv"],
    "add-organ": ["--model", "--cases", "--organ", "--out", "--strategy", "--parent"],
    "predict": ["--model", "--ct", "--out", ".nii.gz", "--all-pieces"],
    "evaluate": ["--model", "--old", "--cases", "--out"],
    "synthesize": ["--model", "--out", "--recipe", "grounded", "--cases", "contact sheet"],
    "estimate": ["--model", "--patch", "--device"],
    "run": ["JOB", "job.json", "stdin"],
    "resume": ["JOB", "job.json"],
    "models": ["accept", "revert", "delete"],
}


@pytest.mark.parametrize("verb", HELP)
def test_help_says_what_a_verb_needs_and_how_it_ends(verb, capsys):
    assert run(verb, "--help") == 0
    text = capsys.readouterr().out
    assert not [word for word in HELP[verb] if word not in text]
    assert "130 cancelled" in text


def test_help_names_every_verb_and_needs_neither_torch_nor_monai(worker):
    code = """
import sys
from IncrementalSegLib.cli import main
try:
    main(["--help"])
finally:
    print(not {"torch", "monai"} & sys.modules.keys())
"""
    shown, _ = worker(code=code).communicate()
    assert not [verb for verb in HELP if f"    {verb}" not in shown]
    assert shown.endswith("True\n")


def test_a_verb_without_what_it_needs_is_refused_by_name(capsys):
    assert run("train", "--cases", "x") == 2
    assert "--organ, --out" in capsys.readouterr().err
    assert run() == 2


def test_the_whole_story_on_the_command_line(patients, tmp_path, capsys):
    base, step, split = tmp_path / "base", tmp_path / "step", patients / "split.json"
    parts = ["--cases", patients, "--split", split, "--heldout-part", "evaluation", "--train-part"]
    assert run("train", *parts, "step0", "--organ", "Liver", "spleen", "--out", base, *SMALL, *COARSE) == 0
    assert f"Model: {base / 'model'}" in capsys.readouterr().err
    assert run("add-organ", "--model", base, *parts, "step1", "--organ", "Stomach", "--out", step, *SMALL,
               "--allow-overlap") == 0  # fmt: skip
    report = json.loads((step / "report.json").read_text(encoding="utf-8"))
    assert report["cases"] == {"train": 2, "heldout": 1}

    label_map = tmp_path / "organs.nii.gz"
    assert run("predict", "--model", step, "--ct", patients / "e_ct.nii.gz", "--out", label_map) == 0
    shown = capsys.readouterr().err
    assert re.search(r"  1  Liver: (\d+\.\d mL|not found in this scan)", shown)
    assert f"Written to {label_map}; peak memory" in shown
    ct, predicted = sitk.ReadImage(str(patients / "e_ct.nii.gz")), sitk.ReadImage(str(label_map))
    assert (predicted.GetSize(), predicted.GetSpacing()) == (ct.GetSize(), ct.GetSpacing())
    assert predicted.GetOrigin() == pytest.approx(ct.GetOrigin())
    assert set(np.unique(sitk.GetArrayFromImage(predicted))) <= {0, 1, 2, 3}

    evaluated = tmp_path / "evaluated"
    assert run("evaluate", "--model", step, "--old", base, "--cases", patients, "--split", split, "--part",
               "evaluation", "--out", evaluated) == 0  # fmt: skip
    assert "| Liver | old |" in capsys.readouterr().out
    assert json.loads((evaluated / "report.json").read_text(encoding="utf-8"))["cases"]["heldout"] == 1


def test_the_library_takes_candidates_and_gives_models_by_name(base_job, patients, tmp_path, capsys):
    assert run("models") == 0
    assert capsys.readouterr().out == ""
    assert run("models", "accept", base_job, "abdomen") == 0
    accepted = Path(capsys.readouterr().out.strip())
    assert load_model(accepted).organs.names == ["Liver", "Spleen"]
    assert run("predict", "--model", "abdomen", "--ct", patients / "a_ct.nii.gz", "--out", tmp_path / "o.nrrd") == 0
    assert run("models", "accept", base_job / "model", "abdomen") == 2
    assert "This is version 1 of model 'abdomen' already" in capsys.readouterr().err
    save_package(small_model(), tmp_path / "second")
    assert run("models", "accept", tmp_path / "second", "abdomen") == 0
    capsys.readouterr()
    assert run("models", "list") == 0
    assert re.fullmatch(r"abdomen: \d+\.\d MB; v2 in use of v1, v2; .*v0002\n", capsys.readouterr().out)
    assert run("models", "delete", "abdomen", "2") == 2
    assert "is the current one: revert to another first" in capsys.readouterr().err
    assert run("models", "revert", "abdomen", "1") == 0
    assert run("models", "delete", "abdomen", "2") == 0
    capsys.readouterr()
    assert run("models") == 0
    assert "v1 in use of v1;" in capsys.readouterr().out
    assert run("models", "delete", "abdomen") == 0
    assert run("predict", "--model", "abdomen", "--ct", patients / "a_ct.nii.gz", "--out", tmp_path / "p.nrrd") == 2
    assert "neither a model package nor a model of your library (it has: starter)" in capsys.readouterr().err


def test_one_damaged_model_does_not_hide_the_others_from_the_list(base_job, user, capsys):
    for name in ("abdomen", "pelvis"):
        assert run("models", "accept", base_job, name) == 0
    (user / "models" / "abdomen" / "current.json").write_text("{")
    capsys.readouterr()
    assert run("models") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "is damaged" in first
    assert "v1 in use" in second


def _job(folder: Path, patients: Path, **settings: object) -> Path:
    folder.mkdir()
    shutil.copytree(patients, folder / "cases")
    training = {"steps": 3, "batch": 1, "patch": [32, 32, 32], "device": "cpu"}
    content = {"kind": "train", "cases": "cases", "organs": ["Liver"], "spacing": [12, 12, 12], "heldout": []}
    (folder / "job.json").write_text(json.dumps({**content, "training": training, **settings}))
    return folder


def test_run_does_a_job_folder_once_and_resume_goes_on_with_it(patients, tmp_path, capsys):
    job = _job(tmp_path / "job", patients)
    assert run("run", job) == 0
    assert load_model(job / "model").organs.names == ["Liver"]
    capsys.readouterr()
    assert run("run", job) == 2
    assert f"was begun already: go on with  incrementalseg resume {job}" in capsys.readouterr().err
    assert run("resume", job) == 0
    assert run("run", tmp_path / "nowhere") == 2
    assert "holds no job.json" in capsys.readouterr().err


def test_a_model_is_not_taken_from_a_job_that_is_not_finished(patients, tmp_path, capsys):
    job = _job(tmp_path / "job", patients)
    assert run("predict", "--model", job, "--ct", patients / "a_ct.nii.gz", "--out", tmp_path / "o.nrrd") == 2
    assert "has no finished model: go on with it" in capsys.readouterr().err


def test_json_gives_event_lines_alone_on_stdout_whatever_else_prints_there(patients, tmp_path, worker):
    job = _job(tmp_path / "job", patients)
    noisy = """
import os, sys
from IncrementalSegLib import cli, running
real = running.run_job
def chatty(*arguments, **options):
    print("a library prints this")
    os.write(1, b"and native code this\\n")
    return real(*arguments, **options)
running.run_job = chatty
code = cli.main()
print("after the verb")
sys.exit(code)
"""
    process = worker("run", job, "--json", code=noisy)
    shown, errors = process.communicate()
    assert process.returncode == 0, errors
    *lines, after = shown.splitlines()
    told = [json.loads(line) for line in lines]
    assert told[0] == {"event": "process", "pid": process.pid}
    assert (told[1]["event"], told[-1]["event"]) == ("started", "finished")
    assert any(event["event"] == "progress" and event["phase"] == "train" for event in told)
    assert after == "after the verb"
    assert "a library prints this" in errors
    assert "and native code this" in errors
    assert "\r" not in shown


def test_without_a_terminal_progress_is_plain_lines(patients, tmp_path, worker):
    process = worker("run", _job(tmp_path / "job", patients, training={"steps": 40, "batch": 1, "patch": [32, 32, 32]}))
    _, shown = process.communicate()
    assert process.returncode == 0, shown
    assert "\r" not in shown
    assert "\x1b" not in shown
    lines = [line for line in shown.splitlines() if line.startswith("train")]
    assert 1 <= len(lines) <= 12
    assert "40/40" in lines[-1]


def test_a_fault_of_the_program_is_one_sentence_with_its_traceback_above(patients, tmp_path, monkeypatch, capsys):
    from IncrementalSegLib.training import base as training

    def fault(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(training, "run_loop", fault)
    assert run("run", _job(tmp_path / "job", patients)) == 1
    *above, sentence = capsys.readouterr().err.strip().splitlines()
    assert sentence.startswith("Error: this is a fault of IncrementalSeg (ZeroDivisionError('by zero'))")
    assert any("Traceback" in line for line in above)


def test_ctrl_c_during_a_prediction_ends_it_and_writes_nothing(base_job, patients, tmp_path, monkeypatch, capsys):
    from IncrementalSegLib import inference

    real = inference.body_box

    def interrupted(image: np.ndarray) -> tuple[slice, slice, slice]:
        signal.raise_signal(signal.SIGINT)
        return real(image)

    monkeypatch.setattr(inference, "body_box", interrupted)
    out = tmp_path / "o.nrrd"
    assert run("predict", "--model", base_job, "--ct", patients / "a_ct.nii.gz", "--out", out) == 130
    assert "Cancelled. Nothing was written." in capsys.readouterr().err
    assert list(tmp_path.glob("*.nrrd")) == []


def test_a_prediction_never_overwrites_its_ct_and_refuses_a_name_before_it_computes(base_job, dataset, capsys):
    ct, before = dataset / "a_ct.nii.gz", files(dataset)
    assert run("predict", "--model", base_job, "--ct", ct, "--out", ct) == 2
    assert "is the CT itself" in capsys.readouterr().err
    assert run("predict", "--model", base_job, "--ct", ct, "--out", dataset / "organs.txt") == 2
    assert "choose a name that ends in .nii.gz" in capsys.readouterr().err
    assert files(dataset) == before


def test_a_part_of_a_split_needs_its_file_and_its_name(patients, tmp_path, capsys):
    wanted = ["train", "--cases", patients, "--organ", "Liver", "--out", tmp_path / "job", *SMALL]
    assert run(*wanted, "--train-part", "step0") == 2
    assert "give that file with --split" in capsys.readouterr().err
    assert run(*wanted, "--train-part", "step9", "--split", patients / "split.json") == 2
    assert "has no case list 'step9' (it has step0, step1, evaluation)" in capsys.readouterr().err
    assert not (tmp_path / "job").exists()
