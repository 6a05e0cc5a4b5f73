"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from IncrementalSegLib import storage
from IncrementalSegLib.errors import StorageError
from IncrementalSegLib.storage import write_atomically, write_json, write_text

REPOSITORY = Path(storage.__file__).parents[1]
# A process that may write files of 10 kB at most, as on a disk with so much space left.
NO_SPACE = """
import resource, signal, sys
from pathlib import Path
from IncrementalSegLib.errors import StorageError
from IncrementalSegLib.storage import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
write_text(Path(sys.argv[1]).with_name("small.txt"), "fits")
try:
    write_text(Path(sys.argv[1]), "x" * 20_000)
except StorageError as error:
    print(error)
"""


def test_text_is_written_as_utf8_with_unix_line_ends_into_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "notes.md"
    write_text(path, "Öse\nzwei × drei\n")
    assert path.read_bytes() == "Öse\nzwei × drei\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for text in ("long text of the first version", "second"):
        write_text(tmp_path / "notes", text)
    assert (tmp_path / "notes").read_text(encoding="utf-8") == "second"


def test_json_is_readable_by_people_and_ends_in_a_newline(tmp_path: Path) -> None:
    content = {"organ": "Œsophage", "dsc": [0.5, None]}
    write_json(tmp_path / "report.json", content)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "Œsophage" in text
    assert text.endswith("}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits on Windows")
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "the old report")
    command = [sys.executable, "-c", NO_SPACE, str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path} could not be written (File too large): free space")
    assert path.read_text(encoding="utf-8") == "the old report"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.json", "small.txt"]


@pytest.mark.parametrize(
    "failure",
    [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0"), PermissionError(13, "Denied")],
)
def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path: Path, failure: Exception) -> None:
    path = tmp_path / "model.pt"
    path.write_text("old")

    def half(partial: Path) -> None:
        partial.write_text("half")
        raise failure

    with pytest.raises(StorageError, match=r"model\.pt could not be written .*: free space or choose another folder"):
        write_atomically(path, half)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_writer_is_an_interruption_and_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(partial: Path) -> None:
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "model.pt", interrupted)
    assert not list(tmp_path.iterdir())


def test_a_failing_last_step_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_writer_sees_the_old_file_until_it_has_finished_and_an_extension_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_text("old")
    seen = []

    def write(partial: Path) -> None:
        seen.append((partial.parent, "".join(partial.suffixes), path.read_text(encoding="utf-8")))
        partial.write_text("new")

    write_atomically(path, write)
    assert seen == [(tmp_path, ".nii.gz", "old")]
    assert path.read_text(encoding="utf-8") == "new"


def test_refuses_to_write_where_a_folder_or_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "folder", tmp_path / "file" / "report.json"):
        with pytest.raises(StorageError, match="could not be written"):
            write_text(path, "text")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]
