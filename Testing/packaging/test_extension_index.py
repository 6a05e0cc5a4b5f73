"""What Slicer's Extensions Index checks and asks of a new extension, as far as files can answer it (README.md)."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import index_entry
import pytest

ROOT = Path(__file__).parents[2]
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAID = index_entry.description(CMAKE)
NAME = "IncrementalSeg"
FIELDS = {  # of the schema that the entry names: no other is allowed
    "$schema": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "category": str,
    "scm_revision": str,
    "scm_type": str,
    "scm_url": str,
    "tier": int,
    "enabled": bool,
}
BUILT = {"build", "dist", "node_modules"}  # and everything whose name begins with a dot
CLONE_MB, TREE_MB, FILE_MB = 100.0, 40.0, 5.0
SECTIONS = (  # of the front page, in this order; a heading has one of the words
    r"\bmodules?\b",
    r"set-?up|install",
    r"tutorial",
    r"\bpanel\b|interface",
    r"console|python",
    r"how it works|method",
    r"\blimit",
    r"troubleshoot",
    r"formats?\b",
    r"privacy",
    r"\bcite\b|citation|publication",
    r"licen[cs]e",
)


def _sources() -> Iterator[Path]:
    """The files of the repository, as far as their names tell."""
    stack = [ROOT]
    while stack:
        for path in stack.pop().iterdir():
            hidden = path.name.startswith(".") and path.name not in (".ci", ".github")
            if path.is_dir() and not hidden and path.name not in BUILT | {"__pycache__"}:
                stack.append(path)
            elif path.is_file() and not hidden:
                yield path


def _png(path: Path) -> tuple[int, int, int]:
    """Width, height and colour type (6: RGBA) of a PNG file."""
    header = path.read_bytes()[:26]
    assert header[:8] == b"\x89PNG\r\n\x1a\n", f"{path.name} is no PNG"
    return struct.unpack(">IIxB", header[16:])


def _pictures(addresses: str) -> list[Path]:
    """The files of this tree that raw addresses on the branch of the entry stand for."""
    start = SAID["HOMEPAGE"].replace("github.com", "raw.githubusercontent.com") + f"/{index_entry.REVISION}/"
    for address in addresses.split():
        assert re.fullmatch(re.escape(start) + r"Resources/[\w/-]+\.png", address), address
    return [ROOT / address.removeprefix(start) for address in addresses.split()]


def _headings() -> list[str]:
    without_code = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#{2,3} (.+)$", without_code, re.MULTILINE)


def _front() -> str:
    """What stands above the first section."""
    return README.partition("\n## ")[0]


def test_the_entry_is_named_as_the_project_and_says_what_cmakelists_says():
    assert SAID["NAME"] == NAME
    written = (ROOT / f"{NAME}.json").read_text(encoding="utf-8")
    assert written == index_entry.text(CMAKE), "run Testing/packaging/index_entry.py"


def test_the_entry_has_the_fields_of_the_schema_and_no_others():
    entry = json.loads((ROOT / f"{NAME}.json").read_text(encoding="utf-8"))
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(FIELDS)
    assert {name: type(value) for name, value in entry.items()} == {name: FIELDS[name] for name in entry}
    assert re.search(r"/slicer-extension-catalog-entry-schema-v1\.0\.1\.json#?$", entry["$schema"])
    assert entry["tier"] in (1, 3, 5)
    assert entry["scm_type"] == "git"
    assert list(entry) == sorted(entry)


def test_category_and_dependencies_are_among_those_that_the_index_has():
    assert SAID["CATEGORY"] == "Segmentation"
    assert SAID["DEPENDS"].split() == ["PyTorch"]


def test_the_names_follow_the_indexs_customs():
    assert not NAME.lower().startswith("slicer")
    assert re.fullmatch(rf"https://github\.com/[\w-]+/Slicer{NAME}", SAID["HOMEPAGE"])
    assert "3d-slicer-extension" in CMAKE, "CMakeLists.txt says which topic the repository has"


@pytest.mark.parametrize("name", ["HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS"])
def test_meta_information_stands_once_on_one_literal_line(name):
    assert len(re.findall(rf"\bEXTENSION_{name}\b", CMAKE)) == 1
    assert "$" not in SAID[name]


def test_the_icon_is_a_png_of_128_pixels_with_transparency():
    (icon,) = _pictures(SAID["ICONURL"])
    assert _png(icon) == (128, 128, 6)


def test_the_screenshots_are_pictures_of_this_repository():
    pictures = _pictures(SAID["SCREENSHOTURLS"])
    assert pictures
    for picture in pictures:
        assert min(_png(picture)[:2]) >= 300, f"{picture.name} is too small to see anything"


def test_another_owner_is_named_in_every_address_at_once():
    changed = index_entry.owned(CMAKE, "somebody")
    assert json.loads(index_entry.text(changed))["scm_url"] == f"https://github.com/somebody/Slicer{NAME}.git"
    assert changed.count("/somebody/") == CMAKE.count(f"/Slicer{NAME}")
    assert index_entry.owned(changed, SAID["HOMEPAGE"].split("/")[3]) == CMAKE


def test_no_other_file_spells_the_repositorys_address_out():
    address = SAID["HOMEPAGE"].removeprefix("https://github.com/").encode().lower()
    found = {path.relative_to(ROOT).as_posix() for path in _sources() if address in path.read_bytes().lower()}
    assert found == {"CMakeLists.txt", f"{NAME}.json"}


def test_the_description_is_short_and_tells_licence_and_patents():
    sentences = re.split(r"(?<=\.) ", SAID["DESCRIPTION"])
    assert len(sentences) <= 2
    assert "Apache-2.0" in SAID["DESCRIPTION"]
    assert re.search(r"\bpatents?\b", SAID["DESCRIPTION"])


def test_the_licence_is_in_the_root_and_named_on_the_front_page():
    licence = (ROOT / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in licence and "Version 2.0" in licence and "Grant of Patent License" in licence
    assert "Apache-2.0" in README and "](LICENSE.txt)" in README
    assert re.search(r"\bpatents?\b", README)


def test_the_front_page_begins_with_name_purpose_and_a_picture():
    front = _front()
    assert front.startswith(f"# {NAME}\n")
    assert re.search(r"^\*\*[^*]{20,}\*\*", front, re.MULTILINE), "one sentence in bold says what it is for"
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", front)
    assert pictures and all((ROOT / picture).exists() for picture in pictures)
    assert "Not a medical device" in front


def test_the_front_pages_sections_come_in_the_order_that_readers_of_the_index_know():
    headings = iter(_headings())
    for words in SECTIONS:
        assert any(re.search(words, heading, re.IGNORECASE) for heading in headings), (
            f"README.md has no section of {words}, or it comes too early"
        )


def test_the_front_page_leads_to_the_tutorial_and_names_the_methods_papers():
    assert "docs/tutorial.md" in README
    assert "Sample Data" in README
    assert re.search(r"arXiv|doi", README)


def test_the_tutorial_has_pictures_and_gets_its_scans_from_sample_data():
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert "Sample Data" in tutorial
    assert len(re.findall(r"!\[[^\]]+\]\(", tutorial)) >= 3


def test_a_clone_stays_small():
    sizes = {path: path.stat().st_size / 1e6 for path in _sources()}
    assert not {path.name: size for path, size in sizes.items() if size > FILE_MB}
    assert sum(sizes.values()) < TREE_MB
    if (ROOT / ".git").exists():  # an archive of the sources has no history
        counted = subprocess.run(["git", "count-objects", "-v"], cwd=ROOT, capture_output=True, text=True, check=True)
        kib = dict(re.findall(r"^(size|size-pack): (\d+)$", counted.stdout, re.MULTILINE))
        assert sum(map(int, kib.values())) / 1024 < CLONE_MB
