"""What a model package says of its model, and whether it is whole: read without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, PackageError
from ..organs import OrganTable
from ..preprocessing import Preprocessing

FORMAT = 1
_REQUIRED = {"configs/metadata.json", "configs/inference.json", "models/model.pt", "labels.csv", "history.json"}


@dataclass(frozen=True)
class Contents:
    """A package's description; the fields are those of `package.Model`.

    ``network`` holds the arguments of `networks.NetworkSpec`, ``files`` the names of the package's files.
    """

    organs: OrganTable
    network: dict[str, Any]
    preprocessing: Preprocessing
    patch: tuple[int, int, int]
    connected: tuple[str, ...]
    history: tuple[dict[str, Any], ...]
    hash: str
    files: tuple[str, ...]

    @property
    def is_auto3dseg(self) -> bool:
        """Whether MONAIAuto3DSeg can open the model when it is written for it (see `importers.auto3dseg`)."""
        usage = self.network.get("usage") or {}
        return self.network.get("name") == "SegResNetDS" and bool(usage.get("squashed"))

    @property
    def dsc(self) -> dict[str, float]:
        """DSC by organ key as it was last measured on held-out scans; organs that never were are left out."""
        known: dict[str, float] = {}
        for record in self.history:
            metrics = record.get("metrics") or {}
            known |= {key: value for key, value in metrics.items() if isinstance(value, int | float)}
        return known


def read_contents(folder: Path | str) -> Contents:
    """The description of a whole, unchanged package.

    Raises:
        PackageError: not a package, damaged, or newer than this software.
    """
    folder = Path(folder)
    verify_package(folder)
    try:
        ours = _our_metadata(folder)
        organs = OrganTable.from_csv((folder / "labels.csv").read_text(encoding="utf-8"), str(folder / "labels.csv"))
        low, high = map(float, ours["preprocessing"]["window"])
        spacing = _triple(ours["preprocessing"]["spacing"])
        return Contents(
            organs,
            dict(ours["network"]),
            Preprocessing(**{**ours["preprocessing"], "spacing": spacing, "window": (low, high)}),
            _triple(ours["patch"], int),
            tuple(ours.get("connected", ())),
            tuple({**record} for record in _json(folder / "history.json")),
            package_hash(folder),
            tuple(_listed(folder)),
        )
    except (KeyError, TypeError, ValueError, IndexError, InputError) as error:
        raise undescribed(folder, error) from error


def undescribed(folder: Path | str, error: Exception) -> PackageError:
    """What is said of a package whose description makes no model."""
    return PackageError(f"{folder} does not describe a model ({error}): copy the package again.")


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the package by its name, the list itself left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "checksums.json")
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def package_hash(folder: Path | str) -> str:
    """SHA-256 of the package's checksum list: changes with any file of it."""
    return _sha256(Path(folder) / "checksums.json")


def verify_package(folder: Path | str) -> None:
    """Compare every file of the package with its checksum; files that are not the package's are not looked at.

    Raises:
        PackageError: not a package, made by a newer version, or a file is missing or changed.
    """
    folder = Path(folder)
    _our_metadata(folder)
    expected = _listed(folder)
    missing = sorted(name for name in _REQUIRED | expected.keys() if not (folder / name).is_file())
    if missing:
        raise PackageError(f"{folder} is incomplete ({', '.join(missing[:3])} missing): copy the package again.")
    wrong = sorted(name for name in _REQUIRED | expected.keys() if _sha256(folder / name) != expected.get(name))
    if wrong:
        raise PackageError(
            f"{folder}: {', '.join(wrong[:3])} changed since the model was saved: copy the package again."
        )


def _listed(folder: Path) -> dict[str, str]:
    expected = _json(folder / "checksums.json")
    if not isinstance(expected, dict):
        raise PackageError(f"{folder}/checksums.json is damaged: copy the package again.")
    return expected


def _triple(values: Any, kind: Any = float) -> tuple[Any, Any, Any]:
    x, y, z = (kind(value) for value in values)
    return x, y, z


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackageError(f"{path} is missing: this folder is not a complete model package.") from error
    except (OSError, ValueError) as error:
        raise PackageError(f"{path} is damaged ({error}): copy the package again.") from error


def _our_metadata(folder: Path) -> dict[str, Any]:
    ours = _json(folder / "configs" / "metadata.json")
    ours = ours.get("incrementalseg") if isinstance(ours, dict) else None
    if not isinstance(ours, dict) or not isinstance(ours.get("format"), int):
        raise PackageError(f"{folder} is no IncrementalSeg model package: choose a folder made by train or add-organ.")
    if ours["format"] > FORMAT:
        raise PackageError(
            f"{folder} was made by a newer IncrementalSeg (package format {ours['format']}, this one reads {FORMAT}): "
            "update IncrementalSeg."
        )
    return ours
