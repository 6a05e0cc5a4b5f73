"""The documentation site in a real browser, at the widths of a phone and of a desktop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PHONE, DESKTOP = 390, 1280
BROKEN = """<!doctype html><html><head><title>Broken</title></head><body style="margin:0"><h1 id="there">Broken</h1>
<a href="#there">fine</a> <a href="nowhere.html">1</a> <a href="#nowhere">2</a> <a href="http://example">3</a>
<a href="https://example.org/fine">fine</a> <a href="other.txt">fine</a>
<img src="missing.png" alt="a picture"> <p id="twice"></p><p id="twice"></p>
<script>console.error("told"); setTimeout(() => { throw new Error("thrown") }, 0)</script>
<script src="http://elsewhere.invalid/script.js"></script><div style="width: 2000px">wide</div></body></html>"""
EXPECTED = (
    "console: ['told']",
    "script: Error: thrown",
    "404 for",
    "px wider than the window",
    "a request leaves this machine: http://elsewhere.invalid/script.js",
    "a picture is not shown",
    "anchors that are there twice: twice",
    "a link leads nowhere: nowhere.html",
    "a link leads to no anchor: #nowhere",
    "a link outwards is malformed: http://example",
)


def test_nothing_in_the_site_names_another_machine_as_a_source(built):
    """Also of pages that nobody visits: no script, style, font or picture comes from elsewhere."""

    loaded = re.compile(
        r"""<(?:script|img|iframe|link(?![^>]*rel="?canonical))[^>]*\s(?:src|href)=["']?(?:https?:)?//"""
    )
    for page in built.rglob("*.html"):
        assert not loaded.search(page.read_text(encoding="utf-8")), page.name
    for style in built.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_every_equation_became_mathml(built):
    text = (built / "method.html").read_text(encoding="utf-8")
    assert text.count("<math") > 50 and "arithmatex" not in text and r"\(" not in text


def test_every_page_is_whole_at_both_widths(built, serve, browser):
    from problems import problems

    home = serve(built)
    pages = sorted(path.relative_to(built).as_posix() for path in built.rglob("*.html"))
    assert len(pages) > 15
    visits = [browser.visit(f"{home}/{page}", width) for width in (PHONE, DESKTOP) for page in pages]
    found = problems(visits, home, built)
    assert not found, "\n".join(found)


def test_the_check_finds_what_is_wrong(serve, browser, tmp_path: Path):
    from problems import problems

    (tmp_path / "index.html").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "other.txt").write_text("fine", encoding="utf-8")
    (tmp_path / "favicon.ico").write_bytes(b"")
    home = serve(tmp_path)
    found = problems([browser.visit(f"{home}/index.html", DESKTOP)], home, tmp_path)
    assert not [sentence for sentence in EXPECTED if not any(sentence in problem for problem in found)], found
    assert not any("fine" in problem for problem in found), found


@pytest.mark.parametrize(
    ("address", "fine"),
    [
        ("https://www.synapse.org/Synapse:syn3193805", True),
        ("https://keepachangelog.com/en/1.1.0/", True),
        ("http://example.org", False),
        ("https://nohost", False),
        ("https://example.org/a b", False),
        ("file:///etc/hosts", False),
        ("mailto:somebody", False),
    ],
)
def test_a_link_outwards_is_judged_by_its_form(address, fine):
    pytest.importorskip("websocket", reason="the package websocket-client is not installed")
    from problems import well_formed

    assert well_formed(address) is fine
