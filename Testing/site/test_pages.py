"""What README and pages say of the software is what the software says: messages, options, strategies, numbers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from IncrementalSegLib.training.strategies import PARTS, STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def _rows(text: str) -> list[list[str]]:
    """The cells of every row of every table in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not re.match(r"\|[\s:|-]+\|$", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _section(text: str, heading: str) -> str:
    return re.split(r"^#+ ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def _sentences() -> str:
    """All text constants of the software; those of an f-string stand one after another, what is put in left out."""
    found = []
    for path in [*ROOT.glob("IncrementalSeg/**/*.py"), *ROOT.glob("IncrementalSegLib/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{\w+\}", "\0", node.value))
    return "\n".join(found)


def test_every_message_of_the_troubleshooting_table_is_one_that_the_software_gives():
    said, rows = _sentences(), _rows(_section(README, "## Troubleshooting by message"))[1:]
    assert len(rows) > 15
    for message, remedy in rows:
        parts = [part.strip(" .:'()") for part in re.split(r"…|'[XY]'|\bX:", message)]
        parts = [part for part in parts if len(part) > 3]
        assert parts and remedy, message
        assert not [part for part in parts if part not in said], message


def test_the_readmes_table_has_the_numbers_of_the_benchmarks_page():
    whole, *rows = _rows(_section(_page("benchmarks.md"), "## BTCV 4-4"))
    columns = [
        next(at for at, title in enumerate(whole) if title.startswith(f"Mean {part}")) for part in ("old", "new", "all")
    ]
    told = {row[0].split()[0].strip("*"): [row[at].split()[0].replace("—", "–") for at in columns] for row in rows}
    short = {row[0].split()[0].strip("*"): row[1:] for row in _rows(_section(README, "### Results"))[1:]}
    assert len(short) == 8
    assert short == {name: told[name] for name in short}


def test_every_strategy_and_part_is_on_the_methods_page():
    page = _page("method.md")
    assert not [name for name in STRATEGIES if f"`{name}`" not in page]
    assert not [part for part in PARTS if f"-{part}`" not in page]


def test_every_option_of_the_benchmark_is_on_the_command_lines_page(capsys):
    from IncrementalSegLib.benchmarks.benchmark import main

    with pytest.raises(SystemExit):
        main(["--help"])
    options = set(re.findall(r"^  (--[\w-]+)", capsys.readouterr().out, re.MULTILINE))
    described = set(re.findall(r"`(--[\w-]+)`", _section(_page("command-line.md"), "### benchmark")))
    assert options == described and len(options) > 8
