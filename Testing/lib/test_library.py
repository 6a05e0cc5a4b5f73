"""The user's models: accepted whole or not at all, every version kept, safe with two processes at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from IncrementalSegLib import library
from IncrementalSegLib.errors import InputError, PackageError, StorageError
from IncrementalSegLib.library import ModelLibrary, default_home


def _complete(package: Path) -> None:
    if not (package / "models" / "model.pt").is_file():
        raise PackageError(f"{package} has no models/model.pt: copy the package again.")


def _package(folder: Path, weights: str = "weights") -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "model.pt").write_text(weights)
    (folder / "labels.csv").write_text("LabelValue,Name\n1,Liver\n")
    return folder


def _tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    return _package(tmp_path / "candidate")


@pytest.fixture
def models(tmp_path: Path) -> ModelLibrary:
    return ModelLibrary(tmp_path / "home", verify=_complete)


def _nothing_half_written(models: ModelLibrary) -> bool:
    return not list((models.home / "models").glob(".partial_*")) and not list(models.home.rglob(".partial_*"))


def test_an_accepted_candidate_is_the_current_version_and_stays_where_it_was(models, candidate):
    before = _tree(candidate)
    package = models.accept(candidate, "Abdomen CT 3 mm")
    assert package == models.current("Abdomen CT 3 mm") == models.home / "models" / "Abdomen CT 3 mm" / "v0001"
    assert _tree(package) == before == _tree(candidate)
    assert models.names() == ["Abdomen CT 3 mm"]
    assert _nothing_half_written(models)


def test_every_version_is_kept_and_an_older_one_can_be_current_again(models, candidate):
    first, second = models.accept(candidate, "Abdomen"), models.accept(candidate, "Abdomen")
    assert models.current("Abdomen") == second
    assert models.revert("Abdomen", 1) == models.current("Abdomen") == first
    assert models.versions("Abdomen") == [1, 2]
    written = json.loads((models.home / "models" / "Abdomen" / "current.json").read_text(encoding="utf-8"))
    assert written["version"] == 1
    assert [(entry["version"], entry["action"]) for entry in written["history"]] == [
        (1, "accept"),
        (2, "accept"),
        (1, "revert"),
    ]
    assert all(entry["who"] and entry["when"].endswith("+00:00") for entry in written["history"])


def test_a_deleted_version_number_is_not_given_again(models, candidate):
    models.accept(candidate, "Abdomen")
    models.accept(candidate, "Abdomen")
    models.revert("Abdomen", 1)
    models.delete("Abdomen", 2)
    assert models.accept(candidate, "Abdomen").name == "v0003"
    assert models.versions("Abdomen") == [1, 3]


def test_refuses_to_delete_the_current_version_but_deletes_the_whole_model(models, candidate):
    models.accept(candidate, "Abdomen")
    with pytest.raises(InputError, match="Version 1 of model 'Abdomen' is the current one: revert"):
        models.delete("Abdomen", 1)
    assert models.versions("Abdomen") == [1]
    models.delete("Abdomen")
    assert models.names() == []
    assert not (models.home / "models" / "Abdomen").exists()
    assert _nothing_half_written(models)


def test_tells_the_disk_space_of_all_versions(models, tmp_path):
    large = _package(tmp_path / "large", weights="x" * 500_000)
    models.accept(large, "Abdomen")
    one = models.size_mb("Abdomen")
    models.accept(large, "Abdomen")
    assert one == pytest.approx(0.5, abs=0.01)
    assert models.size_mb("Abdomen") == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "name",
    ["", "..", ".hidden", "a/b", "a\\b", "../other", "C:", "con", "nul.x", "end.", "end ", "line\nbreak", "x" * 101],
)
def test_refuses_a_name_that_is_no_plain_folder_name(models, candidate, name):
    for use in (lambda: models.accept(candidate, name), lambda: models.current(name), lambda: models.delete(name)):
        with pytest.raises(InputError, match="not a usable model name"):
            use()


def test_refuses_an_unknown_model_or_version_and_lists_those_there_are(models, candidate):
    models.accept(candidate, "Abdomen")
    with pytest.raises(InputError, match=r"no model 'Thorax' .*\(Abdomen\)"):
        models.current("Thorax")
    with pytest.raises(InputError, match="no version 7: choose one of version 1"):
        models.revert("Abdomen", 7)
    with pytest.raises(InputError, match="no version 7"):
        models.delete("Abdomen", 7)


def test_refuses_a_candidate_that_is_damaged_or_no_folder(models, candidate, tmp_path):
    (candidate / "models" / "model.pt").unlink()
    with pytest.raises(PackageError, match="candidate has no models"):
        models.accept(candidate, "Abdomen")
    with pytest.raises(InputError, match="is not a folder"):
        models.accept(tmp_path / "missing", "Abdomen")
    assert models.names() == []


def test_refuses_a_copy_that_was_damaged_on_its_way(models, candidate, monkeypatch):
    def lossy(source, target, **options):
        return target if Path(source).name == "model.pt" else real(source, target, **options)

    real = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lossy)
    monkeypatch.setattr(shutil, "copystat", lambda *args, **options: None)
    with pytest.raises(PackageError):
        models.accept(candidate, "Abdomen")
    assert models.names() == [] and _nothing_half_written(models)


def test_a_full_disk_while_copying_leaves_the_library_as_it_was(models, candidate, monkeypatch):
    models.accept(candidate, "Abdomen")
    before = _tree(models.home)

    def no_space(source, target, **options):
        Path(target).write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(StorageError, match=r"'Abdomen' was not accepted \(.*No space left on device\): free space"):
        models.accept(candidate, "Abdomen")
    assert _tree(models.home) == before
    assert _nothing_half_written(models)


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_full_disk_while_recording_the_version_takes_it_back(models, candidate, monkeypatch, accepted):
    for _ in range(accepted):
        models.accept(candidate, "Abdomen")
    before = _tree(models.home / "models")

    def no_space(path, content):
        raise StorageError(f"{path} could not be written: free space.")

    monkeypatch.setattr(library, "write_json", no_space)
    with pytest.raises(StorageError, match="free space"):
        models.accept(candidate, "Abdomen")
    assert _tree(models.home / "models") == before
    assert models.names() == ["Abdomen"][:accepted]
    assert _nothing_half_written(models)


def test_a_damaged_current_file_is_named_and_no_history_is_overwritten(models, candidate):
    models.accept(candidate, "Abdomen")
    damaged = models.home / "models" / "Abdomen" / "current.json"
    damaged.write_text("{")
    for use in (
        lambda: models.current("Abdomen"),
        lambda: models.accept(candidate, "Abdomen"),
        lambda: models.revert("Abdomen", 1),
    ):
        with pytest.raises(PackageError, match=r"current\.json is damaged: delete this file"):
            use()
    assert models.versions("Abdomen") == [1] and damaged.read_text(encoding="utf-8") == "{"
    damaged.unlink()
    with pytest.raises(PackageError, match=r"No current version.*revert \(version 1\)"):
        models.current("Abdomen")
    assert models.revert("Abdomen", 1) == models.current("Abdomen")


def test_what_a_killed_process_left_is_removed_after_a_day_and_not_before(models, candidate):
    models.accept(candidate, "Abdomen")
    old, running = (models.home / "models" / f".partial_{name}" for name in ("old", "running"))
    for folder in (old, running):
        _package(folder)
    os.utime(old, (0, 0))
    models.accept(candidate, "Abdomen")
    assert not old.exists() and running.exists()
    assert models.names() == ["Abdomen"]


def test_the_same_package_is_not_accepted_twice_also_where_another_version_is_in_use(models, candidate, tmp_path):
    (candidate / "checksums.json").write_text("{}")
    models.accept(candidate, "Abdomen")
    (changed := _package(tmp_path / "changed", "more") / "checksums.json").write_text('{"a": "b"}')
    models.accept(changed.parent, "Abdomen")
    with pytest.raises(InputError, match="version 1 of model 'Abdomen' already: it can be made current by revert"):
        models.accept(candidate, "Abdomen")
    assert models.versions("Abdomen") == [1, 2] and models.current_version("Abdomen") == 2
    assert _nothing_half_written(models)
    assert models.accept(candidate, "Copy").name == "v0001"


def test_the_starter_models_name_is_taken(models, candidate):
    with pytest.raises(InputError, match="'starter' is the model that comes with"):
        models.accept(candidate, "starter")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX default folders")
def test_the_default_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("INCREMENTALSEG_HOME", str(tmp_path / "mine"))
    assert default_home() == tmp_path / "mine" == ModelLibrary().home
    monkeypatch.delenv("INCREMENTALSEG_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_home() == tmp_path / "data" / "IncrementalSeg"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home() == tmp_path / ".local" / "share" / "IncrementalSeg"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_home() == tmp_path / "Library" / "Application Support" / "IncrementalSeg"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert default_home() == tmp_path / "local" / "IncrementalSeg"
