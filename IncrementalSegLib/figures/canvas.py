"""What every figure shares: its size and colours of text, how it is made without a display, how it is saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage import write_atomically

WIDTH_INCHES, DPI = 8.0, 150
TEXT, QUIET = "#222222", "#666666"


def new_figure(height_inches: float) -> Any:
    """An empty `matplotlib.figure.Figure`, 1200 pixels wide, that belongs to no window and no pyplot.

    Raises:
        InputError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("Figures need matplotlib: run  pip install IncrementalSegLib[figures]") from error
    return Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout="constrained")


def legend_below(figure: Any, artists: list[Any], names: list[str], **style: Any) -> Any:
    """A legend under the figure, four entries to a line."""
    place = {"loc": "outside lower center", "ncols": min(4, len(names)), "frameon": False, "fontsize": 9.5}
    return figure.legend(artists, names, **place, **style)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure; the suffix decides the format (png, svg, pdf).

    Raises:
        InputError: matplotlib does not know the format.
        StorageError: the file cannot be written.
    """
    kind, known = Path(path).suffix.lstrip(".").lower() or "png", figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"A figure cannot be written as .{kind} ({Path(path).name}): use png, svg or pdf.")
    write_atomically(Path(path), lambda partial: figure.savefig(partial, format=kind, dpi=DPI))
