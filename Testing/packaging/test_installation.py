"""The extension is configured and installed by CMake as Slicer's packaging does it, and what is installed works."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLICER = Path(__file__).parent / "slicer_stand_in"
SHIPPED = {  # folder of the source tree: where users find it in Slicer's folder of scripted modules
    ROOT / "IncrementalSeg": Path("."),
    ROOT / "IncrementalSegLib": Path("IncrementalSegLib"),
    ROOT / "Resources" / "Models": Path("Resources/Models"),
}
LARGEST_MB = 10.0


def _cmake(*arguments: object) -> None:
    beside = Path(sys.executable).parent / "cmake"  # PyPI's, which the test extra brings
    program = str(beside) if beside.exists() else shutil.which("cmake")
    assert program, "CMake is missing: make test installs it"
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _configure(build: Path, installed: Path, testing: str) -> None:
    """Nothing is compiled, so that no compiler is needed: any program stands in for it."""
    compilers = [
        f"-DCMAKE_{language}_COMPILER{setting}"
        for language in ("C", "CXX")
        for setting in (f"={sys.executable}", "_FORCED=TRUE", "_WORKS=TRUE")
    ]
    place = [f"-DSlicer_DIR={SLICER}", f"-DCMAKE_INSTALL_PREFIX={installed}", f"-DBUILD_TESTING={testing}"]
    _cmake("-S", ROOT, "-B", build, *place, *compilers)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `build/` and `installed/`, made once."""
    folder = tmp_path_factory.mktemp("extension")
    _configure(folder / "build", folder / "installed", "ON")
    _cmake("--install", folder / "build")
    return folder


def _files(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "CMakeLists.txt" and "__pycache__" not in path.parts
    }


def _expected() -> dict[Path, Path]:
    """Every file that a user needs, by its place in Slicer's folder of scripted modules."""
    return {place / name: folder / name for folder, place in SHIPPED.items() for name in _files(folder)}


def test_users_get_every_file_they_need_as_it_is_in_the_source_tree_and_no_other(tree):
    installed, expected = tree / "installed" / "modules", _expected()
    assert _files(installed) == set(expected)
    assert _files(tree / "installed") == {"modules" / name for name in map(Path, expected)}
    changed = [name for name, source in expected.items() if not filecmp.cmp(installed / name, source, shallow=False)]
    assert not changed


def test_the_starter_model_is_where_the_library_looks_in_a_build_tree_too(tree):
    built, source = tree / "build" / "built" / "Resources" / "Models", ROOT / "Resources" / "Models"
    assert _files(built) == _files(source) and _files(built)


def test_the_tests_stay_in_the_source_tree_and_the_application_is_told_of_all_of_them(tree):
    told = (tree / "build" / "tests.txt").read_text(encoding="utf-8").split()
    assert sorted(told) == sorted(path.name for path in (ROOT / "Testing" / "module").glob("test_*.py"))
    assert not [name for name in _files(tree / "installed") if name.name.startswith("test_") or "Testing" in name.parts]


def test_a_build_without_tests_installs_the_same(tree, tmp_path):
    _configure(tmp_path / "build", tmp_path / "installed", "OFF")
    _cmake("--install", tmp_path / "build")
    assert not (tmp_path / "build" / "tests.txt").exists()
    assert _files(tmp_path / "installed") == _files(tree / "installed")


def test_the_meta_information_reaches_slicer_whole(tree):
    lines = (tree / "build" / "description.txt").read_text(encoding="utf-8").splitlines()
    told = dict(line.split("=", 1) for line in lines)
    assert told["EXTENSION_DEPENDS"] == "PyTorch"
    assert told["EXTENSION_CATEGORY"] == "Segmentation"
    assert len(told["EXTENSION_SCREENSHOTURLS"].split()) >= 1


def test_the_package_stays_small(tree):
    installed = tree / "installed"
    size = sum((installed / name).stat().st_size for name in _files(installed)) / 1e6
    assert size < LARGEST_MB, f"{size:.1f} MB are installed"


def test_the_library_runs_from_where_it_is_installed_and_finds_the_starter_model(tree, tmp_path):
    modules = tree / "installed" / "modules"
    code = (
        f"import sys; sys.path.insert(0, {str(modules)!r}); import json, IncrementalSegLib.organs as o; "
        "from IncrementalSegLib.starter import starter_model; "
        "print(json.dumps([o.__file__, str(starter_model()), len(o.catalogue())]))"
    )
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    *places, organs = json.loads(run.stdout)
    assert all(Path(place).is_relative_to(modules) for place in places)
    assert organs > 0
