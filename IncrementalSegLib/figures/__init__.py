"""Figures: DSC bars, contours on three planes, contact sheets of synthetic volumes, curves of their quality.

Built on `matplotlib.figure.Figure` alone (no pyplot, no display, no global state), 1200 pixels wide.
"""

from .bars import plot_organ_bars, plot_strategies
from .contact_sheet import Sheet, plot_contact_sheet
from .curves import plot_quality_curves, plot_steps
from .planes import plot_planes

__all__ = [
    "Sheet",
    "plot_contact_sheet",
    "plot_organ_bars",
    "plot_planes",
    "plot_quality_curves",
    "plot_steps",
    "plot_strategies",
]
