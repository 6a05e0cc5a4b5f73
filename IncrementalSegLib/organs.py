"""Organs and organ tables: name, label value, SNOMED CT triplets and colour (the Auto3DSeg ``labels.csv`` format).

Organs are the same when their SNOMED CT codes are the same; names count only where there is no code, and then
through aliases (esophagus/oesophagus, right kidney/kidney_right).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from .errors import InputError

_COLUMNS = {
    "category": "SegmentedPropertyCategoryCodeSequence",
    "type": "SegmentedPropertyTypeCodeSequence",
    "modifier": "SegmentedPropertyTypeModifierCodeSequence",
    "region": "AnatomicRegionSequence",
    "region_modifier": "AnatomicRegionModifierSequence",
}
_PARTS = ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
LARGEST_LABEL = 65535


@dataclass(frozen=True)
class Code:
    """A DICOM code triplet: coding scheme (``SCT`` is SNOMED CT), value, meaning."""

    scheme: str
    value: str
    meaning: str


ANATOMICAL_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")
SIDES = {"right": Code("SCT", "24028007", "Right"), "left": Code("SCT", "7771000", "Left")}


@dataclass(frozen=True)
class Organ:
    """One structure a model can segment.

    ``label`` is its value in label maps (0 is background); ``color`` is 8-bit RGB; ``parent`` is the key of the organ
    that this structure lies inside (a tumour's liver), or an empty string.
    """

    name: str
    label: int = 0
    category: Code = ANATOMICAL_STRUCTURE
    type: Code | None = None
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    color: tuple[int, int, int] = (128, 174, 128)
    parent: str = ""

    @property
    def key(self) -> str:
        """What identifies the organ: its SNOMED CT codes (``64033007+24028007``), else its normalised name."""
        codes = (self.type, self.modifier, self.region, self.region_modifier)
        return "+".join(code.value for code in codes if code) if self.type else normalise(self.name)

    @property
    def mirrored_key(self) -> str:
        """Key of the organ that this one becomes in a left-right mirrored body; its own key when unpaired."""
        if self.type:
            return replace(self, modifier=_mirrored(self.modifier), region_modifier=_mirrored(self.region_modifier)).key
        words = {"left": "right", "right": "left"}
        return " ".join(sorted(words.get(word, word) for word in self.key.split()))

    @property
    def mirror_unsure(self) -> bool:
        """Whether the name tells a side that the codes do not, so that nobody knows what its mirror image is."""
        return self.mirrored_key == self.key and not {"left", "right"}.isdisjoint(normalise(self.name).split())


def _mirrored(code: Code | None) -> Code | None:
    other = {SIDES["right"].value: SIDES["left"], SIDES["left"].value: SIDES["right"]}
    return other.get(code.value, code) if code else None


def normalise(name: str) -> str:
    """A name as it is compared: lower case, words in alphabetical order, separators gone."""
    words = "".join(c if c.isalnum() else " " for c in name.lower()).split()
    return " ".join(sorted({"l": "left", "r": "right"}.get(word, word) for word in words))


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Organ]:
    """The organs this software knows by name: normalised name or alias to `Organ` (label 0)."""
    known: dict[str, Organ] = {}
    text = (Path(__file__).parent / "catalogue.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(io.StringIO(text)):
        red, green, blue = (int(part) for part in row["Color"].split())
        organ = Organ(
            row["Name"],
            type=Code("SCT", row["TypeCode"], row["TypeMeaning"]),
            modifier=SIDES.get(row["Side"]),
            color=(red, green, blue),
        )
        for alias in [row["Name"], *filter(None, row["Aliases"].split(";"))]:
            known[normalise(alias)] = organ
    return known


def organ_named(name: str, label: int = 0) -> Organ:
    """The organ of this name or SNOMED key; an unknown name gives an organ without code.

    Raises:
        InputError: the name is empty.
    """
    if not normalise(name):
        raise InputError("An organ without a name was given: name it, for example --organ Pancreas.")
    known = catalogue()
    by_key = {organ.key: organ for organ in known.values()}
    found = known.get(normalise(name)) or by_key.get(name)
    return replace(found, label=label) if found else Organ(name.strip(), label)


class OrganTable:
    """The organs of a model or label map, in channel order (channel 0 is background, organ i is channel i + 1)."""

    def __init__(self, organs: Iterable[Organ] = ()) -> None:
        self.organs = tuple(organs)
        self._refuse_doubles()

    def _refuse_doubles(self) -> None:
        seen: dict[tuple[str, str | int], Organ] = {}
        for organ in self.organs:
            if not 0 < organ.label <= LARGEST_LABEL:
                raise InputError(
                    f"Organ '{organ.name}' has label value {organ.label}: give it one from 1 to {LARGEST_LABEL} "
                    "(0 is background)."
                )
            marks = ("code", organ.key), ("name", normalise(organ.name)), ("label value", organ.label)
            for what, mark in marks:
                if other := seen.get((what, mark)):
                    raise InputError(
                        f"Organs '{other.name}' and '{organ.name}' have the same {what} ({mark}): change one of "
                        "them or keep only one."
                    )
            seen |= dict.fromkeys(marks, organ)

    @classmethod
    def from_names(cls, names: Iterable[str]) -> OrganTable:
        """A table of these organs with label values 1, 2, 3 …"""
        return cls(organ_named(name, label) for label, name in enumerate(names, start=1))

    def __iter__(self) -> Iterator[Organ]:
        return iter(self.organs)

    def __len__(self) -> int:
        return len(self.organs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OrganTable) and self.organs == other.organs

    def __contains__(self, organ: object) -> bool:
        return isinstance(organ, Organ) and organ.key in self.keys

    def __hash__(self) -> int:
        return hash(self.organs)

    @property
    def names(self) -> list[str]:
        """Organ names in channel order."""
        return [organ.name for organ in self.organs]

    @property
    def keys(self) -> list[str]:
        """Organ keys in channel order."""
        return [organ.key for organ in self.organs]

    def find(self, name_or_key: str) -> Organ:
        """The organ of this name, alias or key.

        Raises:
            InputError: the table has no such organ; the sentence lists those it has.
        """
        wanted = {name_or_key, organ_named(name_or_key).key}
        for organ in self.organs:
            if organ.key in wanted or normalise(name_or_key) == normalise(organ.name):
                return organ
        raise InputError(f"Organ '{name_or_key}' is not among {', '.join(self.names) or 'the organs (none)'}.")

    def channel(self, key: str) -> int:
        """Output channel (1..K) of the organ with this key."""
        return self.keys.index(key) + 1

    def extended(self, new: Iterable[Organ]) -> OrganTable:
        """This table with new organs behind the old; a label value that is 0 or taken becomes the next free one."""
        organs = list(self.organs)
        for organ in new:
            taken = {known.label for known in organs}
            label = organ.label if organ.label > 0 and organ.label not in taken else max(taken, default=0) + 1
            organs.append(replace(organ, label=label))
        return OrganTable(organs)

    def parent_channels(self) -> dict[int, int]:
        """Channel of every structure that lies inside another organ, to that organ's channel."""
        return {i: self.channel(o.parent) for i, o in enumerate(self.organs, 1) if o.parent in self.keys}

    def mirror_channels(self) -> list[int] | None:
        """Channel order in the left-right mirrored body (kidneys swapped); None if a partner is missing or unsure."""
        mirrored = [organ.mirrored_key for organ in self.organs]
        if any(key not in self.keys for key in mirrored) or any(organ.mirror_unsure for organ in self.organs):
            return None
        return [0, *(self.channel(key) for key in mirrored)]

    def to_csv(self) -> str:
        """The table as the text of an Auto3DSeg-style ``labels.csv`` (plus ``Color`` and ``Parent`` columns)."""
        out = io.StringIO()
        columns = ["LabelValue", "Name", *(f"{c}.{p}" for c in _COLUMNS.values() for p in _PARTS), "Color", "Parent"]
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        for organ in self.organs:
            row: dict[str, object] = {"LabelValue": organ.label, "Name": organ.name, "Parent": organ.parent}
            row["Color"] = " ".join(map(str, organ.color))
            for field, column in _COLUMNS.items():
                code: Code | None = getattr(organ, field)
                values = (code.scheme, code.value, code.meaning) if code else ("", "", "")
                row |= {f"{column}.{part}": value for part, value in zip(_PARTS, values, strict=True)}
            writer.writerow(row)
        return out.getvalue()

    @classmethod
    def from_csv(cls, text: str, source: str = "labels.csv") -> OrganTable:
        """Read the text of a ``labels.csv``, without the row of the background; ``source`` is the file named in errors.

        Raises:
            InputError: a column is missing or a value cannot be read.
        """
        rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
        if not rows or not {"LabelValue", "Name"} <= rows[0].keys():
            raise InputError(f"{source}: a labels.csv needs the columns LabelValue and Name and at least one organ.")
        try:
            return cls(_organ_from_row(row) for row in rows if int(row["LabelValue"]) != 0)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{source}: a label value or colour is not a number ({error}): correct that row."
            ) from error


def _organ_from_row(row: dict[str, str]) -> Organ:
    codes: dict[str, Code] = {}
    for field, column in _COLUMNS.items():
        scheme, value, meaning = ((row.get(f"{column}.{part}") or "").strip() for part in _PARTS)
        if value:
            codes[field] = Code(scheme, value, meaning)
    known = organ_named(row["Name"] or "", int(row["LabelValue"]))
    if "type" not in codes:
        codes |= {field: code for field in ("type", "modifier") if (code := getattr(known, field))}
    color = row.get("Color") or ""
    red, green, blue = (int(part) for part in color.split()) if color else known.color
    parent = (row.get("Parent") or "").strip()
    if parent and (lies_in := organ_named(parent)).type:
        parent = lies_in.key
    return Organ(row["Name"].strip(), known.label, **codes, color=(red, green, blue), parent=parent)
