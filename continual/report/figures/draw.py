"""From a chart to its SVG, at any width."""

from __future__ import annotations

from collections.abc import Mapping

from continual.report.figures import (
    bars,
    dendrogram,
    forest,
    heat,
    lines,
    pairs,
    tree,
)
from continual.report.figures.data import (
    Bars,
    Chart,
    Dendrogram,
    Forest,
    Lines,
    Pairs,
    Tree,
)

WIDE, NARROW = 560, 340
"""Pixels of a drawing beside another on a screen, and on a phone."""


def draw(chart: Chart, width: int = WIDE, palette: Mapping[str, str] | None = None, suffix: str = "") -> str:
    """Return a chart as SVG.

    Args:
        chart: What to draw.
        width: Pixels; text has the same size at any width.
        palette: Values of the colours by name; None: the page's CSS variables.
        suffix: Tells two drawings of one chart on a page apart.
    """
    identity = f"c-{chart.name}{suffix}"
    if isinstance(chart, Lines):
        return lines.draw(chart, width, palette, identity)
    if isinstance(chart, Bars):
        return bars.draw(chart, width, palette, identity)
    if isinstance(chart, Forest):
        return forest.draw(chart, width, palette, identity)
    if isinstance(chart, Tree):
        return tree.draw(chart, width, palette, identity)
    if isinstance(chart, Pairs):
        return pairs.draw(chart, width, palette, identity)
    if isinstance(chart, Dendrogram):
        return dendrogram.draw(chart, width, palette, identity)
    return heat.draw(chart, width, palette, identity)
