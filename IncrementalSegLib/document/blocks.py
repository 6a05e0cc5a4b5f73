"""What a document is made of: plain data, which `markdown` and `page` write each in their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class Code(str):
    """Text to be read letter by letter: a hash, a file name."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and their values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Cells under titles; the first ``words`` columns hold words, the others numbers.

    ``form`` marks a table whose empty cells are written into by hand.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    form: bool = False


@dataclass(frozen=True)
class Bar:
    """A share from 0 to 1, its number beside it; ``hollow`` where it is of another kind than those above it."""

    series: str
    value: float
    hollow: bool = False


@dataclass(frozen=True)
class Chart:
    """Groups of bars, for example one group per organ; what it shows stands in a table too."""

    caption: str
    groups: Sequence[tuple[str, Sequence[Bar]]]


@dataclass(frozen=True)
class Picture:
    """An image file; ``alt`` says what it shows to those who do not see it."""

    path: Path
    alt: str
    caption: str


Block = Text | Bullets | Facts | Table | Chart | Picture


@dataclass(frozen=True)
class Section:
    """A titled part."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """Title, verdict in words (``good`` or not), a notice that stands first, and sections."""

    title: str
    verdict: str
    good: bool
    notice: str
    sections: Sequence[Section]
