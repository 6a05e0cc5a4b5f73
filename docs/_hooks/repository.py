"""Brings files of the repository into the site without a copy of them in git.

A line ``<!-- include: CHANGELOG.md -->`` becomes that file's text, ``<!-- include: README.md#privacy -->`` the section
under that heading without the heading and what follows ``<!-- not on the site -->`` in it; a file that does not exist
becomes nothing. A page that has a title takes a file without its own. Links are written as they work on the web page of
the repository (``../Resources/Screenshots/review.png``) and led to where the target lies in the site: pictures and
tables of results are taken along, a file that is a page links to the page, every other file to the public repository.
"""

from __future__ import annotations

import posixpath
import re
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
TAKEN_ALONG = ("Resources/Screenshots/**/*.png", "Resources/Icons/*.png", "IncrementalSegLib/benchmarks/results/*.csv")
_INCLUDE = re.compile(r"^<!-- include: (?P<file>[^\s#]+)(?:#(?P<section>[\w-]+))? -->$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#]*)(?P<anchor>#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r'(?<=<p>)<img [^>]*src="([^"]+)"[^>]*>(?=</p>)')
_TITLE = re.compile(r"^# .+$", re.MULTILINE)
_END = "<!-- not on the site -->"


def homepage() -> str:
    """The public address of the repository, which is written in CMakeLists.txt alone."""
    found = re.search(r'^set\(EXTENSION_HOMEPAGE "([^"]+)"\)$', _text("CMakeLists.txt"), re.MULTILINE)
    if not found:
        raise PluginError("CMakeLists.txt names no EXTENSION_HOMEPAGE on a line of its own.")
    return found[1]


def on_config(config: Any) -> Any:
    """A link to the repository in the footer; as ``repo_url`` it would have every page ask GitHub for its stars."""
    pages.cache_clear()  # while the site is served, pages change
    config.extra["social"] = [{"icon": "fontawesome/brands/github", "link": homepage(), "name": "Repository"}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Pictures and tables of results, under their paths in the repository."""
    for pattern in TAKEN_ALONG:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Included text put in, links led to their targets."""
    source = page.file.src_uri
    text = with_links(markdown, f"docs/{source}", source, files)
    titled = bool(_TITLE.search(text))

    def included(found: re.Match[str]) -> str:
        taken = _included(found["file"], found["section"], source, files)
        return _TITLE.sub("", taken, count=1) if titled and not found["section"] else taken

    return _INCLUDE.sub(included, text)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Pictures that open in full size at a click: a panel is hard to read on a phone."""
    return _PICTURE.sub(lambda found: f'<a href="{found[1]}">{found[0]}</a>', content)


def _included(path: str, section: str | None, page: str, files: Files) -> str:
    if not (ROOT / path).is_file():
        return ""
    text = _text(path)
    if section:
        text = section_of(text, section, path)
    return with_links(text.partition(_END)[0], path, page, files)


def section_of(text: str, anchor: str, path: str = "") -> str:
    """The text under the heading of this anchor, up to the next heading of its rank or a higher one.

    Raises:
        PluginError: there is no such heading.
    """
    inside, rank, lines, fenced = False, 0, [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+) (.+)", line)
        if heading and inside and len(heading[1]) <= rank:
            break
        if inside:
            lines.append(line)
        elif heading and slug(heading[2]) == anchor:
            inside, rank = True, len(heading[1])
    if not inside:
        raise PluginError(f"{path} has no section #{anchor}.")
    return "\n".join(lines)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it of plain words."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def with_links(text: str, origin: str, page: str, files: Files) -> str:
    """Relative links of a text, which stands in the file ``origin`` of the repository, as they work on a page."""
    kept: list[str] = []

    def hide(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\x00{len(kept) - 1}\x00"

    text = _FENCE.sub(hide, text)
    text = _LINK.sub(lambda found: _target(found["path"], found["anchor"] or "", origin, page, files), text)
    return re.sub("\x00(\\d+)\x00", lambda found: kept[int(found[1])], text)


def _target(path: str, anchor: str, origin: str, page: str, files: Files) -> str:
    if ":" in path or (not path and page in (origin.removeprefix("docs/"), pages().get(origin))):
        return path + anchor
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path)) if path else origin
    here = pages().get(wanted) or wanted.removeprefix("docs/")
    if files.get_file_from_path(here) and not (wanted == origin and anchor):
        return posixpath.relpath(here, posixpath.dirname(page) or ".") + anchor
    if not (ROOT / wanted).exists():
        return path + anchor  # which the strict build complains about
    kind = "tree" if (ROOT / wanted).is_dir() else "blob"
    return f"{homepage()}/{kind}/main/{wanted}{anchor}"


@cache
def pages() -> dict[str, str]:
    """Files of the repository that are the whole of a page, and that page."""
    found = {}
    for page in sorted((ROOT / "docs").glob("*.md")):
        for include in _INCLUDE.finditer(page.read_text(encoding="utf-8")):
            if not include["section"] and include["file"] != "README.md":
                found[include["file"]] = page.name
    return found


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
