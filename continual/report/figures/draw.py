"""Draw any chart as SVG, at any width."""

from __future__ import annotations

from collections.abc import Mapping

from continual.report.figures.bars import draw_bars
from continual.report.figures.data import (
    BarChart,
    Chart,
    Dendrogram,
    ForestPlot,
    LineChart,
    PairMatrix,
    VersionTree,
)
from continual.report.figures.dendrogram import draw_dendrogram
from continual.report.figures.forest import draw_forest
from continual.report.figures.heat import draw_heat_map
from continual.report.figures.lines import draw_lines
from continual.report.figures.pairs import draw_pairs
from continual.report.figures.tree import draw_tree

WIDE, NARROW = 560, 340
"""Pixels of a drawing: half the width of a desktop page, and a phone."""


def draw_chart(chart: Chart, width: int = WIDE, palette: Mapping[str, str] | None = None, suffix: str = "") -> str:
    """Return a chart as SVG.

    Args:
        width: Pixels; text has the same size at any width.
        palette: Colour values by name; None to use the page's CSS variables.
        suffix: Makes ids unique when a page holds several drawings of one chart.
    """
    identity = f"c-{chart.name}{suffix}"
    if isinstance(chart, LineChart):
        return draw_lines(chart, width, palette, identity)
    if isinstance(chart, BarChart):
        return draw_bars(chart, width, palette, identity)
    if isinstance(chart, ForestPlot):
        return draw_forest(chart, width, palette, identity)
    if isinstance(chart, VersionTree):
        return draw_tree(chart, width, palette, identity)
    if isinstance(chart, PairMatrix):
        return draw_pairs(chart, width, palette, identity)
    if isinstance(chart, Dendrogram):
        return draw_dendrogram(chart, width, palette, identity)
    return draw_heat_map(chart, width, palette, identity)
