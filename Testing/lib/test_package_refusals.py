"""Every damaged, foreign, newer or malicious package is refused with one sentence, and nothing in it is executed."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packages import UNET, small_model

from IncrementalSegLib.errors import PackageError
from IncrementalSegLib.models import package
from IncrementalSegLib.models.networks import NetworkSpec, build_network
from IncrementalSegLib.models.package import load_model, save_package
from IncrementalSegLib.organs import OrganTable


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
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content))
    reseal(folder)


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(PackageError) as caught:
        load_model(folder)
    text = str(caught.value)
    assert folder.name in text and "\n" not in text and len(text) < 500
    assert all(word in text for word in words), text


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
        {"connected": ["Appendix"]},
        {"connected": 3},
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
