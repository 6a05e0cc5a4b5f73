"""Protocols as data: which organs are learned in which order, from which archive, and on what models are scored.

``btcv-4-4`` and ``btcv-2-2`` are the sequences of the papers, ``btcv-4-1`` their first step with one organ, ``btcv-13``
the long road to all of BTCV's organs. The order of ``word`` (eight organs, then four and four, from the upper abdomen
to the pelvis) is ours, as are all splits.

``institutions`` takes every step from another archive. Two things limit what it says. MSD spleen and MSD pancreas come
from one hospital. And FLARE21's training scans are those of MSD pancreas and NIH Pancreas-CT under other names: the
base has seen patients of the pancreas step, and FLARE21's evaluation part may hold some that this step learns from.
Scores on FLARE21 and MSD pancreas may be too good for that; those on MSD liver and KiTS19 are free of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..cases import Case, read_dataset, read_split
from ..errors import InputError
from ..volumes import EXTENSIONS
from .datasets import ARCHIVES, chosen, read_archive

SPLITS = Path(__file__).parent / "splits"
EVALUATION = "evaluation"  # the part of every split that no step learns from


@dataclass(frozen=True)
class Step:
    """What a step learns, and from whom: organ names, archive, part of its split."""

    organs: tuple[str, ...]
    archive: str
    part: str


@dataclass(frozen=True)
class Protocol:
    """A base (step 0) and the steps after it; all models are scored on the ``evaluation`` part of these archives."""

    name: str
    steps: tuple[Step, ...]
    evaluation: tuple[str, ...]

    @property
    def archives(self) -> tuple[str, ...]:
        """Every archive that a step learns from or that is scored on, once."""
        return tuple(dict.fromkeys([*(step.archive for step in self.steps), *self.evaluation]))


def _on_one(name: str, archive: str, *steps: tuple[str, ...]) -> Protocol:
    """All steps on one archive: the base learns from part ``step0``, every later step from the others, ``step1``."""
    parts = ["step0"] + ["step1"] * (len(steps) - 1)
    return Protocol(
        name, tuple(Step(organs, archive, part) for organs, part in zip(steps, parts, strict=True)), (archive,)
    )


_FIRST_FOUR = ("Spleen", "Right kidney", "Left kidney", "Liver")
_ONE_BY_ONE = (
    "Gallbladder",
    "Stomach",
    "Aorta",
    "Pancreas",
    "Oesophagus",
    "Inferior vena cava",
    "Portal and splenic vein",
    "Right adrenal gland",
    "Left adrenal gland",
)
_WORD_FIRST = (
    "Liver",
    "Spleen",
    "Left kidney",
    "Right kidney",
    "Stomach",
    "Gallbladder",
    "Oesophagus",
    "Pancreas",
)
_PROTOCOLS = (
    _on_one("btcv-4-4", "btcv", _FIRST_FOUR, _ONE_BY_ONE[:4]),
    _on_one(
        "btcv-2-2",
        "btcv",
        ("Spleen", "Liver"),
        ("Right kidney", "Left kidney"),
        ("Stomach", "Aorta"),
        ("Gallbladder", "Pancreas"),
    ),
    _on_one("btcv-13", "btcv", _FIRST_FOUR, *((organ,) for organ in _ONE_BY_ONE)),
    _on_one("btcv-4-1", "btcv", _FIRST_FOUR, ("Pancreas",)),
    _on_one(
        "word",
        "word",
        _WORD_FIRST,
        ("Duodenum", "Colon", "Intestine", "Adrenal gland"),
        ("Rectum", "Bladder", "Left femur head", "Right femur head"),
    ),
    Protocol(
        "institutions",
        (
            Step(("Liver",), "flare21", "step0"),
            Step(("Spleen",), "msd-spleen", "step1"),
            Step(("Pancreas",), "msd-pancreas", "step1"),
            Step(("Kidney",), "kits19", "step1"),
        ),
        ("flare21", "msd-liver", "msd-spleen", "msd-pancreas", "kits19"),
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _PROTOCOLS}


def part_cases(
    protocol: Protocol, folders: Mapping[str, Path], archive: str, part: str, split: Path | None = None
) -> list[Case]:
    """The cases of a part of an archive's split, with every organ that was annotated in them.

    A folder with ``<case>_ct`` files is one of this software's own datasets, in place of the archive: its split is its
    ``split.json``. Otherwise it is the archive as downloaded, and the split is the one that comes with this library.

    Args:
        protocol: what the cases are for, named in errors.
        folders: folder of every archive.
        archive: one of ``protocol.archives``.
        part: ``step0``, ``step1`` or ``evaluation``.
        split: JSON to use in place of the split meant above.

    Raises:
        InputError: the archive has no folder, or the folder or the split cannot be used.
    """
    if archive not in folders:
        raise InputError(
            f"Protocol '{protocol.name}' needs '{archive}': give the folder of {ARCHIVES[archive].title}, from "
            f"{ARCHIVES[archive].address}."
        )
    folder = folders[archive]
    if _is_dataset(folder):
        return read_dataset(folder, names=read_split(split or folder / "split.json", part))
    source = split or SPLITS / f"{archive}.json"
    return chosen(read_archive(archive, folder), read_split(source, part), source)


def _is_dataset(folder: Path) -> bool:
    names = [*(f"_ct{extension}" for extension in EXTENSIONS), "_ct/"]
    return any(True for name in names for _ in folder.glob(f"[!.]*{name}"))
