"""Charts and tables of long streams, cut to what a page can show.

The first position or row, which is the root base, and the last one stay. What is left out is counted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from continual.report.figures.data import BarChart, Chart, HeatMap, LineChart, Series, Table

ROWS = 60
"""Most rows of a table or a matrix: the first one and the last ones."""

POINTS = 120
"""Most positions of a line, evenly spaced, besides those with a mark; and most bars, the last ones."""

Value = TypeVar("Value")


def thin_table(table: Table) -> Table:
    """Return a table with the first row and the last ones; its caption says how many rows are left out."""
    if len(table.rows) <= ROWS:
        return table
    left_out = len(table.rows) - ROWS
    caption = f"{table.caption} {left_out:,} rows after the first one are left out."
    return replace(table, caption=caption, rows=_ends(table.rows))


def thin_chart(chart: Chart) -> Chart:
    """Return a chart with fewer positions. Charts that don't grow with the versions stay as they are."""
    if isinstance(chart, LineChart) and chart.places is None and len(chart.labels) > POINTS:
        return _thin_lines(chart)
    if isinstance(chart, BarChart) and len(chart.labels) > POINTS:
        series = [(name, colour, values[-POINTS:]) for name, colour, values in chart.series]
        return replace(chart, labels=chart.labels[-POINTS:], series=series)
    if isinstance(chart, HeatMap) and len(chart.rows) > ROWS:
        return _thin_matrix(chart)
    return chart


def _thin_lines(chart: LineChart) -> LineChart:
    last = len(chart.labels) - 1
    even = {round(last * step / (POINTS - 1)) for step in range(POINTS)}
    marked = {place for series in chart.series if not series.quiet for place in series.marks | series.flagged}
    kept = sorted(even | marked)
    place_of = {place: number for number, place in enumerate(kept)}

    def thin(series: Series) -> Series:
        return replace(
            series,
            values=[series.values[place] for place in kept],
            bounds=None if series.bounds is None else [series.bounds[place] for place in kept],
            marks=frozenset(place_of[place] for place in series.marks if place in place_of),
            flagged=frozenset(place_of[place] for place in series.flagged if place in place_of),
        )

    return replace(chart, labels=[chart.labels[place] for place in kept], series=[thin(each) for each in chart.series])


def _thin_matrix(chart: HeatMap) -> HeatMap:
    kept = _ends(list(range(len(chart.rows))))
    place_of = {place: number for number, place in enumerate(kept)}
    return replace(
        chart,
        rows=_ends(chart.rows),
        scores=_ends(chart.scores),
        changes=_ends(chart.changes),
        learned=frozenset((place_of[row], column) for row, column in chart.learned if row in place_of),
        flagged=frozenset((place_of[row], column) for row, column in chart.flagged if row in place_of),
        carried=frozenset((place_of[row], column) for row, column in chart.carried if row in place_of),
    )


def _ends(rows: list[Value]) -> list[Value]:
    return [rows[0], *rows[1 - ROWS :]]
