"""The models a user can choose: those of the library, and the starter where there is none."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from IncrementalSegLib.errors import IncrementalSegError, InputError
from IncrementalSegLib.importers.archive import opened
from IncrementalSegLib.library import Change, ModelLibrary
from IncrementalSegLib.models.contents import Contents, read_contents
from IncrementalSegLib.starter import STARTER, starter_model


@dataclass(frozen=True)
class ModelInfo:
    """A model as the panel lists it; ``problem`` says why it cannot be used, ``version`` is 0 for the starter."""

    name: str
    version: int
    folder: Path | None
    contents: Contents | None
    history: tuple[Change, ...] = ()
    problem: str = ""

    @property
    def title(self) -> str:
        """Name, version and number of organs."""
        if self.contents is None:
            return _("{name} (cannot be used)").format(name=self.name)
        version = _("version {number}").format(number=self.version) if self.version else _("comes with the extension")
        count = len(self.contents.organs)
        return _("{name}, {version}, {count} organs").format(name=self.name, version=version, count=count)

    @property
    def date(self) -> str:
        """When the version in use was accepted or reverted to (UTC), by whom."""
        if not self.history:
            return ""
        last = self.history[-1]
        return f"{last.when[:16].replace('T', ' ')} UTC, {last.who}"


class Models:
    """The library as the panel shows it."""

    def __init__(self, library: ModelLibrary | None = None) -> None:
        self.library = library or ModelLibrary()
        self._read: dict[Path, tuple[object, Contents | str]] = {}

    def all(self) -> list[ModelInfo]:
        """Every model of the library, and the starter where it is installed."""
        found = [self.named(name) for name in self.library.names()]
        try:
            return [*found, self._info(STARTER, 0, starter_model())]
        except InputError:
            return found

    def named(self, name: str) -> ModelInfo:
        """One model in its current version; a damaged one says so."""
        try:
            history = tuple(self.library.history(name))
            version = self.library.current_version(name)
            return self._info(name, version, self.library.current(name), history)
        except IncrementalSegError as error:
            return ModelInfo(name, 0, None, None, problem=str(error))

    def _info(self, name: str, version: int, folder: Path, history: tuple[Change, ...] = ()) -> ModelInfo:
        contents = self._contents(folder)
        if isinstance(contents, str):
            return ModelInfo(name, version, folder, None, history, contents)
        return ModelInfo(name, version, folder, contents, history)

    def _contents(self, folder: Path) -> Contents | str:
        """A package's description, or what is wrong with it; read again (and verified) only when a file changed."""
        try:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            stamp = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
            if folder not in self._read or self._read[folder][0] != stamp:
                self._read[folder] = stamp, _described(folder)
            return self._read[folder][1]
        except OSError as error:  # another Slicer deletes it at this moment
            return str(error)

    def nameOf(self, package: Path) -> str:
        """The model of the library that a package folder is a version of, also where it was deleted; else empty."""
        model = package.resolve().parent
        return model.name if model.parent == (self.library.home / "models").resolve() else ""

    def loss(self, name: str, package: Path) -> str:
        """Which organs would go from a model if this package became its version in use; empty where none would.

        Raises:
            PackageError: the package is damaged.
        """
        current, kept = self.named(name), read_contents(package).organs.keys
        organs = current.contents.organs if current.contents else []
        gone = [organ.name for organ in organs if organ.key not in kept]
        if not gone:
            return ""
        text = _(
            "Version {number} of '{name}', now in use, knows organs that this model does not: {organs}. To keep them, "
            "leave version {number} in use and learn again from it, or give another name."
        )
        return text.format(number=current.version, name=name, organs=", ".join(gone))

    @staticmethod
    def isPackage(source: Path) -> bool:
        """Whether a folder or zip file looks like what Export wrote, rather than like a model of another tool."""
        if source.is_dir():
            return (source / "checksums.json").exists()
        if not zipfile.is_zipfile(source):
            return False
        with zipfile.ZipFile(source) as archive:
            return any(Path(name).name == "checksums.json" for name in archive.namelist())

    @staticmethod
    @contextmanager
    def opened(source: Path) -> Iterator[Path]:
        """A package folder, or that of a zip file unpacked for a while.

        Raises:
            InputError: it is damaged, or would be unpacked to somewhere else.
        """
        with opened(source) as folder:
            yield next(iter(sorted(folder.rglob("checksums.json"))), folder / "checksums.json").parent

    @staticmethod
    def zipped(folder: Path, target: Path) -> Path:
        """A model's folder as one zip file."""
        base = str(target)[: -len(".zip")] if target.suffix == ".zip" else str(target)
        return Path(shutil.make_archive(base, "zip", folder))


def _described(folder: Path) -> Contents | str:
    try:
        return read_contents(folder)
    except IncrementalSegError as error:
        return str(error)
