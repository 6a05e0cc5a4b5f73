"""What Slicer packages is what the tree holds, and the version is the same wherever it is written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import IncrementalSegLib

ROOT = Path(__file__).parents[2]
LIBRARY, MODULE = ROOT / "IncrementalSegLib", ROOT / "IncrementalSeg"


def _listed(folder: Path) -> list[str]:
    lists = re.findall(
        r"set\(MODULE_PYTHON_(?:SCRIPTS|RESOURCES)\s(.*?)\)",
        (folder / "CMakeLists.txt").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    return " ".join(lists).split()


def _in_tree(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        path.as_posix()
        for path in paths
        if path.name != "CMakeLists.txt" and not any(part.startswith((".", "__pycache__")) for part in path.parts)
    }


@pytest.mark.parametrize("folder", [LIBRARY, MODULE], ids=lambda folder: folder.name)
def test_every_file_is_listed_once_and_every_listed_file_is_there(folder):
    listed, present = _listed(folder), _in_tree(folder)
    assert len(listed) == len(set(listed)), f"listed twice: {sorted({f for f in listed if listed.count(f) > 1})}"
    assert not present - set(listed), f"add to {folder.name}/CMakeLists.txt: {sorted(present - set(listed))}"
    assert not set(listed) - present, f"listed but missing: {sorted(set(listed) - present)}"


def test_the_application_runs_every_test_of_the_panel():
    folder = ROOT / "Testing" / "module"
    listed = re.findall(r"^\s+(test_\w+)$", (folder / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in folder.glob("test_*.py"))


def test_the_version_is_the_same_wherever_it_is_written():
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    changes = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    versions = {
        "pyproject.toml": tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"],
        "CITATION.cff": citation and citation[1],
        "CHANGELOG.md": changes and changes[1],
        "IncrementalSegLib.__version__": IncrementalSegLib.__version__,
    }
    assert len(set(versions.values())) == 1, versions
