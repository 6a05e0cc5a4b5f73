"""Figures: DSC bars and contours on three planes.

Built on `matplotlib.figure.Figure` alone (no pyplot, no display, no global state), 1200 pixels wide.
"""

from .bars import plot_organ_bars, plot_strategies
from .planes import plot_planes

__all__ = ["plot_organ_bars", "plot_planes", "plot_strategies"]
