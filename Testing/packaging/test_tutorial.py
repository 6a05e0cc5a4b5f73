"""The tutorial shows and names what the panel has."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE, PICTURES = ROOT / "IncrementalSeg", ROOT / "Resources" / "Screenshots" / "tutorial"
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
LARGEST_KB, ALL_KB = 150, 1200


def _shown() -> list[Path]:
    """The pictures in the order of the text."""
    return [(ROOT / "docs" / place).resolve() for place in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TUTORIAL)]


def _labels() -> set[str]:
    """Every text of the module, spaces made single."""
    found = [text.text or "" for ui in MODULE.rglob("*.ui") for text in ET.parse(ui).iter("string")]
    for path in MODULE.rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found += [node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {" ".join(text.split()) for text in found}


def test_every_picture_is_there_and_every_one_that_is_there_is_shown_in_order():
    assert _shown() == sorted(PICTURES.glob("*.png"), key=lambda path: int(path.name.partition("-")[0]))
    assert len(_shown()) >= 8


def test_the_pictures_are_small():
    sizes = {path.name: path.stat().st_size / 1000 for path in _shown()}
    assert not {name: size for name, size in sizes.items() if size > LARGEST_KB}
    assert sum(sizes.values()) < ALL_KB


def test_what_stands_in_bold_is_written_so_in_the_panel():
    bold = {" ".join(text.split()) for text in re.findall(r"\*\*([^*]+)\*\*", TUTORIAL)}
    assert len(bold) > 20
    assert not bold - _labels()


def test_the_steps_are_numbered_one_after_another():
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", TUTORIAL, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 8
