"""What Windows does otherwise, as far as stand-ins can tell: a clone's line ends, held files, pipes, code pages."""

from __future__ import annotations

import errno
import io
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from IncrementalSegLib import cancel, cli, storage
from IncrementalSegLib.errors import Cancelled, StorageError
from IncrementalSegLib.starter import starter_model
from IncrementalSegLib.stdout import until_nobody_reads
from IncrementalSegLib.storage import write_text

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not ((ROOT / ".git").exists() and shutil.which("git")), reason="this is no clone")
def test_a_clone_leaves_the_line_ends_of_the_starter_model_alone():
    files = [path for path in Path(starter_model()).rglob("*") if path.is_file()]
    asked = subprocess.run(["git", "check-attr", "text", "--", *files], cwd=ROOT, capture_output=True, text=True)
    told = [line.rpartition(": ")[2] for line in asked.stdout.splitlines()]
    assert told == ["unset"] * len(files) and len(files) > 5


def _held(monkeypatch, platform: str, times: int) -> list[float]:
    """A file that is in use for so many tries; the answer notes what was waited."""
    waited: list[float] = []
    real, tries = storage.os.replace, iter([True] * times)

    def replaced(source, target):
        if next(tries, False):
            raise PermissionError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(storage.sys, "platform", platform)
    monkeypatch.setattr(storage.os, "replace", replaced)
    monkeypatch.setattr(storage.time, "sleep", waited.append)
    return waited


def test_a_file_that_a_virus_scanner_holds_for_a_moment_is_written_all_the_same(monkeypatch, tmp_path):
    waited = _held(monkeypatch, "win32", 3)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"
    assert waited == sorted(waited) and len(waited) == 3


@pytest.mark.parametrize(("platform", "tries"), [("win32", 6), ("linux", 1)])
def test_one_that_stays_in_use_or_may_not_be_written_is_a_sentence(monkeypatch, tmp_path, platform, tries):
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    waited = _held(monkeypatch, platform, tries)
    with pytest.raises(StorageError, match=r"a\.txt could not be written"):
        write_text(tmp_path / "a.txt", "new")
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["old"]
    assert len(waited) == tries - 1


def test_the_end_of_stdin_is_seen_without_a_read_that_waits(monkeypatch):
    """A read that waits would hold up the import of numpy's BLAS."""
    answers = iter([(0, 0), (3, 0), (0, 0)])
    read: list[int] = []

    def peek(handle):
        assert handle == "handle of 0"
        try:
            return next(answers)
        except StopIteration:
            raise BrokenPipeError(109, "The pipe has been ended") from None

    monkeypatch.setitem(sys.modules, "_winapi", types.SimpleNamespace(PeekNamedPipe=peek))
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(get_osfhandle="handle of {}".format))
    monkeypatch.setattr(cancel.sys, "platform", "win32")
    monkeypatch.setattr(cancel.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(cancel.os, "read", lambda number, most: read.append(most))
    asked = cancel.threading.Event()
    cancel._await_end_of_stdin(asked)
    assert asked.is_set() and read == [3]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EINVAL])
def test_a_reader_that_is_gone_cancels_however_it_is_told(number):
    def send(event):
        raise OSError(number, "gone")

    with pytest.raises(Cancelled):
        until_nobody_reads(send)({"event": "message"})


def test_another_error_of_the_pipe_is_not_taken_for_its_end():
    def send(event):
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        until_nobody_reads(send)({"event": "message"})


def test_letters_that_the_console_does_not_know_are_no_fault(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(cli, "_VERBS", {name: _print_organ for name in cli._VERBS})
    assert cli.main(["models"]) == 0
    console.flush()
    assert console.buffer.getvalue() == b"? 0.91 \xd7 ?"


def _print_organ(options):
    print("膵 0.91 × →", end="")
