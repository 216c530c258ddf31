"""The page's charts as plain Plotly specifications, without Plotly's Python side.

Colours are names of CSS variables, which the page's script reads, so that a chart follows the page from light to
dark and onto paper. Every text that comes from outside goes through `plain`, because Plotly reads a little HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from continual.eval.report import Report, Row
from continual.eval.summary import bills, over_base, since_learned

Figure = dict[str, Any]

SERIES = 7
"""Distinct colours; beyond them the dash pattern changes."""

LABELLED = 8
"""Lines that are labelled at their right end; more get a legend."""

HEIGHT = 330
"""Pixels of a chart, of which the plot itself takes all but `MARGINS`."""

MARGINS = 56
GAP = 17
"""Pixels between two labels at the right end."""

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")


def plain(text: str) -> str:
    """Return text that Plotly shows as it is: its pseudo-HTML and its TeX see entities, never a tag or a formula."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def charts(report: Report) -> dict[str, Figure]:
    """Return the figures by the id of their place on the page; a chart with nothing to show is left out."""
    inside = [task.name for task in report.tasks if task.domain is not None]
    outside = [task.name for task in report.tasks if task.domain is None]
    found = {
        "gain": _lines(report, inside, lambda place, task: over_base(report, report.versions[place], task)),
        "since": _lines(report, inside, lambda place, task: since_learned(report, place, task)),
        "ood": _lines(report, outside, lambda place, task: over_base(report, report.versions[place], task), mean=True),
        "last": _forest(report),
        "search": _search(report),
        "cost": _bars(report),
        "total": _cumulative(report),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _lines(
    report: Report, tasks: list[str], value: Callable[[int, str], float | None], mean: bool = False
) -> Figure | None:
    """Draw one line a task over the versions from the root base to the one in service."""
    path = report.path
    ids = [report.versions[place].id for place in path]
    traces: list[Figure] = []
    ends: list[tuple[float, str, str]] = []
    for number, task in enumerate(tasks):
        values = [value(place, task) for place in path]
        if len(path) < 2 or all(each is None for each in values):
            continue
        learned = next((step for step, place in enumerate(path) if task in report.learned[place]), None)
        colour = f"--series-{number % SERIES + 1}"
        style = {"color": colour, "width": 1.5 if mean else 2.25, "dash": DASHES[number // SERIES % len(DASHES)]}
        hover = [
            f"{plain(task)}, {name}: {each:+.1f} points"
            + (f" (score {score:.1f})" if (score := report.versions[place].scores.get(task)) is not None else "")
            if each is not None
            else ""
            for name, place, each in zip(ids, path, values, strict=True)
        ]
        sizes = [11 if step == learned else 5 for step in range(len(path))]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(task),
                "x": ids,
                "y": values,
                "line": style,
                "marker": {
                    "color": colour,
                    "size": sizes,
                    "symbol": SYMBOLS[number % len(SYMBOLS)],
                    "opacity": 1,
                    "line": {"width": 0},
                },
                "opacity": 0.75 if mean else 1,
                "hoverinfo": "text",
                "hovertext": hover,
            }
        )
        last = next((each for each in reversed(values) if each is not None), None)
        if last is not None:
            ends.append((last, task, colour))
    if mean and traces and len(report.ood_set) > 1:
        base = report.metrics["ood_mean"][0]
        means = [report.metrics["ood_mean"][place] for place in path]
        shifted = [None if each is None or base is None else each - base for each in means]
        label = f"mean of {len(report.ood_set)}"
        hover = [
            "" if each is None else f"{label}, {name}: {each:+.1f}" for name, each in zip(ids, shifted, strict=True)
        ]
        bold = {"color": "--ink", "width": 4}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "x": ids,
                "y": shifted,
                "line": bold,
                "hoverinfo": "text",
                "hovertext": hover,
            }
        )
        if shifted[-1] is not None:
            ends.append((shifted[-1], label, "--ink"))
    if not traces:
        return None
    labelled = len(traces) <= LABELLED
    known = [each for trace in traces for each in trace["y"] if each is not None]
    low, high = min(0.0, *known), max(0.0, *known)
    # A flat curve is shown flat: never less than two points of height.
    pad = max(0.06 * (high - low), (2.0 - (high - low)) / 2, 0.0)
    bounds = [low - pad, high + pad]
    layout = _layout(ids, "points")
    layout["yaxis"] |= {"range": bounds, "zeroline": True}
    layout["showlegend"] = not labelled
    if labelled:
        layout["annotations"] = _end_labels(ends, bounds)
        layout["margin"]["r"] = 24 + 7.6 * max(len(_short(name)) for _, name, _ in ends)
    return {"data": traces, "layout": layout}


def _end_labels(ends: list[tuple[float, str, str]], bounds: list[float]) -> list[Figure]:
    """Place a name at the right end of each line, apart from each other."""
    unit = (bounds[1] - bounds[0]) / (HEIGHT - MARGINS)  # points per pixel
    places: list[float] = []
    ends = sorted(ends)
    for value, _, _ in ends:
        places.append(max(value, places[-1] + GAP * unit) if places else value)
    # What was pushed out at the top is pushed back from there.
    ceiling = bounds[1]
    for number in reversed(range(len(places))):
        places[number] = min(places[number], ceiling)
        ceiling = places[number] - GAP * unit
    return [
        {
            "xref": "paper",
            "x": 1.0,
            "xanchor": "left",
            "xshift": 8,
            "y": place,
            "yanchor": "middle",
            "text": plain(_short(name)),
            "showarrow": False,
            "font": {"color": colour, "size": 13},
        }
        for (_, name, colour), place in zip(ends, places, strict=True)
    ]


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _forest(report: Report) -> Figure | None:
    """Draw the last update's differences to its parent with their intervals, one row a task."""
    changes = report.versions[-1].changes
    names = [task.name for task in report.tasks if task.name in changes][::-1]
    if not names:
        return None
    domains = {task.name: task.domain for task in report.tasks}
    colours = [_colour(report, domain) if (domain := domains[name]) is not None else "--ink" for name in names]
    points = [changes[name] for name in names]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [each["difference"] for each in points],
                "y": list(range(len(names))),
                "marker": {"size": 10, "color": colours},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_span(each["high"], each["difference"]) for each in points],
                    "arrayminus": [_span(each["difference"], each["low"]) for each in points],
                    "color": "--quiet",
                    "thickness": 1.5,
                    "width": 0,
                },
                "hoverinfo": "text",
                "hovertext": [
                    f"{plain(name)}: {each['difference']:+.1f}" for name, each in zip(names, points, strict=True)
                ],
                "showlegend": False,
            }
        ],
        "layout": _layout(None, "points")
        | {
            "height": MARGINS + 24 + 30 * len(names),
            "margin": {"l": 56, "r": 16, "t": 10, "b": 48},
            "xaxis": {**_axis(), "zeroline": True, "title": {"text": "points", "standoff": 8}},
            "yaxis": {
                **_axis(),
                # Places, not names: two long names may be cut to the same text.
                "tickvals": list(range(len(names))),
                "ticktext": [plain(f"{_short(name, 26)} ({changes[name]['kind']})") for name in names],
                "range": [-0.7, len(names) - 0.3],
                "showgrid": False,
                "automargin": True,
            },
        },
    }


def searched(report: Report) -> Row | None:
    """Return the newest version on the way to the one in service whose coefficients were searched."""
    return next(
        (report.versions[place] for place in reversed(report.path) if "search" in report.versions[place].recipe), None
    )


def _search(report: Report) -> Figure | None:
    """Draw the loss per domain over the weights that a search tried, against what was in service."""
    row = searched(report)
    if row is None:
        return None
    found = row.recipe["search"]
    reference, curve = found["reference"]["losses"], found["curve"]
    line = "weight" in curve[0]["coefficients"]  # else every point is a step of a gradient search
    places = [point["coefficients"]["weight"] if line else step for step, point in enumerate(curve)]
    data = []
    for domain in reference:
        known = [
            (place, 100 * (point["losses"][domain] / reference[domain] - 1))
            for place, point in zip(places, curve, strict=True)
            if domain in point["losses"] and reference[domain]
        ]
        colour, symbol = _colour(report, domain), SYMBOLS[_number(report, domain) % len(SYMBOLS)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(domain),
                "x": [place for place, _ in known],
                "y": [change for _, change in known],
                "line": {"color": colour, "width": 2},
                "marker": {"color": colour, "size": 6, "symbol": symbol},
                "hoverinfo": "text",
                "hovertext": [f"{plain(domain)} at {place:.3g}: {change:+.1f} %" for place, change in known],
            }
        )
    before = found["reference"]["loss"]
    means = [100 * (point["loss"] / before - 1) for point in curve]
    if len(reference) > 1:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "mean",
                "x": places,
                "y": means,
                "line": {"color": "--ink", "width": 4},
                "hoverinfo": "text",
                "hovertext": [f"mean at {at:.3g}: {change:+.1f} %" for at, change in zip(places, means, strict=True)],
            }
        )
    layout = _layout(None, "change of the loss, %") | _above()
    layout["xaxis"] |= {"title": {"text": "weight of the update" if line else "step of the search", "standoff": 8}}
    layout["margin"] = {**layout["margin"], "b": 48}
    layout["yaxis"]["zeroline"] = True
    floor = 100 * row.recipe["config"]["merge"]["floor"]  # no domain's loss may rise by more
    dashed = {"type": "line", "line": {"color": "--quiet", "width": 1.5, "dash": "dot"}}
    layout["shapes"] = [dashed | {"xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": floor, "y1": floor}]
    if line:
        chosen = found["best"]["coefficients"]["weight"]
        layout["shapes"].append(dashed | {"xref": "x", "yref": "paper", "x0": chosen, "x1": chosen, "y0": 0, "y1": 1})
    return {"data": data, "layout": layout}


def _number(report: Report, domain: str) -> int:
    """Return the place of a domain among those of the tasks: the number of its line in every chart."""
    names = [task.domain for task in report.tasks if task.domain is not None]
    return names.index(domain) if domain in names else len(names)


def _colour(report: Report, domain: str) -> str:
    return f"--series-{_number(report, domain) % SERIES + 1}"


def _span(high: float | None, low: float | None) -> float:
    return 0.0 if high is None or low is None else max(0.0, high - low)


def _bars(report: Report) -> Figure | None:
    steps, _ = bills(report)
    if not steps:
        return None
    ids = [bill.version for bill in steps]
    named = [
        ("full retraining", "--faint", [bill.joint_pairs for bill in steps]),
        ("this step", "--series-1", [bill.pairs for bill in steps]),
    ]
    data = [
        {
            "type": "bar",
            "name": name,
            "x": ids,
            "y": values,
            "marker": {"color": colour},
            "hoverinfo": "text",
            "hovertext": [f"{version}, {name}: {value:,} pairs" for version, value in zip(ids, values, strict=True)],
            "textposition": "none",
        }
        for name, colour, values in named
    ]
    return {"data": data, "layout": _layout(ids, "pairs") | _above() | {"barmode": "group", "bargap": 0.35}}


def _cumulative(report: Report) -> Figure | None:
    steps, _ = bills(report)
    if len(steps) < 2:
        return None
    ids = [bill.version for bill in steps]
    data = []
    for name, colour, values in (
        ("full retraining", "--faint", [0 if bill.again else bill.joint_pairs for bill in steps]),
        ("steps", "--series-1", [bill.pairs for bill in steps]),
    ):
        sums = [sum(values[: place + 1]) for place in range(len(values))]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": ids,
                "y": sums,
                "line": {"color": colour, "width": 2.5},
                "marker": {"color": colour, "size": 6},
                "hoverinfo": "text",
                "hovertext": [
                    f"to {version}, {name}: {value:,} pairs" for version, value in zip(ids, sums, strict=True)
                ],
            }
        )
    layout = _layout(ids, "pairs") | _above()
    layout["yaxis"]["rangemode"] = "tozero"
    return {"data": data, "layout": layout}


def _above() -> Figure:
    return {"showlegend": True, "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}}


def _axis() -> Figure:
    colours = {"gridcolor": "--rule", "zerolinecolor": "--quiet", "linecolor": "--rule"}
    return {**colours, "zeroline": False, "ticks": "", "fixedrange": True, "zerolinewidth": 1.25}


def _layout(ids: list[str] | None, unit: str) -> Figure:
    layout: Figure = {
        "height": HEIGHT,
        "margin": {"l": 56, "r": 16, "t": 26, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": "--soft"},
        "hoverlabel": {"bgcolor": "--paper", "bordercolor": "--quiet", "font": {"color": "--ink"}},
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": False,
        "yaxis": {**_axis(), "title": {"text": unit, "standoff": 10}},
        "xaxis": _axis(),
    }
    if ids is not None:
        layout["xaxis"] |= {"type": "category", "categoryorder": "array", "categoryarray": ids, "showgrid": False}
        layout["xaxis"] |= {"tickangle": 0, "nticks": 12}
    return layout
