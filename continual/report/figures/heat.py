"""Heat maps as SVG, for files; the page shows them as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual.report.figures.axes import SMALL
from continual.report.figures.data import CARRIED, TRAINED_ON, HeatMap
from continual.report.figures.numbers import format_change, format_points, short
from continual.report.figures.svg import Svg, text_width

CELL, LEAST = 28.0, 14.0


def draw_heat_map(chart: HeatMap, width: float, palette: Mapping[str, str] | None, identity: str) -> str:
    """Return the chart as SVG, wider than `width` if its columns need more."""
    names = [short(name, 18) for name in chart.columns]
    left = 14 + max((text_width(name) for name, _, _ in chart.rows), default=0.0)
    head = 12 + 0.75 * max((text_width(name, SMALL) for name in names), default=0.0)
    cell = min(64.0, max(LEAST, (width - left - 60) / max(1, len(names))))
    row = CELL if len(chart.rows) <= 40 else LEAST
    svg = Svg(left + cell * len(names) + 60, head + row * len(chart.rows) + 8, palette)
    for place, name in enumerate(names):
        x = left + cell * (place + 0.5)
        svg.text(x, head - 8, name, font_size=SMALL, transform=f"rotate(-40 {x:.1f} {head - 8:.1f})")
    for number, (name, _, state) in enumerate(chart.rows):
        y = head + row * number
        weight = 650 if state == "current" else None
        svg.text(0, y + row / 2 + 4, name, "bad" if state == "refused" else "ink", font_weight=weight)
        for place, score in enumerate(chart.scores[number]):
            if score is not None:
                _cell(svg, chart, number, place, left + cell * place, y, cell, row)
    return svg.render(chart.title, chart.about, identity)


def _cell(svg: Svg, chart: HeatMap, row: int, column: int, x: float, y: float, width: float, height: float) -> None:
    score, change = chart.scores[row][column], chart.changes[row][column]
    assert score is not None
    strength = chart.strength(row, column)
    tip = f"{chart.rows[row][0]}, {chart.columns[column]}: {format_points(score)}"
    tip += "" if change is None or not row else f" ({format_change(change)} against the first row)"
    flagged = (row, column) in chart.flagged
    carried = (row, column) in chart.carried
    tip += f"; {TRAINED_ON}" if flagged else f"; {CARRIED}" if carried else ""
    box: dict[str, Any] = {"x": x + 1, "y": y + 1, "width": width - 2, "height": height - 2, "rx": 3}
    svg.add("rect", fill="wash", **box)
    if strength:
        svg.add("rect", fill="up" if strength > 0 else "down", fill_opacity=abs(strength) / 20 * 0.55, **box)
    if (row, column) in chart.learned:
        svg.add("rect", fill="none", stroke="ink", stroke_width=2, data_tip=tip, **box)
    if width >= 32 and height >= CELL:
        svg.text(
            x + width / 2,
            y + height / 2 + 4,
            format_points(score) + ("!" if flagged else "~" * carried),
            "ink",
            text_anchor="middle",
            font_size=SMALL,
        )
