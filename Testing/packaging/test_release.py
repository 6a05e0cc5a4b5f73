"""What a release relies on: a changelog in one form, checks that are the same everywhere, commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _targets() -> dict[str, str]:
    """The Makefile's targets and what they run."""
    found = re.findall(r"^(\w+):[^\n=]*\n((?:\t.*\n?)*)", _text("Makefile"), re.MULTILINE)
    return {name: commands for name, commands in found if not name.isupper()}


def test_the_changelog_is_in_the_form_of_keep_a_changelog() -> None:
    text = _text("CHANGELOG.md")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    for heading in versions:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - (unreleased|\d{4}-\d{2}-\d{2})", heading), heading
    dates = [heading.split(" - ")[1] for heading in versions]
    assert "unreleased" not in dates[1:], "only the newest version may be unreleased"
    assert dates == sorted(dates, reverse=True), "newest first"
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= KINDS


def test_a_commit_is_checked_by_what_checks_a_change() -> None:
    hooks = re.findall(r"^\s+entry: (.+)$", _text(".pre-commit-config.yaml"), re.MULTILINE)
    assert all(hook.startswith(".venv/bin/python -m ") for hook in hooks), "a tool of another version"
    plain = {re.sub(r" --(force-exclude|fix)", "", hook.removeprefix(".venv/bin/python -m ")) for hook in hooks}
    targets = [_targets()[name].strip().removeprefix("$(BIN)/python -m ") for name in ("ruff", "format", "mypy")]
    assert {re.sub(r"( --check)?( \.)?$", "", target) for target in targets} == plain
    assert re.search(r"^lint: ruff format mypy$", _text("Makefile"), re.MULTILINE)
    assert "make --keep-going lint" in _text(".ci/run")


def test_the_tools_that_judge_a_change_have_one_version_everywhere() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", _text("constraints.txt"), re.MULTILINE))
    assert {"ruff", "mypy", "pytest", "hypothesis", "setuptools", "torch", "monai"} <= pinned.keys()


def test_contributors_are_told_commands_and_places_that_exist() -> None:
    text = _text("CONTRIBUTING.md")
    named = set(re.findall(r"`make (\w+)", text))
    assert named and named <= _targets().keys(), named - _targets().keys()
    places = set(re.findall(r"`((?:IncrementalSeg|IncrementalSegLib|Testing|Resources|\.ci)/[\w./-]*)`", text))
    missing = sorted(place for place in places if not (ROOT / place).exists())
    assert len(places) > 10 and not missing, missing
