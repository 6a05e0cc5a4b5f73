"""The model package: round trip, hash, refusal of every damaged variant, nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.errors import PackageError, StorageError
from IncrementalSegLib.models import package
from IncrementalSegLib.models.networks import NetworkSpec, build_network
from IncrementalSegLib.models.package import Model, load_model, package_hash, save_package, verify_package
from IncrementalSegLib.organs import Organ, OrganTable
from IncrementalSegLib.training.config import TrainingConfig
from IncrementalSegLib.training.run import Workspace, train_base
from IncrementalSegLib.volumes import Preprocessing

pytestmark = pytest.mark.usefixtures("one_thread")

UNET = {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 0, "norm": "batch"}
SPEC = NetworkSpec("UNet", UNET, 4)


def small_model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    organs = OrganTable.from_names(["Liver", "Right kidney"])
    organs = organs.extended([Organ("Tumour", 300, parent=organs.keys[0])])
    memory = {"prototypes": {"mean": torch.rand(4, 4), "count": [1, 2]}, "statistics": torch.rand(2, 4)}
    history = ({"step": 0, "organs": organs.keys, "parent": "", "metrics": {"dsc": 0.5}},)
    network = build_network(SPEC, len(organs) + 1).eval()
    return Model(network, SPEC, organs, Preprocessing((2.0, 2.0, 3.0), (-100.0, 250.0)), (32, 32, 16), history, memory)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_package(small_model(), tmp_path / "model")
    return tmp_path / "model"


def reseal(folder: Path) -> None:
    """Recompute the checksums, as someone who tampers with a package would."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "checksums.json")
    sums = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (folder / "checksums.json").write_text(json.dumps(sums))


def edit_metadata(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    reseal(folder)


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(PackageError) as caught:
        load_model(folder)
    text = str(caught.value)
    assert folder.name in text and "\n" not in text and len(text) < 500
    assert all(word in text for word in words), text


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


@pytest.mark.parametrize("name", ["models/model.pt", "labels.csv", "history.json", "memory/statistics.pt"])
def test_refuses_a_changed_byte(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    assert_refused(saved, name, "changed")


@pytest.mark.parametrize("resealed", [False, True])
def test_refuses_truncated_weights(saved: Path, resealed: bool) -> None:
    weights = saved / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-2000])
    if resealed:
        reseal(saved)
    assert_refused(saved, "model.pt")


@pytest.mark.parametrize("resealed", [False, True])
@pytest.mark.parametrize("name", ["labels.csv", "models/model.pt", "history.json", "configs/inference.json"])
def test_refuses_a_missing_file(saved: Path, name: str, resealed: bool) -> None:
    (saved / name).unlink()
    if resealed:
        reseal(saved)
    assert_refused(saved, name, "missing")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_refuses_missing_or_useless_checksums(saved: Path, content: str | None) -> None:
    if content is None:
        (saved / "checksums.json").unlink()
    else:
        (saved / "checksums.json").write_text(content)
    with pytest.raises(PackageError, match=r"missing|damaged|changed"):
        load_model(saved)


def test_refuses_a_newer_format_and_says_update(saved: Path) -> None:
    edit_metadata(saved, lambda content: content["incrementalseg"].update(format=package.FORMAT + 1, patch="new"))
    assert_refused(saved, "newer", "update")


def test_refuses_weights_of_another_network(saved: Path) -> None:
    other = build_network(NetworkSpec.preset("UNet"), 4)
    torch.save(other.state_dict(), saved / "models" / "model.pt")
    reseal(saved)
    assert_refused(saved, "does not fit a UNet with 3 organs")


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"head.bias": 5}, {}])
def test_refuses_weights_that_are_no_state_dict(saved: Path, content: object) -> None:
    torch.save(content, saved / "models" / "model.pt")
    reseal(saved)
    assert_refused(saved, "does not fit")


def test_refuses_an_organ_table_of_another_model(saved: Path) -> None:
    (saved / "labels.csv").write_text(OrganTable.from_names(["Liver"]).to_csv())
    reseal(saved)
    assert_refused(saved, "does not fit a UNet with 1 organs")


class Bomb:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["models/model.pt", "memory/statistics.pt"])
@pytest.mark.parametrize("dump", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_never_executes_code_from_a_package(saved: Path, dump: Callable[..., Any], name: str) -> None:
    trace = saved.parent / "executed"
    dump({"head.bias": Bomb(trace)}, saved / name)
    reseal(saved)
    assert_refused(saved, name.split("/")[1], "not loaded")
    assert not trace.exists()
    torch.load(saved / name, weights_only=False) if dump is torch.save else pickle.loads((saved / name).read_bytes())
    assert trace.exists(), "the bomb was none"


@pytest.mark.parametrize("content", ["not JSON", "[]", "{}", '{"incrementalseg": {}}', "\udcff"])
def test_refuses_metadata_that_is_no_description(saved: Path, content: str) -> None:
    (saved / "configs" / "metadata.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    reseal(saved)
    assert_refused(saved)


@pytest.mark.parametrize("key", ["network", "preprocessing", "patch", "format"])
def test_refuses_metadata_that_lacks_a_key(saved: Path, key: str) -> None:
    edit_metadata(saved, lambda content: content["incrementalseg"].pop(key))
    assert_refused(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"patch": [32, 32]},
        {"patch": None},
        {"network": {"name": "Nothing"}},
        {"network": {"name": "UNet", "args": {"spatial_dims": 3}, "features": 4}},
        {"network": {"name": "UNet", "args": {**UNET, "channels": [4]}, "features": 4}},
        {"network": {"title": "UNet"}},
        {"preprocessing": {"spacing": [1, 1, 1], "window": [0]}},
        {"preprocessing": {"spacing": "fine", "window": [0, 1]}},
    ],
)
def test_refuses_metadata_with_nonsense(saved: Path, change: dict[str, Any]) -> None:
    edit_metadata(saved, lambda content: content["incrementalseg"].update(change))
    assert_refused(saved)


@pytest.mark.parametrize("content", [b"LabelValue\n1\n", b"\xff\xfe", b""])
def test_refuses_an_unreadable_organ_table(saved: Path, content: bytes) -> None:
    (saved / "labels.csv").write_bytes(content)
    reseal(saved)
    assert_refused(saved)


def test_refuses_a_history_that_is_none(saved: Path) -> None:
    (saved / "history.json").write_text('["step"]')
    reseal(saved)
    assert_refused(saved)


def test_refuses_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert_refused(tmp_path / "photos", "not a complete model package")
    assert_refused(tmp_path / "absent", "not a complete model package")


def test_refuses_a_bundle_of_someone_else(tmp_path: Path) -> None:
    (tmp_path / "spleen" / "configs").mkdir(parents=True)
    (tmp_path / "spleen" / "configs" / "metadata.json").write_text('{"version": "0.1.0"}')
    assert_refused(tmp_path / "spleen", "no IncrementalSeg model package")


def test_files_that_others_put_beside_the_package_do_no_harm(saved: Path) -> None:
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
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == (tmp_path / "file").read_text() == "mine"


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
    description = json.loads((dataset / "dataset.json").read_text())
    description["cases"][0]["case"] = "Mustermann"
    (dataset / "dataset.json").write_text(json.dumps(description))
    cases = read_dataset(dataset, ["Liver"], ["Mustermann"])
    config = TrainingConfig(steps=1, batch=1, patch=(16, 16, 16), precision="float32", device="cpu")
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
    shutil.rmtree(tmp_path / "work")


@pytest.mark.gpu
def test_a_model_on_the_gpu_is_saved_for_any_machine(tmp_path: Path) -> None:
    model = small_model()
    on_cpu = save_package(model, tmp_path / "cpu").hash
    model.network.cuda()
    assert save_package(model, tmp_path / "gpu").hash == on_cpu
    state = torch.load(tmp_path / "gpu" / "models" / "model.pt", weights_only=True)
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
