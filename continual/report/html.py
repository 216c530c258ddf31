"""The report as one HTML page that needs nothing but a browser: no server, no network.

The live dashboard serves the same page with one script more.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from continual.errors import InputError
from continual.report import summary
from continual.report.figures import (
    Chart,
    Heat,
    Lines,
    draw,
)
from continual.report.figures.data import TRAINED_ON
from continual.report.figures.draw import NARROW, WIDE
from continual.report.figures.lines import scales
from continual.report.figures.numbers import shown
from continual.report.report import Report
from continual.report.sections import sections
from continual.storage.files import publish

TEMPLATES = Path(__file__).parent / "templates"

DETAILED = 12
"""Tasks up to which a cell of the matrix shows its change as well as its score."""

BIG = 1040
"""Pixels of a drawing that has the whole width of a screen."""

PARTS = ("Draw", "Train", "Fold", "Merge", "Evaluate", "Gate")
"""The parts of a step, as the dashboard names them."""


@dataclass(frozen=True)
class Page:
    """A page, and the content security policy that it was written for."""

    html: str
    policy: str


def write_html(report: Report, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: It cannot be written there.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder. Name a file, such as {path / 'report.html'}.")
    page = render_html(report).html
    try:
        with publish(path) as partial:
            partial.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"The report cannot be written to {path}: {error.strerror or error}.") from None


def render_html(report: Report, *, live: bool = False, revision: str = "") -> Page:
    """Return the page.

    Args:
        report: What it shows.
        live: Whether it is served and asks how far the running update is.
        revision: Of what is shown, for the live page.
    """
    last = summary.latest(report)
    parts = sections(report)
    figures = [each.chart for section in parts for each in section.figures if not isinstance(each.chart, Heat)]
    wide = {each.chart.name for section in parts for each in section.figures if each.wide}
    return _render(
        live,
        title=f"{report.current} in service · {report.workspace} · continual",
        workspace=report.workspace,
        headline=summary.in_service(report),
        second_line=summary.last_update(report),
        verdict=last.verdict if last.parent is not None else "",
        reasons=last.reasons,
        tiles=_tiles(report),
        sections=parts,
        drawings={chart.name: _drawings(chart, chart.name in wide) for chart in figures},
        values={chart.name: _values(chart) for chart in figures},
        detailed=DETAILED,
        revision=revision,
        ending="Served by continual; it only reads." if live else "Written by continual. This file needs no network.",
    )


def render_notice(workspace: str, headline: str, text: str, *, revision: str = "") -> Page:
    """Return the live page of a workspace that has nothing to report yet, or whose state cannot be read now."""
    nothing: dict[str, Any] = {"reasons": [], "tiles": [], "sections": [], "drawings": {}, "values": {}}
    return _render(
        True,
        title=f"{workspace} · continual",
        workspace=workspace,
        headline=headline,
        second_line=text,
        verdict="",
        detailed=DETAILED,
        revision=revision,
        ending="Served by continual; it only reads.",
        **nothing,
    )


def _render(live: bool, **values: Any) -> Page:
    """Fill the template.

    All text is escaped by Jinja2, and the policy lets only our scripts and our style sheet in, by their digests:
    markup that came in with a name would be shown, and if it were not, it could still do nothing.
    """
    scripts = [_read("page.js"), *([_read("live.js")] if live else [])]
    styles = _read("page.css") + _strengths()
    allowed = f"script-src {' '.join(map(_digest, scripts))}; style-src {_digest(styles)}; img-src data:; "
    asks = "connect-src 'self'; " if live else ""
    policy = f"default-src 'none'; {allowed}{asks}base-uri 'none'; form-action 'none'"
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
    environment.filters.update(shown=shown)
    environment.tests.update(heat=lambda chart: isinstance(chart, Heat))
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment


@cache
def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8").strip()


@cache
def palette() -> dict[str, str]:
    """Return the colours of the light theme by name, as the style sheet has them."""
    return dict(re.findall(r"--([\w-]+): light-dark\((#\w+),", _read("page.css")))


def _strengths() -> str:
    """Return the classes of the matrix's colours: u20 is the strongest rise, d1 the faintest fall."""
    rules = (f".u{step},.d{step}{{--s:{55 * step / 20:g}%}}" for step in range(1, 21))
    return "\n" + "".join(rules)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _drawings(chart: Chart, wide: bool) -> dict[str, Markup]:
    """Return a drawing for each width that the page may have for it; the style sheet shows one of them."""
    sizes = {"small": NARROW, "mid": WIDE, **({"big": BIG} if wide else {})}
    return {size: Markup(draw(chart, width, suffix=f"-{size}")) for size, width in sizes.items()}


def _values(chart: Chart) -> dict[str, Any] | None:
    """Return what a line chart says of each point, with places as shares of the plot's width and height."""
    if not isinstance(chart, Lines):
        return None
    left, right, low, high = scales(chart)
    places = chart.places or [float(place) for place in range(len(chart.labels))]
    series = []
    for each in chart.series:
        bounds = each.bounds or [None] * len(each.values)
        said = [
            "" if value is None else shown(value, chart.kind) + (f" ({shown(pair, 'interval')})" if pair else "")
            for value, pair in zip(each.values, bounds, strict=True)
        ]
        said = [f"{text}, {TRAINED_ON}" if place in each.flagged else text for place, text in enumerate(said)]
        heights = [None if value is None else round((value - low) / (high - low), 4) for value in each.values]
        series.append({"name": each.name, "y": heights, "text": said})
    across = [round((place - left) / (right - left), 4) for place in places]
    return {"labels": chart.labels, "x": across, "series": series}


def _tiles(report: Report) -> list[dict[str, Any]]:
    """Return the figures at the head of the page: name, value, unit, what they mean, and how they came about."""
    gain, ood = summary.mean_gain(report), summary.ood_change(report)
    forgotten = report.metrics["forgetting"][report.path[-1]]
    _, total = summary.bills(report)
    learned = {task for place in report.path for task in report.learned[place]}
    base = report.metrics["ood_mean"][0]
    tiles: list[dict[str, Any]] = []
    if gain is not None:
        what = f"over the root base, mean of {len(learned)} task{'s' * (len(learned) != 1)} of learned domains"
        spark = _spark([summary.mean_gain(report, place) for place in report.path])
        tiles.append({"name": "Gain", "value": shown(gain, "change"), "unit": "points", "what": what, "spark": spark})
    if forgotten is not None:
        what = "best score of any earlier version minus score now, mean of the domains learned before"
        what += _sure(report, report.intervals.metrics["forgetting"][report.path[-1]])
        spark = _spark([report.metrics["forgetting"][place] for place in report.path])
        tiles.append(
            {"name": "Forgetting", "value": shown(forgotten, "points"), "unit": "points", "what": what, "spark": spark}
        )
    if ood is not None:
        what = f"against the root base, mean of {len(report.ood_set)} OOD task{'s' * (len(report.ood_set) != 1)}"
        what += _sure(report, report.intervals.ood_change[report.path[-1]])
        values = [report.metrics["ood_mean"][place] for place in report.path]
        spark = _spark([None if each is None or base is None else each - base for each in values])
        tiles.append(
            {"name": "Out of domain", "value": shown(ood, "change"), "unit": "points", "what": what, "spark": spark}
        )
    if total.ratio is not None:
        what = f"of a full retraining at every step: {total.pairs:,} of {total.joint_pairs:,} pairs"
        tiles.append(
            {"name": "Cost", "value": f"{100 * total.ratio:.0f}", "unit": "%", "what": what, "spark": Markup("")}
        )
    return tiles


def _sure(report: Report, ends: tuple[float, float] | None) -> str:
    if ends is None:
        return ""
    return f"; {100 * report.intervals.confidence:g} % interval {shown(ends, 'interval')}"


def _spark(values: Sequence[float | None]) -> Markup:
    """Return a small line without words: the tile says its last value."""
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return Markup("")
    low, high = min(value for _, value in known), max(value for _, value in known)
    last = max(1, len(values) - 1)
    height = (high - low) or 1.0
    spots = [(3 + 66 * place / last, 25 - 20 * (value - low) / height) for place, value in known]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    x, y = spots[-1]
    return Markup(
        '<svg class="spark" width="74" height="30" viewBox="0 0 74 30" aria-hidden="true">'
        f'<path d="M{line}" fill="none" stroke="var(--axis)" stroke-width="1.8" stroke-linejoin="round"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--accent)"/></svg>'
    )
