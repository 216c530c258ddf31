"""Dendrograms: one leaf per row at the left, and each join at the horizontal position of its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.report.figures.axes import SMALL, Frame, number_labels
from continual.report.figures.axes import bounds as axis_bounds
from continual.report.figures.data import Dendrogram
from continual.report.figures.numbers import format_value, short, ticks
from continual.report.figures.svg import Svg, text_width

ROW, LEAST = 34.0, 14.0
TOP, BOTTOM = 22.0, 28.0
COLOURS = 6
"""Colours of groups; further groups repeat them."""


def draw_dendrogram(chart: Dendrogram, width: float, palette: Mapping[str, str] | None, identity: str) -> str:
    """Return the chart as SVG."""
    count = len(chart.leaves)
    row = ROW if count <= 20 else LEAST
    names = [short(leaf, 22 if width > 400 else 14) for leaf in chart.leaves]
    left = min(0.5 * width, 12 + max(map(text_width, names), default=0.0))
    values = [value for _, _, value in chart.joins]
    low, high = axis_bounds([*values, *([] if chart.cut is None else [chart.cut])], 0.002, zero=False)
    frame = Frame(left, width - 24, TOP, TOP + row * count, low, high, 0.0, 1.0)
    svg = Svg(width, frame.bottom + BOTTOM, palette)
    svg.text(0, 12, chart.unit, font_size=SMALL)
    about = 5 if width > 400 else 3
    for tick in ticks(low, high, about):
        svg.line(frame.x(tick), frame.top, frame.x(tick), frame.bottom, "rule")
    number_labels(svg, frame, frame.bottom + 20, about)
    if chart.cut is not None:
        x = frame.x(chart.cut)
        svg.line(x, frame.top - 4, x, frame.bottom, "ink", stroke_dasharray="2 3", stroke_width=1.25)
    for place, name in enumerate(names):
        svg.text(0, frame.top + row * (place + 0.5) + 4, name, "ink", font_size=SMALL if row < 16 else None)
    _branches(svg, chart, frame, row)
    return svg.render(chart.title, chart.about, identity)


def _branches(svg: Svg, chart: Dendrogram, frame: Frame, row: float) -> None:
    """Draw the joins, each with a point that has a tooltip."""
    spots = [(frame.left, frame.top + row * (place + 0.5)) for place in range(len(chart.leaves))]
    members = chart.members
    points: list[dict[str, Any]] = []
    for number, (left, right, value) in enumerate(chart.joins):
        (x1, y1), (x2, y2) = spots[left], spots[right]
        x = frame.x(value)
        groups = {chart.groups[place] for place in members[len(chart.leaves) + number]}
        colour = f"series-{min(groups) % COLOURS + 1}" if len(groups) == 1 else "axis"
        path = f"M{x1:.1f} {y1:.1f}H{x:.1f}V{y2:.1f}H{x2:.1f}"
        svg.add("path", d=path, fill="none", stroke=colour, stroke_width=2, stroke_linejoin="round")
        spots.append((x, (y1 + y2) / 2))
        names = (" and ".join(chart.leaves[place] for place in sorted(members[side])) for side in (left, right))
        tip = f"{' joined with '.join(names)}: {format_value(value, chart.format)}"
        points.append({"cx": x, "cy": (y1 + y2) / 2, "r": 4.5, "fill": colour, "data_tip": tip})
    for point in points:
        svg.add("circle", **point)
