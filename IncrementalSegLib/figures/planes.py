"""A CT on three planes with the contours of several label maps: before, after, annotation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..organs import Organ, OrganTable
from .canvas import QUIET, TEXT, WIDTH_INCHES, legend_below, new_figure, save_figure

MARGIN_MM, NUMBER_RADIUS_MM = 30.0, 10.0
# The anatomical colours of liver, stomach and kidneys are nearly one colour as thin lines on grey; these are not.
CONTOURS = (
    *("#56B4E9", "#E69F00", "#00C08B", "#F0E442", "#FF6F3C"),
    *("#E78AC3", "#B3DE69", "#BEBADA", "#FFFFFF", "#A6761D"),
)

Box = tuple[slice, ...]


class View(NamedTuple):
    """A plane: name, array axes across and along the picture, whether the second runs downwards, letters at edges."""

    name: str
    axes: tuple[int, int]
    downwards: bool
    letters: str


VIEWS = (
    View("Axial", (0, 1), True, "RLAP"),
    View("Coronal", (0, 2), False, "RLSI"),
    View("Sagittal", (1, 2), False, "APSI"),
)


def plot_planes(
    ct: NDArray[Any],
    label_maps: Mapping[str, NDArray[Any]],
    table: OrganTable,
    spacing: Sequence[float],
    path: str | os.PathLike[str],
    window: tuple[float, float] = (-125.0, 275.0),
    reference: str | None = None,
    caption: str = "",
) -> None:
    """Contours of several label maps on the same axial, coronal and sagittal plane of a CT.

    Shown as radiologists look at it: the patient's right on the left of the picture, head up, millimetres to scale.
    Large organs also carry their number in the legend. Colours are chosen to be told apart, not anatomical.

    Args:
        ct: HU, (x, y, z) in LPS orientation.
        label_maps: row title (``before``, ``after``, ``annotation``) to label map of the same shape.
        table: organs of the label maps: values, names, colours.
        spacing: voxel size in mm, (x, y, z).
        path: file to write; the suffix decides the format.
        window: HU shown as black and as white.
        reference: name or key of the organ through whose centre the planes go, drawn bolder; all organs when left out.
        caption: a line under the picture, for example where the scan comes from.

    Raises:
        InputError: matplotlib is missing, shapes differ, or there is no voxel to centre on.
        StorageError: the file cannot be written.
    """
    if not label_maps or any(labels.shape != ct.shape for labels in label_maps.values()):
        raise InputError(
            f"Every label map of the picture needs the CT's {ct.shape} voxels: resample it onto the CT's grid."
        )
    focus = table.find(reference) if reference else None
    centre, box = centre_and_box(list(label_maps.values()), [focus] if focus else list(table), spacing)
    cuts = [tuple(box[axis] if axis in view.axes else centre[axis] for axis in range(3)) for view in VIEWS]
    organs = [o for o in table if any((labels[cut] == o.label).any() for labels in label_maps.values() for cut in cuts)]
    sizes = [(part.stop - part.start) * step for part, step in zip(box, spacing, strict=True)]
    widths, height = [sizes[view.axes[0]] for view in VIEWS], max(sizes[1], sizes[2])
    below = 0.2 * bool(caption) + 0.17 * -(-len(organs) // 4)  # inches: a line of text, four organs to a line
    figure = new_figure(0.5 + below + len(label_maps) * (WIDTH_INCHES - 0.3) * height / sum(widths))
    grid = figure.subplots(len(label_maps), 3, squeeze=False, width_ratios=widths)
    for panels, (title, labels) in zip(grid, label_maps.items(), strict=True):
        panels[0].set_ylabel(title, fontsize=11, color=TEXT, fontweight="bold")
        for axes, view, cut in zip(panels, VIEWS, cuts, strict=True):
            steps = [spacing[axis] for axis in view.axes]
            draw_plane(axes, view, ct[cut], steps, height).set_clim(*window)
            draw_contours(axes, labels[cut], steps, organs, focus=focus)
            _draw_numbers(axes, labels[cut], steps, organs)
    for axes, view in zip(grid[0], VIEWS, strict=True):
        axes.set_title(view.name, fontsize=10, color=TEXT)
    _organ_legend(figure, organs, caption)
    save_figure(figure, path)


def draw_plane(
    axes: Any, view: View, plane: NDArray[Any], spacing: Sequence[float], height: float, letters: bool = True
) -> Any:
    """The CT in grey, in mm, in the middle of a black panel of this height; letters say where right, head … are."""
    width, tall = (size * step for size, step in zip(plane.shape, spacing, strict=True))
    rim, origin = (height - tall) / 2, "upper" if view.downwards else "lower"
    limits, extent = (-rim, tall + rim), (0, width, 0, tall)
    if view.downwards:
        limits, extent = (tall + rim, -rim), (0, width, tall, 0)
    picture = axes.imshow(plane.T, cmap="gray", interpolation="bilinear", origin=origin, extent=extent)
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=limits, facecolor="black")
    places = [(0.03, 0.5), (0.97, 0.5), (0.5, 0.97), (0.5, 0.03)]
    for letter, place in zip(view.letters if letters else "", places, strict=letters):
        _outlined(axes, place, letter, transform=axes.transAxes)
    return picture


def draw_contours(
    axes: Any,
    labels: NDArray[Any],
    spacing: Sequence[float],
    organs: Sequence[Organ],
    *,
    width: float = 1.5,
    style: str = "solid",
    focus: Organ | None = None,
) -> None:
    """Every organ's outline in the colour of its legend number, the one in focus bolder."""
    x, y = _centres(labels, spacing)
    for number, organ in enumerate(organs, start=1):
        mask = np.pad(labels == organ.label, 1)
        if mask.any():
            lines = {"linewidths": width * 1.5 if organ == focus else width, "linestyles": style}
            axes.contour(x, y, mask.T, levels=[0.5], colors=[color_of(number)], **lines)


def _draw_numbers(axes: Any, labels: NDArray[Any], spacing: Sequence[float], organs: Sequence[Organ]) -> None:
    """The legend number of every organ that has room for it."""
    from scipy.ndimage import distance_transform_edt

    x, y = _centres(labels, spacing)
    for number, organ in enumerate(organs, start=1):
        depth = distance_transform_edt(np.pad(labels == organ.label, 1), sampling=spacing)
        i, j = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[i, j] >= NUMBER_RADIUS_MM:
            _outlined(axes, (x[i], y[j]), str(number), fontweight="bold")


def _centres(labels: NDArray[Any], spacing: Sequence[float]) -> list[NDArray[Any]]:
    """Positions in mm of the pixels of a plane that has a rim of one pixel more."""
    return [(np.arange(-1, size + 1) + 0.5) * step for size, step in zip(labels.shape, spacing, strict=True)]


def _outlined(axes: Any, place: tuple[float, float], text: str, **style: Any) -> None:
    """White text with a black rim, readable on any grey."""
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=1.8, foreground="black")]
    axes.text(*place, text, color="white", fontsize=9, ha="center", va="center", path_effects=rim, **style)


def _organ_legend(figure: Any, organs: Sequence[Organ], caption: str) -> None:
    from matplotlib.lines import Line2D

    names = [f"{number} {organ.name}" for number, organ in enumerate(organs, start=1)]
    lines = [Line2D([], [], color=color_of(number), linewidth=3) for number in range(1, len(organs) + 1)]
    legend = legend_below(figure, lines, names, title=caption or None, title_fontsize=9)
    legend.get_title().set_color(QUIET)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)


def centre_and_box(
    label_maps: Sequence[NDArray[Any]], organs: Sequence[Organ], spacing: Sequence[float]
) -> tuple[tuple[int, ...], Box]:
    """Median voxel of these organs per axis, over all maps, and the box around all labels with a margin of 30 mm.

    Each of the three planes through the median voxel meets the organs.
    """
    counts = _profiles([np.isin(labels, [organ.label for organ in organs]) for labels in label_maps])
    if not counts[0].any():
        names = ", ".join(organ.name for organ in organs)
        raise InputError(f"No label map of the picture shows {names}: choose another organ or scan.")
    box = []
    for count, step in zip(_profiles([labels > 0 for labels in label_maps]), spacing, strict=True):
        hit, margin = np.flatnonzero(count), round(MARGIN_MM / step)
        box.append(slice(max(0, int(hit[0]) - margin), min(count.size, int(hit[-1]) + margin + 1)))
    return tuple(int(np.searchsorted(np.cumsum(count), count.sum() / 2)) for count in counts), tuple(box)


def _profiles(masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.integer]]:
    """Number of voxels in every plane across x, y and z, summed over the masks."""
    return [np.sum([mask.sum(axis=tuple({0, 1, 2} - {axis})) for mask in masks], axis=0) for axis in range(3)]


def color_of(number: int) -> str:
    """The colour of an organ's legend number."""
    return CONTOURS[(number - 1) % len(CONTOURS)]
