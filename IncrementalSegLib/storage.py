"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import StorageError


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, of the same extension, then put it in its place in one step.

    Raises:
        StorageError: disk full or no permission; ``path`` is as it was.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp("".join(path.suffixes[-2:]), ".partial_", path.parent)
        os.close(handle)
        partial = Path(name)
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        move(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{path} could not be written ({reason}): free space or choose another folder.") from error
    finally:
        if partial:
            partial.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, over an existing file; for some seconds where Windows finds it in use.

    Virus scanners and indexers hold what was just written for a moment, and Windows renames nothing that is held.
    """
    for wait in (0.1, 0.2, 0.4, 0.8, 1.6, 0.0):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or not wait:
                raise
            time.sleep(wait)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
