"""The report as one self-contained HTML page, without external files or network requests.

The dashboard serves the same page with a second script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from continual.errors import InputError
from continual.report import summary
from continual.report.figures import (
    Chart,
    HeatMap,
    LineChart,
    draw_chart,
)
from continual.report.figures.data import TRAINED_ON, Interval
from continual.report.figures.draw import NARROW, WIDE
from continual.report.figures.lines import scales
from continual.report.figures.numbers import format_value
from continual.report.figures.thin import POINTS, ROWS, thin_chart, thin_table
from continual.report.report import Report
from continual.report.sections import Figure, ReportSection, sections
from continual.storage.files import publish

TEMPLATES = Path(__file__).parent / "templates"

DETAILED = 12
"""Most tasks for which a cell of the matrix shows the change below the score."""

BIG = 1040
"""Width of a drawing on a wide page, pixels."""

PARTS = ("Draw", "Train", "Fold", "Merge", "Evaluate", "Gate")
"""Names of the parts of a step, 1 to 6."""


LIVE_FOOTER = "Served by continual. The dashboard only reads the workspace."


@dataclass(frozen=True)
class Page:
    """An HTML page and its content security policy."""

    html: str
    policy: str


def write_html(report: Report, path: Path) -> None:
    """Write the page atomically.

    Raises:
        InputError: `path` is a folder, or can't be written.
    """
    if path.is_dir():
        raise InputError(
            f"The report can't be written to {path}, which is a folder. Name a file, such as {path / 'report.html'}."
        )
    page = render_html(report).html
    try:
        with publish(path) as partial:
            partial.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The report can't be written to {path}: {error.strerror or error}. Choose another file with --html."
        ) from None


def render_html(report: Report, *, live: bool = False, revision: str = "") -> Page:
    """Return the page.

    Args:
        live: Whether the dashboard serves it; then it polls for progress and new revisions.
        revision: Revision of the report, for the dashboard.
    """
    last = summary.latest(report)
    parts = [_thinned(section) for section in sections(report)]
    figures = [figure for section in parts for figure in section.figures]
    charts = [figure.chart for figure in figures if not isinstance(figure.chart, HeatMap)]
    wide = {figure.chart.name for figure in figures if figure.wide}
    return _render(
        live,
        title=f"{report.current} is current · {report.workspace} · continual",
        workspace=report.workspace,
        headline=summary.current_version(report),
        second_line=summary.last_update(report),
        verdict=last.status if last.parent is not None else "",
        reasons=last.reasons,
        tiles=_tiles(report),
        sections=parts,
        drawings={chart.name: _drawings(chart, chart.name in wide) for chart in charts},
        values={chart.name: _values(chart) for chart in charts},
        detailed=DETAILED,
        revision=revision,
        footer=LIVE_FOOTER if live else "Written by continual. This file needs no network.",
    )


def _thinned(section: ReportSection) -> ReportSection:
    """Cut the charts and tables of a long stream, and say so."""
    figures = [
        Figure(thin_chart(figure.chart), thin_table(figure.values), figure.wide) for figure in section.figures
    ]  # fmt: skip
    tables = [thin_table(table) for table in section.tables]
    shorter = [new.chart is not old.chart for new, old in zip(figures, section.figures, strict=True)]
    shorter += [new.table is not old.values for new, old in zip(figures, section.figures, strict=True) if old.table]
    if not any(shorter) and all(new is old for new, old in zip(tables, section.tables, strict=True)):
        return section
    note = (
        f"The stream is long: tables and matrices show the first row and the last {ROWS - 1}, bars the last {POINTS} "
        f"versions, and lines {POINTS} evenly spaced versions and those with a ring or a cross. "
        "'continual report --figures DIR' writes every value as CSV."
    )
    return replace(section, figures=figures, tables=tables, about=f"{section.about} {note}".strip())


def render_notice(workspace: str, headline: str, text: str, *, revision: str = "") -> Page:
    """Return the dashboard's page for a workspace that has no report yet or can't be read."""
    empty: dict[str, Any] = {"reasons": [], "tiles": [], "sections": [], "drawings": {}, "values": {}}
    return _render(
        True,
        title=f"{workspace} · continual",
        workspace=workspace,
        headline=headline,
        second_line=text,
        verdict="",
        detailed=DETAILED,
        revision=revision,
        footer=LIVE_FOOTER,
        **empty,
    )


def _render(live: bool, **values: Any) -> Page:
    """Fill the template.

    Jinja2 escapes all text, so markup in a name is shown as text. As a second defence, the content security policy
    allows only our scripts and style sheet, by their digests.
    """
    scripts = [_read("page.js"), *([_read("live.js")] if live else [])]
    styles = _read("page.css") + _strengths()
    allowed = f"script-src {' '.join(map(_digest, scripts))}; style-src {_digest(styles)}; img-src data:; "
    connections = "connect-src 'self'; " if live else ""
    policy = f"default-src 'none'; {allowed}{connections}base-uri 'none'; form-action 'none'"
    fixed = {"parts": PARTS, "styles": Markup(styles), "scripts": [Markup(script) for script in scripts]}
    html = _environment().get_template("page.html.j2").render(live=live, policy=policy, **fixed, **values)
    return Page(html, policy)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(format_value=format_value)
    environment.tests.update(heat=lambda chart: isinstance(chart, HeatMap))
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment


@cache
def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8").strip()


@cache
def palette() -> dict[str, str]:
    """Return the colours of the light theme by name, read from the style sheet."""
    return dict(re.findall(r"--([\w-]+): light-dark\((#\w+),", _read("page.css")))


def _strengths() -> str:
    """Return the CSS classes of the matrix's colours, from u20 (strongest rise) to d20 (strongest fall)."""
    rules = (f".u{step},.d{step}{{--s:{55 * step / 20:g}%}}" for step in range(1, 21))
    return "\n" + "".join(rules)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _drawings(chart: Chart, wide: bool) -> dict[str, Markup]:
    """Return a drawing per width; the style sheet shows the one that fits."""
    sizes = {"small": NARROW, "mid": WIDE, **({"big": BIG} if wide else {})}
    return {size: Markup(draw_chart(chart, width, suffix=f"-{size}")) for size, width in sizes.items()}


def _values(chart: Chart) -> dict[str, Any] | None:
    """Return the position of each point of a line chart, as shares of the plot's width and height, and its tooltip."""
    if not isinstance(chart, LineChart):
        return None
    left, right, low, high = scales(chart)
    places = chart.places or [float(place) for place in range(len(chart.labels))]
    lines = []
    for series in chart.series:
        intervals = series.bounds or [None] * len(series.values)
        texts = [
            "" if value is None else format_value(value, chart.format) + _in_brackets(interval)
            for value, interval in zip(series.values, intervals, strict=True)
        ]
        texts = [f"{text}, {TRAINED_ON}" if place in series.flagged else text for place, text in enumerate(texts)]
        heights = [None if value is None else round((value - low) / (high - low), 4) for value in series.values]
        lines.append({"name": series.name, "y": heights, "text": texts})
    across = [round((place - left) / (right - left), 4) for place in places]
    return {"labels": chart.labels, "x": across, "series": lines}


def _in_brackets(interval: Interval | None) -> str:
    return f" ({format_value(interval, 'interval')})" if interval else ""


def _tiles(report: Report) -> list[dict[str, Any]]:
    """Return the key figures at the top of the page: name, value, unit, explanation, and a sparkline over versions."""
    gain, ood = summary.mean_gain(report), summary.ood_change(report)
    forgotten = report.metrics["forgetting"][report.path[-1]]
    _, total = summary.step_costs(report)
    learned = {task for place in report.path for task in report.learned[place]}
    base = report.metrics["ood_mean"][0]
    tiles: list[dict[str, Any]] = []
    if gain is not None:
        what = f"over the root base, mean of {_tasks(len(learned))} of learned domains"
        spark = _spark([summary.mean_gain(report, place) for place in report.path])
        tiles.append(
            {"name": "Gain", "value": format_value(gain, "change"), "unit": "points", "what": what, "spark": spark}
        )
    if forgotten is not None:
        what = "best score of any earlier version minus score now, mean over the domains learned before"
        what += _interval(report, report.intervals.metrics["forgetting"][report.path[-1]])
        spark = _spark([report.metrics["forgetting"][place] for place in report.path])
        tiles.append(
            {
                "name": "Forgetting",
                "value": format_value(forgotten, "points"),
                "unit": "points",
                "what": what,
                "spark": spark,
            }
        )
    if ood is not None:
        what = f"change against the root base, mean of {_tasks(len(report.ood_set), 'OOD task')}"
        what += _interval(report, report.intervals.ood_change[report.path[-1]])
        values = [report.metrics["ood_mean"][place] for place in report.path]
        spark = _spark([None if value is None or base is None else value - base for value in values])
        tiles.append(
            {
                "name": "Out of domain",
                "value": format_value(ood, "change"),
                "unit": "points",
                "what": what,
                "spark": spark,
            }
        )
    if total.ratio is not None:
        what = f"of full retraining at every step: {total.pairs:,} of {total.joint_pairs:,} pairs"
        tiles.append(
            {"name": "Cost", "value": f"{100 * total.ratio:.0f}", "unit": "%", "what": what, "spark": Markup("")}
        )
    return tiles


def _tasks(count: int, noun: str = "task") -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _interval(report: Report, interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"; {100 * report.intervals.confidence:g} % interval {format_value(interval, 'interval')}"


def _spark(values: Sequence[float | None]) -> Markup:
    """Return a sparkline; without text, because the tile shows the last value."""
    measured = [(place, value) for place, value in enumerate(values) if value is not None]
    if len(measured) < 2:
        return Markup("")
    low, high = min(value for _, value in measured), max(value for _, value in measured)
    last = max(1, len(values) - 1)
    height = (high - low) or 1.0
    spots = [(3 + 66 * place / last, 25 - 20 * (value - low) / height) for place, value in measured]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    x, y = spots[-1]
    return Markup(
        '<svg class="spark" width="74" height="30" viewBox="0 0 74 30" aria-hidden="true">'
        f'<path d="M{line}" fill="none" stroke="var(--axis)" stroke-width="1.8" stroke-linejoin="round"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--accent)"/></svg>'
    )
