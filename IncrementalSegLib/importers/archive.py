"""Folders and zip files that somebody sent: opened without leaving the target folder and within limits."""

from __future__ import annotations

import json
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError

MOST_BYTES = 4 * 1024**3  # of all files together, unpacked; the largest public model (TotalSegmentator) has 1.2 GB
MOST_FILES = 10_000
_MOST_JSON_BYTES = 32 * 1024**2
_CHUNK = 1 << 20


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """The folder itself, or that of a zip file unpacked for a while.

    Raises:
        InputError: neither, damaged, too large, or an entry would be written outside of the folder.
    """
    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise InputError(f"{source} does not exist: check the name.")
    if not zipfile.is_zipfile(source):
        raise InputError(f"{source} is neither a folder nor a zip file: give what the other tool exported.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(source) as archive:
                _unpack(archive, folder, source)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
            raise InputError(
                f"{source} is a damaged or protected zip file ({error}): copy or export it again."
            ) from error
        inside = [path for path in folder.iterdir() if path.name != "__MACOSX"]
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _unpack(archive: zipfile.ZipFile, folder: Path, source: Path) -> None:
    """Every entry in its place; the announced sizes are not believed, written bytes are counted."""
    entries, left = archive.infolist(), MOST_BYTES
    if len(entries) > MOST_FILES:
        raise InputError(f"{source} holds {len(entries)} files, more than {MOST_FILES}: this is no model.")
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        link = stat.S_ISLNK(entry.external_attr >> 16)
        if link or path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise InputError(f"{source} holds '{entry.filename}', which leads out of its folder: it was not unpacked.")
        target = folder / path
        if entry.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as packed, target.open("wb") as file:
            while part := packed.read(_CHUNK):
                left -= len(part)
                if left < 0:
                    raise InputError(f"{source} unpacks to more than {MOST_BYTES >> 30} GB: it was not read.")
                file.write(part)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: missing, too large or damaged.
    """
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise InputError(f"{path} is too large for a description of a model: it was not read.")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: give the whole folder of the model.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): copy or export the model again.") from error
