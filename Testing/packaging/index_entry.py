"""The entry of this extension in Slicer's Extensions Index, made of what CMakeLists.txt says.

    python Testing/packaging/index_entry.py                 write IncrementalSeg.json anew
    python Testing/packaging/index_entry.py --owner NAME    first make NAME the owner of the repository's address

The Index's reviewers compare that file with CMakeLists.txt, and test_extension_index.py does so in every run.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#"
)
REVISION = "main"  # a branch, so that the Index follows it; the addresses of the pictures name the same one
TIER = 1  # Testing/packaging/README.md says what the Index asks for 3 beyond what a repository can show


def description(cmake: str) -> dict[str, str]:
    """The extension's meta-information, ``HOMEPAGE`` and the like; every one is a literal on one line."""
    found = dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"$\n]+)"\)$', cmake, re.MULTILINE))
    return {"NAME": re.findall(r"^project\((\w+)\)$", cmake, re.MULTILINE)[0], **found}


def entry(cmake: str) -> dict[str, object]:
    """The fields of the entry, as the Index's schema has them."""
    said = description(cmake)
    return {
        "$schema": SCHEMA,
        "build_dependencies": said["DEPENDS"].split(),
        "build_subdirectory": ".",
        "category": said["CATEGORY"],
        "scm_revision": REVISION,
        "scm_type": "git",
        "scm_url": said["HOMEPAGE"] + ".git",
        "tier": TIER,
    }


def text(cmake: str) -> str:
    """The file, a field per line, as the Index's formatter leaves it."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in entry(cmake).items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def owned(cmake: str, owner: str) -> str:
    """CMakeLists.txt with another owner in the addresses of the repository and of its pictures."""
    host = r"(https://(?:github|raw\.githubusercontent)\.com/)[^/\"]+(/Slicer" + description(cmake)["NAME"] + r"\b)"
    return re.sub(host, rf"\g<1>{owner}\g<2>", cmake)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--owner", help="user or organisation that the public repository belongs to")
    options, path = parser.parse_args(), ROOT / "CMakeLists.txt"
    cmake = path.read_text(encoding="utf-8")
    if options.owner:
        cmake = owned(cmake, options.owner)
        path.write_text(cmake, encoding="utf-8", newline="\n")
    (ROOT / f"{description(cmake)['NAME']}.json").write_text(text(cmake), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
