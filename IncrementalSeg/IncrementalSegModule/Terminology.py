"""Organs out of Slicer's terminologies (SNOMED CT), and on segments."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import slicer
import vtk
from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import Code, Organ, normalise, organ_named

ANYTHING = "85756007"  # SNOMED CT "Tissue", what Slicer calls a segment that nobody named
ALTERED = "49755003"  # SNOMED CT "Morphologically Altered Structure": tumours, cysts
_OFFERED = {ALTERED, ANYTHING, "123037004", "91720002"}  # categories; and anatomical structures, body substances
_APART = 50  # in RGB, so that two organs beside each other are told apart
_ALSO_CALLED = {"tumor": "neoplasm", "tumour": "neoplasm"}


@dataclass(frozen=True)
class Entry:
    """One choice of a terminology: the organ as the model will know it, and the terminology that has it."""

    organ: Organ
    context: str

    @property
    def liesInside(self) -> bool:
        """Whether it is found inside another organ, as a tumour is."""
        return self.organ.category.value == ALTERED


_ENTRIES: WeakKeyDictionary[Any, dict[str, Entry]] = WeakKeyDictionary()


class Terminology:
    """Slicer's loaded terminologies, searched by name; an organ in several of them is offered once."""

    def __init__(self, logic: Any = None) -> None:
        self.logic = logic or slicer.modules.terminologies.logic()

    @property
    def entries(self) -> dict[str, Entry]:
        """Every choice by the organ's key."""
        if self.logic not in _ENTRIES:  # a tenth of a second, and every segmentation that is shown needs them
            found: dict[str, Entry] = {}
            for entry in self._read():
                found.setdefault(entry.organ.key, entry)
            _ENTRIES[self.logic] = found
        return _ENTRIES[self.logic]

    def find(self, text: str, limit: int = 40) -> list[Entry]:
        """Choices in whose name every word of ``text`` begins a word; those that begin with it first."""
        words = [_ALSO_CALLED.get(word, word) for word in normalise(text).split()]
        found = [entry for entry in self.entries.values() if _matches(words, entry.organ.name)]
        if (known := organ_named(text).key if words else "") in self.entries:  # an alias, as "gall bladder"
            found = [self.entries[known], *(entry for entry in found if entry.organ.key != known)]
        start = text.strip().lower()
        found.sort(key=lambda e: (e.organ.key != known, not e.organ.name.lower().startswith(start), len(e.organ.name)))
        return found[:limit]

    def named(self, name: str) -> Organ:
        """The organ of this name, alias or code in the terminologies.

        Raises:
            InputError: there is none.
        """
        wanted = organ_named(name)
        if wanted.key in self.entries:
            return self.entries[wanted.key].organ
        found = [entry for entry in self.find(name) if normalise(entry.organ.name) == normalise(name)]
        if not found:
            near = ", ".join(entry.organ.name for entry in self.find(name, 5))
            hint = _(" (near: {near})").format(near=near) if near else ""
            raise InputError(_("Slicer's terminologies have no '{name}'").format(name=name) + hint + ".")
        return found[0].organ

    def mark(self, segment: Any, organ: Organ) -> None:
        """Give a segment the organ's name, colour and codes."""
        segment.SetName(organ.name)
        segment.SetColor(*(part / 255 for part in organ.color))
        if organ.type is not None:
            segment.SetTag(segment.GetTerminologyEntryTagName(), self._serialised(organ))

    def organOf(self, segment: Any) -> Organ:
        """The organ that a segment's codes or, without any, its name stand for."""
        entry = slicer.vtkSlicerTerminologyEntry()
        tag = vtk.reference("")
        segment.GetTag(segment.GetTerminologyEntryTagName(), tag)
        color = tuple(round(255 * part) for part in segment.GetColor())
        if tag.get() and self.logic.DeserializeTerminologyEntry(tag.get(), entry):
            kind = _code(entry.GetTypeObject())
            if kind and kind.value != ANYTHING:
                parts = {
                    "category": _code(entry.GetCategoryObject()),
                    "type": kind,
                    "modifier": _code(entry.GetTypeModifierObject()),
                    "region": _code(entry.GetRegionObject()),
                    "region_modifier": _code(entry.GetRegionModifierObject()),
                }
                return Organ(segment.GetName(), color=color, **{name: code for name, code in parts.items() if code})
        return replace(organ_named(segment.GetName() or "unnamed"), color=color)

    def _serialised(self, organ: Organ) -> str:
        known = self.entries.get(organ.key)
        context = known.context if known else self._contexts()[0]
        what = [*_triplet(organ.category), *_triplet(organ.type), *_triplet(organ.modifier)]
        where = [*_triplet(organ.region), *_triplet(organ.region_modifier)]
        return self.logic.SerializeTerminologyEntry(context, *what, "", *where)

    def _contexts(self) -> list[str]:
        names = vtk.vtkStringArray()
        self.logic.GetLoadedTerminologyNames(names)
        return [names.GetValue(i) for i in range(names.GetNumberOfValues())]

    def _read(self) -> Iterator[Entry]:
        for context in self._contexts():
            for number in range(self.logic.GetNumberOfCategoriesInTerminology(context)):
                category = slicer.vtkSlicerTerminologyCategory()
                self.logic.GetNthCategoryInTerminology(context, number, category)
                if category.GetCodeValue() in _OFFERED:
                    yield from self._of(context, category)

    def _of(self, context: str, category: Any) -> Iterator[Entry]:
        for number in range(self.logic.GetNumberOfTypesInTerminologyCategory(context, category)):
            kind = slicer.vtkSlicerTerminologyType()
            self.logic.GetNthTypeInTerminologyCategory(context, category, number, kind)
            if kind.GetCodeValue() == ANYTHING:
                continue
            yield _entry(context, category, kind, None)
            count = self.logic.GetNumberOfTypeModifiersInTerminologyType if kind.GetHasModifiers() else None
            for which in range(count(context, category, kind) if count else 0):
                modifier = slicer.vtkSlicerTerminologyType()
                self.logic.GetNthTypeModifierInTerminologyType(context, category, kind, which, modifier)
                yield _entry(context, category, kind, modifier)


def distinct(color: tuple[int, int, int], taken: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """This colour or, where another organ has nearly the same (stomach and liver do), one of another hue."""
    hue, light, saturation = colorsys.rgb_to_hls(*(part / 255 for part in color))
    turned = [colorsys.hls_to_rgb((hue + turn / 12) % 1, light, max(saturation, 0.4)) for turn in range(1, 12)]
    choices = [color, *(tuple(round(255 * part) for part in one) for one in turned)]
    apart = [min((math.dist(one, other) for other in taken), default=math.inf) for one in choices]
    return next(
        (one for one, far in zip(choices, apart, strict=True) if far > _APART), choices[apart.index(max(apart))]
    )


def _entry(context: str, category: Any, kind: Any, modifier: Any) -> Entry:
    one = modifier or kind
    name = one.GetSlicerLabel() or " ".join(
        filter(None, [modifier and modifier.GetCodeMeaning(), kind.GetCodeMeaning()])
    )
    color = tuple(one.GetRecommendedDisplayRGBValue())
    organ = Organ(name[:1].upper() + name[1:], 0, _code(category), _code(kind), _code(modifier), color=color)
    return Entry(organ, context)


def _code(part: Any) -> Code | None:
    if part is None or not part.GetCodeValue():
        return None
    return Code(part.GetCodingSchemeDesignator(), part.GetCodeValue(), part.GetCodeMeaning())


def _triplet(code: Code | None) -> list[str]:
    return [code.value, code.scheme, code.meaning] if code else ["", "", ""]


def _matches(words: list[str], name: str) -> bool:
    parts = normalise(name).split()
    return all(any(part.startswith(word) for part in parts) for word in words)
