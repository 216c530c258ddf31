"""Forest plots: differences with their intervals, one per row."""

from __future__ import annotations

from collections.abc import Mapping

from continual.report.figures.axes import SMALL, Frame, bounds
from continual.report.figures.data import ForestPlot
from continual.report.figures.numbers import (
    format_change,
    short,
    tick_label,
    ticks,
)
from continual.report.figures.svg import Svg, text_width

ROW = 30.0


def draw_forest(chart: ForestPlot, width: float, palette: Mapping[str, str] | None, identity: str) -> str:
    """Return the chart as SVG."""
    height = 20 + ROW * len(chart.rows) + 28
    most = 26 if width > 400 else 14
    names = [f"{short(name, most)} · {role}" if role else short(name, most) for name, role, _, _, _ in chart.rows]
    left = min(0.48 * width, 12 + max(map(text_width, names), default=0.0))
    ends = [end for *_, value, pair in chart.rows for end in (value, *(pair or ()))]
    low, high = bounds(ends, 2.0, zero=True)
    frame = Frame(left, width - 52, 20, height - 28, low, high, 0, 1)
    svg = Svg(width, height, palette)
    for tick in ticks(low, high, 6 if width > 400 else 4):
        x = frame.x(tick)
        svg.line(x, frame.top, x, frame.bottom, "axis" if tick == 0 else "rule", stroke_width=1.25 if tick == 0 else 1)
        svg.text(x, frame.bottom + 20, tick_label(tick), text_anchor="middle", font_size=SMALL)
    svg.text(0, 12, chart.unit, font_size=SMALL)
    for place, (row, name) in enumerate(zip(chart.rows, names, strict=True)):
        _, _, colour, value, pair = row
        y = frame.top + ROW * (place + 0.5)
        interval = "" if pair is None else f" ({format_change(pair[0])} to {format_change(pair[1])})"
        svg.text(0, y + 4, name, "ink")
        if pair is not None:
            ends_x = frame.x(pair[0]), frame.x(pair[1])
            svg.line(ends_x[0], y, ends_x[1], y, colour, stroke_width=5, stroke_opacity=0.28, stroke_linecap="round")
        tip = f"{row[0]}: {format_change(value)} {chart.unit}{interval}"
        svg.add("circle", cx=frame.x(value), cy=y, r=5, fill=colour, data_tip=tip)
        svg.text(width, y + 4, format_change(value), "ink", text_anchor="end", font_weight=600)
    return svg.render(chart.title, chart.about, identity)
