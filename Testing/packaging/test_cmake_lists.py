"""What Slicer packages is what the tree holds, and the version is the same wherever it is written."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import IncrementalSegLib

ROOT = Path(__file__).parents[2]
LIBRARY, MODULE = ROOT / "IncrementalSegLib", ROOT / "IncrementalSeg"
SLICER = Path(__file__).parent / "slicer_stand_in"


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


def _setting(name: str) -> str:
    values = re.findall(
        rf'^set\({name} "([^"$]+)"\)$', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(values) == 1, f"CMakeLists.txt: {name} must stand once, on one literal line, without a variable"
    return values[0]


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


def test_the_addresses_of_the_extension_are_literal_and_agree_on_the_repository():
    homepage, files = _setting("EXTENSION_HOMEPAGE"), {}
    for name in ("EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"):
        files[name] = _setting(name).removeprefix(
            homepage.replace("github.com", "raw.githubusercontent.com") + "/main/"
        )
        assert re.fullmatch(r"Resources/[\w/]+\.png", files[name]), f"{name} is not a png of {homepage}"
    header = (ROOT / files["EXTENSION_ICONURL"]).read_bytes()[:26]
    width, height, _, color = struct.unpack(">IIBB", header[16:])
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and (width, height, color) == (128, 128, 6), "128 x 128 RGBA"


def test_the_extension_configures_and_its_library_runs_from_where_it_is_installed(tmp_path):
    cmake = shutil.which("cmake")
    if not cmake or not (shutil.which("cc") and shutil.which("c++")):
        pytest.skip("needs cmake and a C++ compiler")
    build, installed = tmp_path / "build", tmp_path / "installed"
    for command in (
        [
            "-S",
            ROOT,
            "-B",
            build,
            f"-DSlicer_DIR={SLICER}",
            f"-DCMAKE_INSTALL_PREFIX={installed}",
            "-DBUILD_TESTING=ON",
        ],
        ["--install", build],
    ):
        done = subprocess.run([cmake, *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    described = dict(
        line.split("=", 1) for line in (build / "description.txt").read_text(encoding="utf-8").splitlines()
    )
    assert described["EXTENSION_DEPENDS"] == "PyTorch" and described["EXTENSION_CATEGORY"] == "Segmentation"
    modules = installed / "modules"
    library = _in_tree(modules / "IncrementalSegLib")
    assert library == _in_tree(LIBRARY)
    assert (modules / "Resources" / "Models" / "Abdomen" / "checksums.json").exists()
    beside = {name for name in _in_tree(modules) if not name.startswith(("IncrementalSegLib/", "Resources/Models/"))}
    assert beside == _in_tree(MODULE)
    code = (
        f"import sys; sys.path.insert(0, {str(installed / 'modules')!r}); import json, IncrementalSegLib.organs as o; "
        "print(json.dumps([o.__file__, len(o.catalogue())]))"
    )
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    imported, organs = json.loads(run.stdout)
    assert Path(imported).is_relative_to(installed) and organs > 0
