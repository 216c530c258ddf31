"""Sections that explain: how what is in service was made, and what the words mean."""

from __future__ import annotations

import json

from continual.registry.registry import utc
from continual.report.report import DEFINITIONS, METRIC_NAMES, Report
from continual.report.sections.base import Section


def made(report: Report) -> Section | None:
    """How the version in service was made, as names and values, with the whole provenance."""
    provenance = report.versions[report.position(report.current)].provenance
    facts = []
    if provenance.base is not None:
        facts.append(("root base", provenance.base))
    else:
        facts += [("trained from", str(provenance.start)), ("merge rule", str(provenance.merge))]
        if provenance.weight is not None:
            facts.append(("weight", f"{provenance.weight:.3g}"))
        if provenance.parameters:
            facts.append(
                ("parameters", ", ".join(f"{key} {value:.3g}" for key, value in provenance.parameters.items()))
            )
        for name, windows in (("rows learned", provenance.new), ("rows replayed", provenance.replay)):
            facts.append((name, ", ".join(f"{window.domain} {window.rows:,}" for window in windows) or "none"))
        facts.append(("seed", str(provenance.seed)))
    facts += list(provenance.libraries.items())
    about = f"In service since {utc(report.since)}: {report.why}." if report.why else ""
    text = json.dumps(provenance.to_json(), indent=2, ensure_ascii=False)
    title = f"How {report.current} was made"
    return Section(
        "made", "How it was made", title, about, facts=facts, code=("The whole provenance, with its settings", text)
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
