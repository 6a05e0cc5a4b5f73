"""What is wrong with pages that were visited: a sentence for everything a reader would stumble over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from browser import Visit


def problems(visits: Sequence[Visit], home: str, folder: Path) -> list[str]:
    """Everything that is wrong with a site in ``folder`` that was served at ``home``."""
    ids = {visit.url: set(visit.ids) for visit in visits}
    found = []
    for visit in visits:
        where = f"{visit.url.removeprefix(home)} at {visit.width} px"
        found += [f"{where}: {sentence}" for sentence in _of(visit, home, folder, ids)]
    return found


def _of(visit: Visit, home: str, folder: Path, ids: dict[str, set[str]]) -> Iterator[str]:
    yield from visit.errors
    if not visit.title:
        yield "it has no title"
    if visit.wider > 0:
        yield f"it is {visit.wider} px wider than the window"
    yield from (f"sticks out of the window: {part}" for part in visit.sticking_out[:3])
    for address in visit.requests:
        if not address.startswith((f"{home}/", "data:", "blob:")):
            yield f"a request leaves this machine: {address}"
    for address, shown, text in visit.pictures:
        if not shown:
            yield f"a picture is not shown: {address}"
        if not text:
            yield f"a picture has no text for those who cannot see it: {address}"
    doubled = sorted({name for name in visit.ids if name and visit.ids.count(name) > 1 and not name.startswith("__")})
    if doubled:
        yield f"anchors that are there twice: {', '.join(doubled)}"
    yield from _broken(visit.links, home, folder, ids)


def _broken(links: Iterable[tuple[str, str]], home: str, folder: Path, ids: dict[str, set[str]]) -> Iterator[str]:
    for written, address in links:
        if not address.startswith(f"{home}/") and address != home:
            if not well_formed(address):
                yield f"a link outwards is malformed: {written}"
            continue
        page, anchor = urldefrag(address)
        if page not in ids and not _file(page, home, folder).is_file():
            yield f"a link leads nowhere: {written}"
        elif anchor and page in ids and unquote(anchor) not in ids[page]:
            yield f"a link leads to no anchor: {written}"


def _file(page: str, home: str, folder: Path) -> Path:
    path = folder / unquote(urlsplit(page.removeprefix(home)).path).lstrip("/")
    return path / "index.html" if path.is_dir() else path


def well_formed(address: str) -> bool:
    """Whether a link outwards is a plain https address with a host; it is not fetched."""
    parts = urlsplit(address)
    host = re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.hostname or "")
    return parts.scheme == "https" and bool(host) and not re.search(r"[\s<>`\"{}|\\^]", address)
