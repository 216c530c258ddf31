"""The sections that explain: how the current version was made, and the definitions of the metrics."""

from __future__ import annotations

import json

from continual.registry.catalog import utc
from continual.report.report import DEFINITIONS, METRIC_NAMES, Report
from continual.report.sections.base import ReportSection


def provenance_section(report: Report) -> ReportSection | None:
    """Build the section: the provenance of the current version."""
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
    about = f"Current since {utc(report.since)}: {report.why}." if report.why else ""
    text = json.dumps(provenance.to_json(), indent=2, ensure_ascii=False)
    title = f"How {report.current} was made"
    return ReportSection(
        "made", "Provenance", title, about, facts=facts, code=("Complete provenance, with all settings", text)
    )


def definitions_section(report: Report) -> ReportSection | None:
    """Build the section: the definitions of the metrics."""
    facts = [("points", f"{report.measure} times 100; scores such as nDCG are means over the queries of a task")]
    facts += [DEFINITIONS[name] for name in METRIC_NAMES if name != "intransigence" or report.joint is not None]
    facts += [
        ("Gain", "score minus the root base's, mean over the tasks of the domains learned so far"),
        ("full retraining", "one training on all rows of the version's lineage, with the same number of epochs"),
    ]
    return ReportSection("terms", "Definitions", "Definitions", facts=facts)
