"""The library's wheel holds what the source tree holds, and works where nothing of the tree is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "IncrementalSegLib"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheel` does, from a copy: a build leaves files in its tree."""
    tree, dist = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE.txt"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(LIBRARY, tree / LIBRARY.name, ignore=shutil.ignore_patterns("__pycache__"))
    _succeed([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", dist, tree])
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content alone; what it depends on comes from this environment."""
    place = tmp_path_factory.mktemp("installed")
    _succeed([*PIP, "install", "--no-deps", "--no-index", "--target", place, wheel])
    return place


def _succeed(command: list[object], **options: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _run(installed: Path, *arguments: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    return _succeed([sys.executable, "-P", *arguments], env=environment, cwd=installed.parent)


def test_every_file_of_the_library_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    about = f"incrementalseglib-{VERSION}.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.startswith(about)}
        licence = archive.read(f"{about}licenses/LICENSE.txt")
    paths = [path for path in LIBRARY.rglob("*") if path.is_file() and path.name != "CMakeLists.txt"]
    assert packed == {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}
    assert licence == (ROOT / "LICENSE.txt").read_bytes()


def test_the_wheel_is_for_every_platform_and_carries_the_version(wheel: Path) -> None:
    assert wheel.name == f"incrementalseglib-{VERSION}-py3-none-any.whl"


def test_the_installed_library_reads_its_own_data(installed: Path) -> None:
    code = """
import json, IncrementalSegLib as library
from pathlib import Path
from IncrementalSegLib.benchmarks.protocols import PROTOCOLS
from IncrementalSegLib.document import result_text
from IncrementalSegLib.document.page import as_page
from IncrementalSegLib.document.blocks import Document
from IncrementalSegLib.organs import organ_named
place = Path(library.__file__).parent
print(json.dumps({
    "place": str(place),
    "version": library.__version__,
    "code": organ_named("oesophagus").key,
    "splits": sorted(path.stem for path in place.glob("benchmarks/splits/*.json")),
    "results": sorted(path.name for path in place.glob("benchmarks/results/*.csv")),
    "protocols": sorted(PROTOCOLS),
    "page": as_page(Document("t", "v", True, "n", [])).count("@page"),
}))
"""
    found = json.loads(_run(installed, "-c", code))
    assert Path(found["place"]) == installed / "IncrementalSegLib"
    assert (found["version"], found["code"], found["page"]) == (VERSION, "32849002", 1)
    assert found["splits"] == sorted(path.stem for path in (LIBRARY / "benchmarks" / "splits").iterdir())
    assert found["results"] == sorted(path.name for path in (LIBRARY / "benchmarks" / "results").iterdir())
    assert "btcv-4-4" in found["protocols"]


def test_the_command_is_installed_and_explains_itself(installed: Path) -> None:
    (script,) = (path for path in (installed / "bin").iterdir() if path.stem == "incrementalseg")
    assert "add-organ" in _run(installed, script, "--help")
    assert _run(installed, script, "--version").strip() == f"incrementalseg {VERSION}"
    assert "add-organ" in _run(installed, "-m", "IncrementalSegLib", "--help")
