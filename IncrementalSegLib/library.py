"""The user's models: every accepted version is kept, one of them is current, and any of them can become so again.

::

    <home>/models/<name>/v0001/         a model package, never changed after it was accepted
    <home>/models/<name>/current.json   {"version": 1, "history": [{"version", "action", "when", "who"}]}

A version appears by one rename of a finished, verified copy, and ``current.json`` is replaced in one step. Whatever
changes a model does so under one lock.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from .errors import InputError, PackageError, StorageError
from .lock import locked
from .models.contents import verify_package
from .starter import STARTER
from .storage import move, write_json

_UNFIT = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^\.|[. ]$|^ |^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
_WORKSPACE = ".partial_"
_DAY = 24 * 3600.0


@dataclass(frozen=True)
class Change:
    """One entry of a model's history: a version became current by ``accept`` or ``revert``, when (UTC), by whom."""

    version: int
    action: str
    when: str
    who: str


class ModelLibrary:
    """The models below ``home`` (default: see `default_home`), by name and version.

    ``verify`` looks at a package and raises `PackageError` where it is damaged.
    """

    def __init__(self, home: Path | str | None = None, verify: Callable[[Path], None] | None = None) -> None:
        self.home = Path(home) if home is not None else default_home()
        self._verify = verify or verify_package

    @property
    def _models(self) -> Path:
        return self.home / "models"

    def names(self) -> list[str]:
        """The models' names in alphabetical order."""
        folders = self._models.iterdir() if self._models.is_dir() else ()
        return sorted(folder.name for folder in folders if not _UNFIT.search(folder.name) and _versions(folder))

    def versions(self, name: str) -> list[int]:
        """The versions that are kept, oldest first.

        Raises:
            InputError: there is no such model.
        """
        versions = _versions(self._folder(name))
        if not versions:
            known = ", ".join(self.names()) or "none yet"
            raise InputError(f"There is no model '{name}' in {self.home}: choose one of its models ({known}).")
        return versions

    def history(self, name: str) -> list[Change]:
        """What was accepted and reverted, oldest first; the last one names the current version.

        Raises:
            PackageError: ``current.json`` cannot be read.
        """
        path = self._folder(name) / "current.json"
        try:
            return [Change(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["history"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise PackageError(f"{path} is damaged: delete this file, then choose a version with revert.") from error

    def current_version(self, name: str) -> int:
        """The number of the version in use.

        Raises:
            InputError: there is no such model.
            PackageError: no version was made current, or its folder is gone.
        """
        kept, history = self.versions(name), self.history(name)
        if history and history[-1].version in kept:
            return history[-1].version
        missing = f"version {history[-1].version} of model '{name}' is missing" if history else f"'{name}' has none"
        raise PackageError(f"No current version: {missing}; choose one with revert ({_listed(kept)}).")

    def current(self, name: str) -> Path:
        """The package folder of the version in use; errors as in `current_version`."""
        return self._package(name, self.current_version(name))

    def accept(self, candidate: Path | str, name: str) -> Path:
        """Make a copy of this package the newest and current version of the model, whole or not at all.

        Returns:
            the new version's package folder; the candidate stays as it is.

        Raises:
            InputError: the name is not usable, the candidate is not a folder or is a version of the model already.
            PackageError: the candidate is damaged.
            StorageError: disk full or no permission; the library is as it was.
        """
        candidate = Path(candidate)
        self._folder(name)
        if name == STARTER:
            raise InputError(f"'{STARTER}' is the model that comes with the software: choose another name.")
        if not candidate.is_dir():
            raise InputError(f"{candidate} is not a folder: give the folder of a model package.")
        self._verify(candidate)
        with self._workspace(f"Model '{name}' was not accepted") as workspace:
            copy = workspace / "package"
            shutil.copytree(candidate, copy)
            for folder, _, _ in os.walk(copy):
                os.chmod(folder, 0o755)  # a read-only original must not make a version that cannot be moved or deleted
            self._verify(copy)
            with locked(self.home / ".lock"):
                self._refuse_second(copy, name)
                return self._publish(copy, name)

    def _refuse_second(self, copy: Path, name: str) -> None:
        new = _fingerprint(copy)
        same = [number for number in _versions(self._folder(name)) if new == _fingerprint(self._package(name, number))]
        if new and same:
            raise InputError(f"This is version {same[-1]} of model '{name}' already: it can be made current by revert.")

    def _publish(self, copy: Path, name: str) -> Path:
        used = [0, *_versions(self._folder(name)), *(change.version for change in self.history(name))]
        package = self._package(name, max(used) + 1)
        package.parent.mkdir(parents=True, exist_ok=True)
        move(copy, package)
        try:
            self._record(name, max(used) + 1, "accept")
        except BaseException:
            move(package, copy)
            with suppress(OSError):
                package.parent.rmdir()
            raise
        return package

    def revert(self, name: str, version: int) -> Path:
        """Make a kept version current again and return its package folder.

        Raises:
            InputError: there is no such model or version.
            StorageError: the choice could not be written; the current version is as it was.
        """
        self._require(name, version)
        with self._storing(f"Model '{name}' was not reverted"), locked(self.home / ".lock"):
            self._require(name, version)
            self._record(name, version, "revert")
        return self._package(name, version)

    def delete(self, name: str, version: int | None = None) -> None:
        """Delete one version, or the whole model with all of them.

        Raises:
            InputError: there is no such model or version, or it is the current one.
            StorageError: a file is in use or may not be deleted; nothing was.
        """
        with self._workspace(f"Model '{name}' was not deleted") as workspace, locked(self.home / ".lock"):
            self.versions(name)
            if version is not None:
                self._require(name, version)
                self._refuse_current(name, version)
            doomed = self._folder(name) if version is None else self._package(name, version)
            move(doomed, workspace / "deleted")

    def _refuse_current(self, name: str, version: int) -> None:
        history = self.history(name)
        if history and history[-1].version == version:
            raise InputError(
                f"Version {version} of model '{name}' is the current one: revert to another first, or delete the model."
            )

    def size_mb(self, name: str) -> float:
        """Disk space of all kept versions in MB (10^6 bytes).

        Raises:
            InputError: there is no such model.
        """
        self.versions(name)
        return sum(path.stat().st_size for path in self._folder(name).rglob("*") if path.is_file()) / 1e6

    def _folder(self, name: str) -> Path:
        if not name or len(name) > 100 or _UNFIT.search(name):
            raise InputError(
                f"{name!r} is not a usable model name: take up to 100 letters, digits, spaces, - or _, "
                "beginning with a letter or digit."
            )
        return self._models / name

    def _package(self, name: str, version: int) -> Path:
        return self._folder(name) / f"v{version:04d}"

    def _require(self, name: str, version: int) -> None:
        kept = self.versions(name)
        if version not in kept:
            raise InputError(f"Model '{name}' has no version {version}: choose one of {_listed(kept)}.")

    def _record(self, name: str, version: int, action: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        history = [*self.history(name), Change(version, action, now, _user())]
        content = {"version": version, "history": [asdict(change) for change in history]}
        write_json(self._folder(name) / "current.json", content)

    @contextmanager
    def _workspace(self, failure: str) -> Iterator[Path]:
        """A folder of our own beside the models, gone afterwards; ``OSError`` inside becomes `StorageError`."""
        with self._storing(failure):
            self._sweep()
            workspace = Path(tempfile.mkdtemp(prefix=_WORKSPACE, dir=self._models))
            try:
                yield workspace
            finally:
                shutil.rmtree(workspace, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes that were killed more than a day ago left behind."""
        self._models.mkdir(parents=True, exist_ok=True)
        for left in self._models.glob(f"{_WORKSPACE}*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _DAY:
                    shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _storing(self, failure: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{failure} ({_reason(error)}): free space in {self.home}, close what uses it, "
                "or choose another folder with INCREMENTALSEG_HOME."
            ) from error


def default_home() -> Path:
    """Where the user's models live: ``INCREMENTALSEG_HOME``, else the platform's folder for application data."""
    if chosen := os.environ.get("INCREMENTALSEG_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "IncrementalSeg"


def _versions(folder: Path) -> list[int]:
    return sorted(int(path.name[1:]) for path in folder.glob("v*") if re.fullmatch(r"v\d{4,}", path.name))


def _fingerprint(package: Path) -> bytes:
    """The package's list of checksums, which changes with any file of it; empty where it has none."""
    path = package / "checksums.json"
    return path.read_bytes() if path.exists() else b""


def _listed(versions: list[int]) -> str:
    return "version " + ", ".join(map(str, versions))


def _reason(error: OSError) -> str:
    copying = isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list)
    return str(error.args[0][0][-1]) if copying else error.strerror or str(error)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
