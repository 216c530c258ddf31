"""Square matrices of the effect of each column on each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.report.figures.axes import SMALL
from continual.report.figures.data import PairMatrix
from continual.report.figures.numbers import format_value, short
from continual.report.figures.svg import Svg, text_width

CELL, LEAST = 34.0, 13.0
LEGEND = 26.0
SLANTED = 24.0
"""Least width of a cell for slanted column names, pixels; above narrower cells the names are vertical."""

TINT = 0.6
"""Opacity of the strongest colour, at which text is still readable."""


def draw_pairs(chart: PairMatrix, width: float, palette: Mapping[str, str] | None, identity: str) -> str:
    """Return the chart as SVG, wider than `width` if its cells would be too small."""
    count, most = len(chart.labels), 18 if width > 400 else 12
    names = [short(label, most) for label in chart.labels]
    left = 12 + max(map(text_width, names), default=0.0)
    longest = max((text_width(name, SMALL) for name in names), default=0.0)
    slant = 0.75 * longest
    cell = min(96.0, (width - left - slant - 8) / max(1, count))
    angle = -40 if cell >= SLANTED else -90
    if angle == -90:
        slant = 0.0
        cell = min(SLANTED, max(LEAST, (width - left - 8) / max(1, count)))
    head = LEGEND + 12 + (slant or longest)
    row = min(CELL, cell)
    svg = Svg(max(width, left + cell * count + slant + 8), head + row * count + 4, palette)
    x = 0.0
    for colour, word in zip(("up", "down"), chart.words, strict=True):
        svg.add("rect", x=x, y=4, width=11, height=11, rx=2.5, fill=colour, fill_opacity=TINT)
        svg.text(x + 17, 14, word)
        x += 17 + text_width(word) + 16
    for place, name in enumerate(names):
        x, y = left + cell * (place + 0.5), head + row * place
        foot = x + 4 if angle == -90 else x
        svg.text(foot, head - 8, name, font_size=SMALL, transform=f"rotate({angle} {foot:.1f} {head - 8:.1f})")
        svg.text(0, y + row / 2 + 4, name, "ink", font_size=SMALL if row < 16 else None)
        for other in range(count):
            _cell(svg, chart, (place, other), (left + cell * other, y), (cell, row))
    begin = 0
    for size in chart.groups:
        x, y = left + cell * begin, head + row * begin
        svg.add("rect", x=x, y=y, width=cell * size, height=row * size, rx=4, fill="none", stroke="ink",
                stroke_width=1.5, pointer_events="none")  # fmt: skip
        begin += size
    return svg.render(chart.title, chart.about, identity)


def _cell(
    svg: Svg, chart: PairMatrix, place: tuple[int, int], corner: tuple[float, float], size: tuple[float, float]
) -> None:
    value = chart.values[place[0]][place[1]]
    box: dict[str, Any] = {"x": corner[0] + 1, "y": corner[1] + 1, "width": size[0] - 2, "height": size[1] - 2, "rx": 3}
    if value is None:
        svg.add("rect", fill="none", stroke="rule", **box)
        return
    svg.add("rect", fill="wash", **box)
    strength = abs(value) / chart.strongest if chart.strongest else 0.0
    tip = f"{chart.labels[place[0]]} with {chart.labels[place[1]]}: {format_value(value, chart.format)}"
    svg.add("rect", fill="down" if value > 0 else "up", fill_opacity=f"{TINT * strength:.2f}", data_tip=tip, **box)
    text = format_value(value, chart.format)
    if size[0] >= text_width(text, SMALL) + 6 and size[1] >= 20:
        x, y = corner[0] + size[0] / 2, corner[1] + size[1] / 2 + 4
        svg.text(x, y, text, "ink", text_anchor="middle", font_size=SMALL, pointer_events="none")
