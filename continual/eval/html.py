"""The report as one HTML file that needs nothing but a browser: no server, no network."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from continual.errors import InputError
from continual.eval import summary
from continual.eval.charts import charts, searched
from continual.eval.report import DEFINITIONS, METRIC_NAMES, Report
from continual.registry.registry import utc
from continual.registry.store import publish

TEMPLATES = Path(__file__).parent / "templates"

STRONGEST = 15.0
"""Points of change from which on a cell of the matrix has its full colour."""

DETAILED = 12
"""Tasks up to which a cell of the matrix shows its change as well as its score."""


def write_html(report: Report, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: It cannot be written there.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder. Name a file, such as {path / 'report.html'}.")
    page = render_html(report)
    try:
        with publish(path) as partial:
            partial.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"The report cannot be written to {path}: {error.strerror or error}.") from None


def render_html(report: Report) -> str:
    """Return the page.

    All text is escaped by Jinja2, and a content security policy lets only the two scripts of ours run, by their
    digests: markup that came in with a name would be shown, and if it were not, it could still do nothing.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(points=_points, change=_change, utc=utc, duration=summary.duration, names=summary.names)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    scripts = {"plotly": _plotly(), "page": (TEMPLATES / "report.js").read_text(encoding="utf-8").strip()}
    steps, total = summary.bills(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        current=report.versions[report.position(report.current)],
        last=report.versions[-1],
        first_line=summary.in_service(report),
        second_line=summary.last_update(report),
        tiles=_tiles(report, total),
        figures=charts(report),
        searched=searched(report),
        groups=summary.groups(report),
        heat=_heat(report),
        detailed=len(report.tasks) <= DETAILED,
        over_base=lambda row, task: summary.over_base(report, row, task),
        since_learned=lambda place, task: summary.since_learned(report, place, task),
        steps=steps,
        total=total,
        metric_names=METRIC_NAMES,
        definitions=DEFINITIONS,
        made=_made(report),
        recipe=json.dumps(report.versions[report.position(report.current)].recipe, indent=2, ensure_ascii=False),
        styles=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        scripts={name: Markup(text) for name, text in scripts.items()},
        digests=[_digest(text) for text in scripts.values()],
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # An HTML parser ends a script at this string, wherever it stands.
    return str(get_plotlyjs()).strip().replace("</script", "<\\/script")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _tiles(report: Report, total: summary.Bill) -> list[dict[str, str]]:
    """Return the figures at the head of the page: name, value, unit and what they mean."""
    gain, ood = summary.mean_gain(report), summary.ood_change(report)
    forgotten = report.metrics["forgetting"][report.path[-1]]
    learned = {domain for place in report.path for domain in report.versions[place].domains}
    tiles = []
    if gain is not None:
        what = f"over the root base, mean of {len(learned)} learned domain{'s' * (len(learned) != 1)}"
        tiles.append({"name": "Gain", "value": _change(gain), "unit": "points", "what": what})
    if forgotten is not None:
        what = "best score of any earlier version minus score now, mean of the domains learned before"
        tiles.append({"name": "Forgetting", "value": _points(forgotten), "unit": "points", "what": what})
    if ood is not None:
        what = f"against the root base, mean of {len(report.ood_set)} OOD task{'s' * (len(report.ood_set) != 1)}"
        tiles.append({"name": "Out of domain", "value": _change(ood), "unit": "points", "what": what})
    if total.ratio is not None:
        what = f"of a full retraining at every step: {total.pairs:,} of {total.joint_pairs:,} pairs"
        tiles.append({"name": "Cost", "value": f"{100 * total.ratio:.0f}", "unit": "%", "what": what})
    return tiles


def _heat(report: Report) -> list[list[dict[str, Any] | None]]:
    """Return the cells of the matrix: score, change over the base, strength of the colour in percent."""
    rows: list[list[dict[str, Any] | None]] = []
    for place, row in enumerate(report.versions):
        cells: list[dict[str, Any] | None] = []
        for _, tasks in summary.groups(report):
            for task in tasks:
                score = row.scores.get(task.name)
                if score is None:
                    cells.append(None)
                    continue
                change = summary.over_base(report, row, task.name)
                # The root of the share, because most changes are small and must be seen.
                share = min(1.0, abs(change or 0.0) / STRONGEST) ** 0.5
                cells.append(
                    {
                        "score": score,
                        "change": change,
                        "sense": "up" if (change or 0) > 0 else "down",
                        "strength": round(55 * share),
                        "learned": task.name in report.learned[place],
                    }
                )
        rows.append(cells)
    return rows


def _made(report: Report) -> list[tuple[str, str]]:
    """Return how the version in service was made, as names and values."""
    recipe = report.versions[report.position(report.current)].recipe
    made = []
    for key, name in (("base", "root base"), ("start", "trained from"), ("merge", "merge rule"), ("weight", "weight")):
        if key in recipe:
            value = recipe[key]
            made.append((name, f"{value:.3g}" if isinstance(value, float) else str(value)))
    if recipe.get("parameters"):
        made.append(("parameters", ", ".join(f"{key} {value:.3g}" for key, value in recipe["parameters"].items())))
    for key, name in (("new", "rows learned"), ("replay", "rows replayed")):
        if isinstance(recipe.get(key), list):
            made.append((name, ", ".join(f"{each['domain']} {each['rows']:,}" for each in recipe[key]) or "none"))
    if "seed" in recipe:
        made.append(("seed", str(recipe["seed"])))
    made += [(name, version) for name, version in dict(recipe.get("libraries", {})).items()]
    return made


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _change(value: float | None) -> str:
    # A true minus sign is as wide as the plus, and a screen reader says it.
    return "–" if value is None else f"{value:+.1f}".replace("-0.0", "+0.0").replace("-", "−")
