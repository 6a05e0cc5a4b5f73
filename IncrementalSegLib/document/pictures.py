"""The pictures of a job folder or an evaluation, and what must be said beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .blocks import Block, Picture, Text

SHEETS = 3  # the newest of the contact sheets


def scan_pictures(folder: Path, shown: bool) -> list[Block]:
    """The planes of a held-out scan; where they are not shown, a sentence instead."""
    found = [path for path in (folder / "previews" / "planes.png", folder / "planes.png") if path.is_file()]
    if not found:
        return []
    if not shown:
        return [Text("Left out of this copy: the pictures show a patient's scan.")]
    alt = "Axial, coronal and sagittal plane of a CT scan with outlines of the organs, one row per label map."
    caption = (
        "One held-out case with the outlines of the old model (before), the new model (after) and, where there is one, "
        "the annotation. It is a patient's scan without a name: keep and send this page as you would the scan."
    )
    return [Picture(found[0], alt, caption)]


def synthetic_pictures(folder: Path, replayed: Mapping[str, Any], scans: bool) -> list[Block]:
    """What was replayed in the training, and contact sheets of it and of what was made since; else nothing."""
    blocks: list[Block] = []
    if replayed["volumes"]:
        blocks.append(Text(_replay_sentence(replayed)))
    found = [*folder.glob("synthetic/*/contact_sheet.png"), *folder.glob("inversion*/contact_sheet.png")]
    sheets = sorted(found, key=lambda path: (path.stat().st_mtime, path))[-SHEETS:]
    for sheet in sheets:
        if scans or not _from_scans(sheet.parent):
            blocks.append(_sheet(sheet))
    return blocks


def _sheet(path: Path) -> Picture:
    alt = "Synthetic CT volumes in three planes, with outlines of the organs that were asked for and that came out."
    if _from_scans(path.parent):
        return Picture(path, alt, "Synthetic CT that started from real scans: keep it as you would these.")
    return Picture(path, alt, "Synthetic CT made up by the model: no patient was scanned.")


def _from_scans(folder: Path) -> bool:
    """Whether synthetic images may resemble a patient: those of an unknown recipe may."""
    told = next((folder / name for name in ("quality.json", "done.json") if (folder / name).exists()), folder)
    try:
        return bool(json.loads(told.read_text(encoding="utf-8"))["recipe"] == "grounded")
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _replay_sentence(replayed: Mapping[str, Any]) -> str:
    return (
        f"In the training {replayed['replayed']} of {replayed['volumes']} synthetic volumes were replayed for the sake "
        f"of {', '.join(replayed['organs'])}; {replayed['kept']} of {replayed['requested']} organs in them were kept "
        f"(feature statistics: {replayed['statistics']})."
    )
