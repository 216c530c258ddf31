"""The sections of a report: small functions that turn report data into texts, charts and tables, without layout.

The page, the dashboard and the files all show these sections. A section without data is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from continual.report.report import Report
from continual.report.sections.base import Figure, ReportSection
from continual.report.sections.conflicts import conflicts_section
from continual.report.sections.index import index_section
from continual.report.sections.queries import queries_section
from continual.report.sections.scores import (
    domains_section,
    last_update_section,
    matrix_section,
    ood_section,
)
from continual.report.sections.steps import (
    cost_section,
    lineage_section,
    merging_section,
    replay_section,
)
from continual.report.sections.terms import definitions_section, provenance_section

__all__ = ["Figure", "ReportSection", "sections"]

SECTIONS: tuple[Callable[[Report], ReportSection | None], ...] = (
    domains_section,
    ood_section,
    last_update_section,
    queries_section,
    matrix_section,
    index_section,
    lineage_section,
    merging_section,
    replay_section,
    conflicts_section,
    cost_section,
    provenance_section,
    definitions_section,
)
"""In the order of the page."""


def sections(report: Report) -> list[ReportSection]:
    """Return the sections that have data. The report must be a full one."""
    assert report.full
    return [section for build in SECTIONS if (section := build(report)) is not None]
