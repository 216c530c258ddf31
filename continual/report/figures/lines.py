"""Line charts with intervals; each line has its name at its right end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from continual.report.figures.axes import (
    BOTTOM,
    TOP,
    Frame,
    bounds,
    category_labels,
    label_room,
    number_labels,
    y_axis,
)
from continual.report.figures.data import LineChart, Series
from continual.report.figures.numbers import percent_label, short, tick_label
from continual.report.figures.svg import (
    SIZE,
    Svg,
    path,
    text_width,
)

DASHES = (None, "7 4", "2 4", "9 3 2 3")
GAP = 16.0
"""Least distance of two names at the right end, pixels."""

MARKED = 40
"""Most positions at which every value has a symbol."""


def draw_lines(chart: LineChart, width: float, palette: Mapping[str, str] | None, identity: str) -> str:
    """Return the chart as SVG."""
    height = 300.0 if width > 400 else 270.0
    named = [series for series in chart.series if not series.quiet]
    frame = _frame(chart, named, width, height)
    places = chart.places or [float(place) for place in range(len(chart.labels))]
    svg = Svg(width, height, palette)
    y_axis(svg, frame, chart.unit, _label(chart), zero=chart.zero)
    if chart.places is None:
        category_labels(svg, chart.labels, frame.x, frame.bottom + 20)
    else:
        number_labels(svg, frame, frame.bottom + 20)
        svg.text(frame.right, 12, chart.axis + " →", text_anchor="end", font_size=SIZE - 0.5)
    dotted: dict[str, Any] = {"stroke_width": 1.5, "stroke_dasharray": "2 4"}
    if chart.level is not None and frame.y_low <= chart.level <= frame.y_high:
        svg.line(frame.left, frame.y(chart.level), frame.right, frame.y(chart.level), "quiet", **dotted)
    if chart.chosen is not None:
        svg.line(frame.x(chart.chosen), frame.top, frame.x(chart.chosen), frame.bottom, "quiet", **dotted)
    for series in named:
        _band(svg, frame, places, series)
    for number, series in sorted(enumerate(chart.series), key=lambda pair: (not pair[1].quiet, pair[1].heavy)):
        _line(svg, frame, places, series, number)
    _names(svg, frame, named, width)
    return svg.render(chart.title, chart.about, identity, frame.data())


def scales(chart: LineChart) -> tuple[float, float, float, float]:
    """Return the values at the edges of the plot: left, right, bottom, top."""
    values = [value for series in chart.series for value in series.values if value is not None]
    named = [series for series in chart.series if not series.quiet]
    ends = [end for series in named for interval in series.bounds or () if interval for end in interval]
    least = 2.0 if chart.format == "change" else 0.0
    low, high = bounds([*values, *ends], least, chart.zero)
    places = chart.places or [0.0, max(1.0, len(chart.labels) - 1.0)]
    left, right = min(places), max(places)
    pad = 0.02 * (right - left) or 0.5
    return left - pad, right + pad, low, high


def _frame(chart: LineChart, named: list[Series], width: float, height: float) -> Frame:
    x_low, x_high, low, high = scales(chart)
    room = max((text_width(short(series.name, _most(width))) for series in named), default=0.0)
    return Frame(
        label_room(low, high, _label(chart)), width - room - 14, TOP, height - BOTTOM, x_low, x_high, low, high
    )


def _label(chart: LineChart) -> Callable[[float], str]:
    return percent_label if chart.format in ("share", "kept") else tick_label


def _most(width: float) -> int:
    return 16 if width > 400 else 11


def _band(svg: Svg, frame: Frame, places: list[float], series: Series) -> None:
    """Draw the intervals: an area over neighbouring positions, a vertical bar for a single one."""
    if series.bounds is None:
        return
    run: list[tuple[float, float, float]] = []
    for place, ends in zip([*places, 0.0], [*series.bounds, None], strict=True):
        if ends is not None:
            run.append((frame.x(place), frame.y(ends[0]), frame.y(ends[1])))
            continue
        if len(run) > 1:
            edge = [(x, top) for x, _, top in run] + [(x, bottom) for x, bottom, _ in reversed(run)]
            svg.add("path", d=path(edge) + "Z", fill=series.colour, fill_opacity=0.13)
        elif run:
            ((x, bottom, top),) = run
            svg.line(x, bottom, x, top, series.colour, stroke_width=6, stroke_opacity=0.2)
        run = []


def _line(svg: Svg, frame: Frame, places: list[float], series: Series, number: int) -> None:
    points = [
        None if value is None else (frame.x(place), frame.y(value))
        for place, value in zip(places, series.values, strict=True)
    ]
    colour = "faint" if series.quiet else series.colour
    width = 3.5 if series.heavy else 1.0 if series.quiet else 2.2
    dash = None if series.quiet or series.heavy else DASHES[series.number // 7 % len(DASHES)]
    svg.add(
        "path",
        d=path(points),
        stroke=colour,
        fill="none",
        stroke_width=width,
        stroke_dasharray=dash,
        stroke_opacity=0.5 if series.quiet else None,
        stroke_linejoin="round",
        stroke_linecap="round",
        class_=f"line l{number}",
    )
    if series.quiet or series.heavy:
        return
    for place, point in enumerate(points):
        if point is not None and place in series.flagged:
            _cross(svg, *point, series.colour)
        elif point is not None and (place in series.marks or len(points) <= MARKED):
            _symbol(svg, *point, series, large=place in series.marks)


def _symbol(svg: Svg, x: float, y: float, series: Series, *, large: bool) -> None:
    """Draw the symbol of a series; a large one is hollow."""
    r = 5.5 if large else 3.2
    style: dict[str, Any] = {"fill": series.colour}
    if large:
        style = {"fill": "card", "stroke": series.colour, "stroke_width": 2.4}
    shape = series.number % 4
    if shape == 0:
        svg.add("circle", cx=x, cy=y, r=r, **style)
    elif shape == 1:
        svg.add("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, **style)
    elif shape == 2:
        r *= 1.3
        svg.add("path", d=path([(x, y - r), (x + r, y), (x, y + r), (x - r, y)]) + "Z", **style)
    else:
        r *= 1.25
        svg.add("path", d=path([(x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)]) + "Z", **style)


def _cross(svg: Svg, x: float, y: float, colour: str) -> None:
    """Draw the cross of a score on texts that the version was trained on."""
    strokes = path([(x - 4, y - 4), (x + 4, y + 4), None, (x - 4, y + 4), (x + 4, y - 4)])
    svg.add("path", d=strokes, fill="none", stroke=colour, stroke_width=2.4, stroke_linecap="round", class_="cross")


def _names(svg: Svg, frame: Frame, named: list[Series], width: float) -> None:
    """Write the name of each line beside its last value, without overlaps and within the plot."""
    ends = []
    for number, series in enumerate(named):
        last = next((value for value in reversed(series.values) if value is not None), None)
        if last is not None:
            ends.append((frame.y(last), number, series))
    ends.sort(key=lambda end: end[:2])
    spots = spread_labels([y for y, _, _ in ends], GAP, frame.top + 4, frame.bottom)
    for spot, (_, _, series) in zip(spots, ends, strict=True):
        weight = 650 if series.heavy else 500
        name = short(series.name, _most(width))
        svg.text(frame.right + 10, spot + 4, name, series.colour, font_weight=weight)


def spread_labels(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions close to the wanted ones (sorted), at least `gap` apart, and within the limits if all fit."""
    places: list[float] = []
    for value in wanted:
        places.append(max(value, places[-1] + gap) if places else max(value, low))
    ceiling = high
    for number in reversed(range(len(places))):
        places[number] = min(places[number], ceiling)
        ceiling = places[number] - gap
    return places
