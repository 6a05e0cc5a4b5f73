"""TorchScript: predicts and teaches a network of ours, and runs only if it is nothing but a network."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from foreign_models import ORGANS, bundle, inference, metadata, write_json
from helping import TRAINING
from monai.bundle import ckpt_export
from torch import Tensor, nn

import IncrementalSegLib
from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.cli import main
from IncrementalSegLib.errors import InputError, PackageError
from IncrementalSegLib.importers import torchscript
from IncrementalSegLib.importers.reading import import_model
from IncrementalSegLib.importers.torchscript import read_teacher
from IncrementalSegLib.inference import predict_label_map
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.training.config import TrainingConfig

pytestmark = pytest.mark.usefixtures("one_thread")


class ByBrightness(nn.Module):
    """Logits of four classes that are intervals of brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([0.0, 40.0, 80.0, 120.0]).reshape(1, -1, 1, 1, 1))
        self.offsets = nn.Parameter(torch.tensor([0.0, -8.0, -32.0, -68.0]).reshape(1, -1, 1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return image * self.slopes + self.offsets


class Reaching(ByBrightness):
    """The same, and a file that it makes on its way."""

    def forward(self, image: Tensor) -> Tensor:
        reached = torch.from_file("reached.bin", shared=True, size=4)
        return image * self.slopes + self.offsets + reached.sum()


def scripted(network: nn.Module, path: Path, **extra: dict) -> Path:
    """A file as ``ckpt_export`` writes it, with configurations inside where they are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.json": json.dumps(content) for name, content in extra.items()}
    torch.jit.save(torch.jit.script(network.eval()), str(path), _extra_files=files)
    return path


def teaching(path: Path, network: nn.Module | None = None) -> Path:
    return scripted(network or ByBrightness(), path, metadata=metadata(), inference=inference({"_target_": "UNet"}))


@pytest.fixture
def scans(patients: Path, tmp_path: Path) -> Path:
    """Scans without any annotation."""
    (tmp_path / "scans").mkdir()
    for ct in patients.glob("*_ct.*"):
        shutil.copy(ct, tmp_path / "scans")
    return tmp_path / "scans"


@pytest.mark.parametrize("form", ["a file", "a bundle"])
def test_it_predicts_what_the_same_bundle_predicts_from_its_weights(form: str, scans: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    bundle(folder)
    program, weights = folder / "models/model.ts", folder / "models/model.pt"
    configs = {
        "meta_file": str(folder / "configs/metadata.json"),
        "config_file": str(folder / "configs/inference.json"),
    }
    ckpt_export(net_id="network_def", filepath=str(program), ckpt_file=str(weights), **configs)
    model = import_model(folder)
    weights.unlink()
    teacher = read_teacher(program if form == "a file" else folder)
    image = torch.rand(1, 1, 48, 48, 48) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(teacher.network(image), model.network(image), atol=1e-5)
    ct = read_dataset(scans)[0].read()[0]
    ours, theirs = (sitk.GetArrayFromImage(predict_label_map(m, ct, torch.device("cpu"))) for m in (model, teacher))
    assert np.array_equal(ours, theirs) and len(np.unique(ours)) == 1 + len(ORGANS)
    assert teacher.history[0]["source"]["tool"] == "TorchScript"


def test_a_student_learns_it_from_bare_scans_and_can_grow(scans: Path, patients: Path, tmp_path: Path, capsys) -> None:
    teacher = teaching(tmp_path / "model.ts")
    options = ["--steps", "60", "--patch", "32", "--learning-rate", "0.02", "--device", "cpu", "--threads", "1"]
    out = tmp_path / "student"
    assert main(["distill", "--teacher", str(teacher), "--cases", str(scans), "--out", str(out), *options]) == 0
    student, model = load_model(out / "model"), read_teacher(teacher)
    assert student.spec.name == "UNet" and student.organs == model.organs
    assert student.preprocessing == model.preprocessing
    assert student.history[0]["strategy"] == "distilled" and student.history[0]["source"]["licence"] == "Apache-2.0"
    lines = json.loads((out / "report.json").read_text())["organs"]
    assert [line["role"] for line in lines] == ["old"] * 3
    assert min(line["agreement"] for line in lines[:2]) > 0.5  # the third, bone, is rare: 60 steps are few
    step = TrainingConfig().with_settings(TRAINING)
    grown = IncrementalSegLib.add_organ(student, patients, ["Stomach"], tmp_path / "grown", training=step)
    assert grown.organs.names == [*student.organs.names, "Stomach"]


def test_a_student_that_was_stopped_goes_on(scans: Path, tmp_path: Path) -> None:
    told: list[dict] = []
    teacher, out = teaching(tmp_path / "model.ts"), tmp_path / "student"
    short = TrainingConfig().with_settings(TRAINING)

    def training() -> bool:
        return any(event.get("phase") == "train" for event in told)

    with pytest.raises(IncrementalSegLib.errors.Cancelled):
        IncrementalSegLib.distill(teacher, scans, out, training=short, sinks=[told.append], cancelled=training)
    assert not (out / "model").exists()
    assert main(["resume", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["strategy"] == "distilled" and (out / "model").exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: teaching(path, Reaching()), "calls torch.from_file"),
        (lambda path: scripted(ByBrightness(), path), "does not say how its scans were prepared"),
        (lambda path: teaching(path, nn.Sequential(ByBrightness(), nn.Conv3d(4, 2, 1))), "not 4 classes"),
        (lambda path: teaching(path, nn.Conv3d(2, 4, 1)), "cannot be run on a patch"),
    ],
)
def test_what_is_no_teacher_is_refused_before_it_is_run(
    spoil: Callable[[Path], Path], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        read_teacher(spoil(tmp_path / "model.ts"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.ts"]


def test_a_truncated_or_huge_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = teaching(tmp_path / "model.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PackageError, match="damaged"):
        read_teacher(tmp_path / "cut.ts")
    monkeypatch.setattr(torchscript, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="larger than any network"):
        read_teacher(tmp_path / "model.ts")


def spoiled(whole: bytes, rng: random.Random) -> bytes:
    """The same program with some bytes of one of its entries changed, cut out or put in."""
    with zipfile.ZipFile(BytesIO(whole)) as archive:
        entries = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    content = entries[rng.choice([name for name, content in entries.items() if content])]
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(content) or 1)
        content[place : place + rng.choice((0, 1, 8))] = rng.randbytes(rng.choice((0, 1, 4)))
    with zipfile.ZipFile(packed := BytesIO(), "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, bytes(content))
    return packed.getvalue()


@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_spoiled_program_is_a_teacher_or_a_sentence(tmp_path: Path, count: int) -> None:
    whole, rng = teaching(tmp_path / "model.ts").read_bytes(), random.Random(count)
    for _ in range(count):
        (tmp_path / "spoiled.ts").write_bytes(spoiled(whole, rng))
        with suppress(InputError, PackageError):
            read_teacher(tmp_path / "spoiled.ts")


def test_what_cannot_be_taught_is_said_before_the_training(scans: Path, tmp_path: Path, capsys) -> None:
    network = ByBrightness()
    network.offsets.data[0, 3] = -1000.0
    blind = teaching(tmp_path / "model.ts", network)
    order = ["distill", "--teacher", str(blind), "--cases", str(scans), "--out", str(tmp_path / "out")]
    assert main([*order, "--device", "cpu", "--patch", "32", "--steps", "1"]) == 2
    assert "finds no Right kidney" in capsys.readouterr().err and not (tmp_path / "out/model").exists()
    write_json(tmp_path / "bundle/configs/metadata.json", metadata())
    assert main(["distill", "--teacher", str(tmp_path / "bundle"), *order[3:-1], str(tmp_path / "b")]) == 2
    assert "holds no TorchScript" in capsys.readouterr().err and not (tmp_path / "b").exists()
