"""The model package: round trip, hash, whole or not at all, nothing about patients."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from packages import SPEC, small_model

from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.errors import StorageError
from IncrementalSegLib.models import package
from IncrementalSegLib.models.package import load_model, package_hash, save_package, verify_package
from IncrementalSegLib.organs import OrganTable
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.training.base import train_base
from IncrementalSegLib.training.config import TrainingConfig
from IncrementalSegLib.training.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_package_loads_as_it_was_saved(tmp_path: Path) -> None:
    model = small_model()
    written = save_package(model, tmp_path / "deep" / "model")
    loaded = load_model(tmp_path / "deep" / "model")
    assert equal(dict(loaded.network.state_dict()), dict(model.network.state_dict()))
    assert loaded.organs == model.organs and loaded.preprocessing == model.preprocessing
    assert loaded.patch == model.patch and loaded.history == model.history and loaded.spec == model.spec
    assert equal(loaded.memory, model.memory)
    assert loaded.hash == written.hash == package_hash(tmp_path / "deep" / "model") != ""
    assert not loaded.network.training
    image = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(loaded.network(image), model.network(image))


def test_a_package_replaces_an_empty_folder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_package(small_model(), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    verify_package(tmp_path / "model")


def test_the_hash_is_the_contents(tmp_path: Path) -> None:
    model = small_model()
    first = save_package(model, tmp_path / "a").hash
    assert save_package(model, tmp_path / "other_name").hash == first
    assert save_package(load_model(tmp_path / "a"), tmp_path / "again").hash == first
    changed = [
        small_model(seed=1),
        replace(model, organs=OrganTable.from_names(["Liver", "Left kidney", "Spleen"])),
        replace(model, patch=(32, 32, 32)),
        replace(model, preprocessing=Preprocessing((2.0, 2.0, 3.1), (-100.0, 250.0))),
        replace(model, history=(*model.history, {"step": 1})),
        replace(model, memory={**model.memory, "statistics": torch.zeros(2, 4)}),
    ]
    hashes = {save_package(other, tmp_path / str(i)).hash for i, other in enumerate(changed)}
    assert len(hashes | {first}) == len(changed) + 1


def test_files_that_others_put_beside_the_package_do_no_harm(tmp_path: Path) -> None:
    saved = tmp_path / "model"
    save_package(small_model(), saved)
    (saved / "eval").mkdir()
    (saved / "eval" / "scan_seg.nii.gz").write_bytes(b"MONAI's default output folder")
    (saved / ".DS_Store").write_bytes(b"")
    torch.save(torch.zeros(1), saved / "memory" / "stranger.pt")
    assert set(load_model(saved).memory) == {"prototypes", "statistics"}


def test_refuses_a_target_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target in ("thesis", "file"):
        with pytest.raises(StorageError, match=f"{target} already holds something"):
            save_package(small_model(), tmp_path / target)
    assert (
        (tmp_path / "thesis" / "chapter.txt").read_text(encoding="utf-8")
        == (tmp_path / "file").read_text(encoding="utf-8")
        == "mine"
    )


@pytest.mark.parametrize("function", ["save_state", "write_json", "write_text"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(package, function, full)
    with pytest.raises(StorageError, match="No space left"):
        save_package(small_model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_inside_the_weights_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: object, file: Any) -> None:
        file.write(b"half of it")
        raise RuntimeError("unexpected pos 640 vs 534")  # what torch says on a full disk

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match=r"model\.pt could not be written"):
        save_package(small_model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_history_names_no_file_and_no_patient(dataset: Path, tmp_path: Path) -> None:
    for path in dataset.glob("a_*"):
        path.rename(path.with_name(path.name.replace("a_", "Mustermann_", 1)))
    description = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    description["cases"][0]["case"] = "Mustermann"
    (dataset / "dataset.json").write_text(json.dumps(description))
    cases = read_dataset(dataset, ["Liver"], ["Mustermann"])
    config = TrainingConfig(steps=1, batch=1, patch=(32, 32, 32), precision="float32", device="cpu")
    workspace = Workspace(tmp_path / "work")
    organs, preprocessing = OrganTable.from_names(["Liver"]), Preprocessing((12.0, 12.0, 12.0))
    model = train_base(cases, organs, config, workspace, spec=SPEC, preprocessing=preprocessing)
    save_package(model, tmp_path / "model")
    record = model.history[0]
    assert record["cases"] == 1 and len(record["data"]) == 64
    for path in (tmp_path / "model").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"Mustermann" not in content and str(dataset).encode() not in content


@pytest.mark.gpu
def test_a_model_on_the_gpu_is_saved_for_any_machine(tmp_path: Path) -> None:
    model = small_model()
    on_cpu = save_package(model, tmp_path / "cpu").hash
    model.network.cuda()
    assert save_package(model, tmp_path / "gpu").hash == on_cpu
    state = torch.load(tmp_path / "gpu" / "models" / "model.pt", weights_only=True)
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
