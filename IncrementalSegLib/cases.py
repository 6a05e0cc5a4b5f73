"""Cases: a CT and a label map that says which organs were annotated in it (the rest is unlabelled, not background)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .organs import Organ, OrganTable, organ_named
from .volumes import EXTENSIONS, conform_label_map, read_ct, read_label_map, read_volume


@dataclass(frozen=True)
class Case:
    """One scan of a dataset.

    ``labels`` gives the organ of every label value in ``label``; ``annotated`` holds the keys of the organs that were
    annotated in this scan. A listed organ without voxels is a true negative; an organ not listed is unknown.
    """

    name: str
    ct: Path
    label: Path | None = None
    labels: OrganTable = OrganTable()
    annotated: tuple[str, ...] = ()

    def read(self) -> tuple[sitk.Image, sitk.Image | None]:
        """CT (HU) and label map on the CT's grid.

        Raises:
            InputError: unreadable, not in HU, or the label map is on a grid of another frame.
        """
        ct = read_ct(self.ct)
        if self.label is None:
            return ct, None
        return ct, conform_label_map(read_label_map(self.label), ct, str(self.label), str(self.ct))

    def channels(self, label_values: np.ndarray, table: OrganTable) -> np.ndarray:
        """Label values of any shape as uint8 output channels of ``table``; organs not annotated here become 0.

        A structure inside an organ (a liver's tumour) counts as that organ where the table does not have it.
        """
        lookup = np.zeros(65536, np.uint8)
        for organ in self.labels:
            key = next((key for key in self._outwards(organ) if key in table.keys), "")
            if key in self.annotated:
                lookup[organ.label] = table.channel(key)
        return lookup[label_values]

    def _outwards(self, organ: Organ) -> Iterator[str]:
        """Key of the organ, then of the organ it lies inside, and so on."""
        parents = {inner.key: inner.parent for inner in self.labels}
        key = organ.key
        while key:
            yield key
            key = parents.pop(key, "")

    def restricted(self, keys: Iterable[str]) -> Case:
        """The same case with only these organs counted as annotated."""
        wanted = set(keys)
        return replace(self, annotated=tuple(key for key in self.annotated if key in wanted))

    def fingerprint(self) -> str:
        """SHA-256 over the files' contents, what was annotated and its label values; no path or case name goes in."""
        places = [(organ.label, list(self._outwards(organ))) for organ in self.labels]
        values = sorted(f"{label}={'<'.join(keys)}" for label, keys in places if set(keys) & set(self.annotated))
        digest = hashlib.sha256(" ".join([*sorted(self.annotated), *values]).encode())
        for path in filter(None, (self.ct, self.label)):
            for content in _contents(path):
                digest.update(content)
        return digest.hexdigest()


def _contents(path: Path) -> Iterator[bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    yield from (file.read_bytes() for file in files if file.is_file())
    if path.suffix == ".mhd":  # only a header: the voxels lie in another file
        yield sitk.GetArrayViewFromImage(read_volume(path)).tobytes()


def read_dataset(
    folder: Path | str, organs: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> list[Case]:
    """The cases of a folder: ``<case>_ct.<ext>`` (or a DICOM folder ``<case>_ct``) with ``<case>_seg.<ext>``.

    ``dataset.json`` (``labels``: value to name; optional ``cases``: ``[{case, annotated}]``) or ``labels.csv`` names
    the label values. ``organs`` restricts what counts as annotated, ``names`` which cases are read, in that order.

    Raises:
        InputError: no folder, no case, no label names, an organ or a case that is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds <case>_ct and <case>_seg files.")
    labels, annotated = _label_names(folder)
    wanted = [labels.find(name).key for name in organs] if organs is not None else labels.keys
    stems = _stems(folder) if names is None else list(names)
    if not stems:
        raise InputError(
            f"{folder} holds no case: scans are named <case>_ct.nii.gz with <case>_seg.nii.gz beside them."
        )
    cases = [_case(folder, stem, labels, annotated.get(stem, labels.keys)) for stem in stems]
    return [case.restricted(wanted) for case in cases]


def read_split(path: Path | str, part: str) -> list[str]:
    """The case names under ``part`` of a split file (``{"step0": [...], "evaluation": [...]}``).

    Raises:
        InputError: unreadable or no such part.
    """
    split = _json(Path(path))
    if not isinstance(split.get(part), list):
        raise InputError(f"{path} has no case list '{part}' (it has {', '.join(split)}): name one of these.")
    return [str(name) for name in split[part]]


def require_annotations(cases: Sequence[Case], organs: Iterable[Organ]) -> None:
    """Refuse a training set in which an organ is annotated nowhere or has no voxel in any case.

    Raises:
        InputError: names the organ and the cases.
    """
    for organ in organs:
        holders = [case for case in cases if organ.key in case.annotated and case.label is not None]
        if not holders:
            raise InputError(
                f"'{organ.name}' is annotated in none of the {len(cases)} cases: annotate it or leave it out."
            )
        if not any(_has_voxels(case, organ) for case in holders):
            names = ", ".join(case.name for case in holders[:5])
            raise InputError(
                f"The annotation of '{organ.name}' is empty in all cases ({names}): segment it in at least one."
            )


def _has_voxels(case: Case, organ: Organ) -> bool:
    assert case.label is not None
    values = sitk.GetArrayFromImage(read_label_map(case.label))
    return bool((values == case.labels.find(organ.key).label).any())


def _label_names(folder: Path) -> tuple[OrganTable, dict[str, tuple[str, ...]]]:
    description, table = folder / "dataset.json", folder / "labels.csv"
    if description.exists():
        return _described(_json(description), description)
    if table.exists():
        try:
            return OrganTable.from_csv(table.read_text(encoding="utf-8-sig"), str(table)), {}
        except (OSError, ValueError) as error:
            raise InputError(f"{table} cannot be read ({error}): save it as UTF-8 text.") from error
    if not any(folder.glob("[!.]*_seg*")):  # scans alone, for a teacher to label
        return OrganTable(), {}
    raise InputError(f"{folder} has neither dataset.json nor labels.csv: add one that names the label values.")


def _described(content: dict[str, Any], source: Path) -> tuple[OrganTable, dict[str, tuple[str, ...]]]:
    try:
        names = {int(value): name for value, name in content["labels"].items()}
        listed = {_plain(c["case"]): list(c["annotated"]) for c in content.get("cases", []) if "annotated" in c}
        if not all(isinstance(name, str) for name in names.values()):
            raise TypeError("a label without a name")
        labels = OrganTable(organ_named(name, value) for value, name in names.items() if value != 0)
        return labels, {case: tuple(labels.find(organ).key for organ in organs) for case, organs in listed.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f'{source}: "labels" must map label values to names, as in {{"1": "Liver"}}, and "cases" list case and '
            'annotated, as in [{"case": "a", "annotated": ["Liver"]}].'
        ) from error
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _plain(case: str) -> str:
    if case in ("", "..") or Path(case).name != case or "\\" in case:
        raise InputError(f"Case name '{case}' is not a plain file name: leave folders out of it.")
    return case


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): correct or remove it.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold one JSON object.")
    return content


def _stems(folder: Path) -> list[str]:
    found = {p.name[: -len(f"_ct{e}")] for e in EXTENSIONS for p in folder.glob(f"[!.]*_ct{e}")}
    return sorted(found | {p.name[:-3] for p in folder.glob("[!.]*_ct") if p.is_dir()})


def _file(folder: Path, name: str) -> Path | None:
    candidates = [folder / f"{name}{extension}" for extension in ("", *EXTENSIONS)]
    return next((path for path in candidates if path.exists()), None)


def _case(folder: Path, stem: str, labels: OrganTable, annotated: Sequence[str]) -> Case:
    ct, label = _file(folder, f"{_plain(stem)}_ct"), _file(folder, f"{stem}_seg")
    if ct is None:
        raise InputError(f"{folder} has no scan for case '{stem}': expected {stem}_ct.nii.gz or another 3D format.")
    return Case(stem, ct, label, labels, tuple(annotated) if label else ())
