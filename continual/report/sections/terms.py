"""Sections that explain: how what is in service was made, and what the words mean."""

from __future__ import annotations

import json

from continual.registry.registry import utc
from continual.report.report import DEFINITIONS, METRIC_NAMES, Report
from continual.report.sections.base import Section


def made(report: Report) -> Section | None:
    """How the version in service was made, as names and values, with the whole recipe."""
    recipe = report.versions[report.position(report.current)].recipe
    facts = []
    for key, name in (("base", "root base"), ("start", "trained from"), ("merge", "merge rule"), ("weight", "weight")):
        if key in recipe:
            value = recipe[key]
            facts.append((name, f"{value:.3g}" if isinstance(value, float) else str(value)))
    if recipe.get("parameters"):
        facts.append(("parameters", ", ".join(f"{key} {value:.3g}" for key, value in recipe["parameters"].items())))
    for key, name in (("new", "rows learned"), ("replay", "rows replayed")):
        if isinstance(recipe.get(key), list):
            facts.append((name, ", ".join(f"{each['domain']} {each['rows']:,}" for each in recipe[key]) or "none"))
    if "seed" in recipe:
        facts.append(("seed", str(recipe["seed"])))
    facts += [(name, version) for name, version in dict(recipe.get("libraries", {})).items()]
    about = f"In service since {utc(report.since)}: {report.why}." if report.why else ""
    text = json.dumps(recipe, indent=2, ensure_ascii=False)
    title = f"How {report.current} was made"
    return Section(
        "made", "How it was made", title, about, facts=facts, code=("The whole recipe, with its settings", text)
    )


def terms(report: Report) -> Section | None:
    """What the words mean."""
    facts = [("points", f"{report.measure} times 100; nDCG and the like are means over the queries of a task")]
    facts += [DEFINITIONS[name] for name in METRIC_NAMES if name != "intransigence" or report.joint is not None]
    facts += [
        ("Gain", "score minus the root base's, mean over the tasks of the domains learned so far"),
        ("full retraining", "one training on all rows of the version's lineage, with the same epochs"),
    ]
    return Section("terms", "Definitions", "Definitions", facts=facts)
