"""Bar charts: bars side by side or stacked, with a legend above."""

from __future__ import annotations

from collections.abc import Mapping

from continual.report.figures.axes import (
    BOTTOM,
    Frame,
    category_labels,
    label_room,
    y_axis,
)
from continual.report.figures.data import BarChart
from continual.report.figures.numbers import format_value, short
from continual.report.figures.svg import Svg, text_width

LINE = 18.0
"""Height of a line of the legend, pixels."""


def draw_bars(chart: BarChart, width: float, palette: Mapping[str, str] | None, identity: str) -> str:
    """Return the chart as SVG."""
    spots, lines = _legend(chart, width)
    height = (260.0 if width > 400 else 240.0) + LINE * lines
    top = 30.0 + LINE * lines
    values = [values for _, _, values in chart.series]
    heights = [sum(column) if chart.stacked else max(column) for column in zip(*values, strict=True)]
    high = 1.06 * max([*heights, 1e-9])
    count = len(chart.labels)
    frame = Frame(label_room(0, high), width - 4, top, height - BOTTOM, -0.5, count - 0.5, 0.0, high)
    svg = Svg(width, height, palette)
    y_axis(svg, frame, chart.unit)
    for (x, line), (name, colour, _) in zip(spots, chart.series, strict=True):
        y = 30 + LINE * line
        svg.add("rect", x=x, y=y - 9, width=11, height=11, rx=2.5, fill=colour)
        svg.text(x + 17, y + 1, short(name, 24))
    slot = (frame.right - frame.left) / max(1, count)
    block = min(0.68 * slot, 46.0 * (1 if chart.stacked else len(values)))
    for place, label in enumerate(chart.labels):
        _column(svg, frame, chart, place, label, block)
    category_labels(svg, chart.labels, frame.x, frame.bottom + 20)
    return svg.render(chart.title, chart.about, identity)


def _column(svg: Svg, frame: Frame, chart: BarChart, place: int, label: str, block: float) -> None:
    """Draw the bars of one label."""
    left, base = frame.x(place) - block / 2, 0.0
    bar_width = block if chart.stacked else block / len(chart.series)
    for number, (name, colour, values) in enumerate(chart.series):
        value = values[place]
        if value <= 0:
            continue
        top, bottom = frame.y(base + value), frame.y(base)
        tip = f"{label}, {name}: {format_value(value, chart.format)} {chart.unit}"
        x = left if chart.stacked else left + number * bar_width
        # A gap separates neighbouring bars for readers who can't tell their colours apart.
        gap = 1.0 if bottom - top > 3 and bar_width > 3 else 0.0
        svg.add(
            "rect",
            x=x + gap / 2,
            y=top,
            width=max(0.8, bar_width - gap),
            height=max(0.8, bottom - top - (gap if chart.stacked else 0)),
            rx=1.5 if bar_width > 6 else None,
            fill=colour,
            data_tip=tip,
        )
        base += value if chart.stacked else 0.0


def _legend(chart: BarChart, width: float) -> tuple[list[tuple[float, int]], int]:
    """Return the position of each name in the legend, as (x, line), and the number of lines."""
    spots, x, line = [], 0.0, 0
    for name, _, _ in chart.series:
        need = 17 + text_width(short(name, 24)) + 14
        if x and x + need > width:
            x, line = 0.0, line + 1
        spots.append((x, line))
        x += need
    return spots, line + 1
