"""A contact sheet of synthetic volumes: three planes each, what was asked for and what the model sees."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..errors import InputError
from ..organs import OrganTable
from .canvas import QUIET, TEXT, WIDTH_INCHES, legend_below, new_figure, save_figure
from .planes import VIEWS, centre_and_box, color_of, draw_contours, draw_plane

_GAMMA = 0.7  # a window that starts just below fat would show fat as black as air


class Sheet(NamedTuple):
    """A volume of the sheet: title, image in HU, requested and predicted label map, all (x, y, z)."""

    title: str
    image: NDArray[Any]
    requested: NDArray[Any]
    predicted: NDArray[Any]


def plot_contact_sheet(
    sheets: Sequence[Sheet],
    table: OrganTable,
    spacing: Sequence[float],
    path: str | os.PathLike[str],
    window: tuple[float, float] = (-125.0, 275.0),
) -> None:
    """Volumes two to a row, each on the axial, coronal and sagittal plane through the middle of its organs.

    Thin dotted lines are what was asked for, thick ones what the model sees. The picture says that it is synthetic.

    Args:
        sheets: the volumes.
        table: organs of the label maps.
        spacing: voxel size in mm, (x, y, z).
        path: file to write; the suffix decides the format.
        window: HU shown as black and as white; dark tissue is lifted, so that fat can be told from air.

    Raises:
        InputError: no volume, matplotlib is missing, or a volume without any organ.
        StorageError: the file cannot be written.
    """
    if not sheets:
        raise InputError("A contact sheet needs at least one synthetic volume: ask for more with --count.")
    rows = -(-len(sheets) // 2)
    figure = new_figure(0.7 + 0.17 * -(-len(table) // 4) + rows * (WIDTH_INCHES / 6 + 0.25))
    grid = figure.subplots(rows, 6, squeeze=False)
    for panels in grid.reshape(-1, 3)[len(sheets) :]:
        for axes in panels:
            axes.set_axis_off()
    for panels, sheet in zip(grid.reshape(-1, 3), sheets, strict=False):
        _draw_sheet(panels, sheet, table, spacing, window)
    figure.suptitle("SYNTHETIC: no patient was scanned", fontsize=10, color=TEXT, fontweight="bold")
    _legend(figure, table)
    save_figure(figure, path)


def _draw_sheet(
    panels: Any, sheet: Sheet, table: OrganTable, spacing: Sequence[float], window: tuple[float, float]
) -> None:
    from matplotlib.colors import PowerNorm

    centre, _ = centre_and_box([sheet.requested], list(table), spacing)
    height = max(size * step for size, step in zip(sheet.image.shape, spacing, strict=True))
    panels[0].set_ylabel(sheet.title, fontsize=7, color=TEXT)
    for axes, view in zip(panels, VIEWS, strict=True):
        cut = tuple(slice(None) if axis in view.axes else centre[axis] for axis in range(3))
        steps = [spacing[axis] for axis in view.axes]
        draw_plane(axes, view, sheet.image[cut], steps, height, letters=False).set_norm(PowerNorm(_GAMMA, *window))
        draw_contours(axes, sheet.predicted[cut], steps, list(table), width=1.0)
        draw_contours(axes, sheet.requested[cut], steps, list(table), width=0.7, style="dotted")


def _legend(figure: Any, table: OrganTable) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=color_of(number), linewidth=2) for number in range(1, len(table) + 1)]
    lines += [Line2D([], [], color=QUIET, linewidth=2), Line2D([], [], color=QUIET, linewidth=1, linestyle="dotted")]
    legend_below(figure, lines, [*table.names, "the model sees", "asked for"])
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.02, wspace=0.0, hspace=0.02)
