"""The records of a section, and the colours of tasks and domains, which are the same in every chart."""

from __future__ import annotations

from dataclasses import dataclass, field

from continual.report.figures import Chart, Table
from continual.report.report import Report

SERIES = 7
"""Number of distinct colours; further series differ by dash pattern and symbol."""


@dataclass(frozen=True)
class Figure:
    """A chart with the table of its values.

    Attributes:
        table: A table to show instead of the chart's own.
        wide: Whether the chart takes the full width of the page.
    """

    chart: Chart
    table: Table | None = None
    wide: bool = False

    @property
    def values(self) -> Table:
        """The table of the chart's values."""
        return self.table or self.chart.table()


@dataclass(frozen=True)
class ReportSection:
    """A section of the report.

    Attributes:
        name: Id of its anchor.
        short: Its title in the navigation.
        about: Sentences below the title.
        tables: Tables without a chart.
        facts: Names and values.
        notes: Sentences in a list.
        code: The title and content of a collapsed listing.
    """

    name: str
    short: str
    title: str
    about: str = ""
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    code: tuple[str, str] | None = None


def domain_number(report: Report, domain: str) -> int:
    """Return the position of a domain among those of the tasks: the number of its line in every chart."""
    domains = list(dict.fromkeys(task.domain for task in report.tasks if task.domain is not None))
    return domains.index(domain) if domain in domains else len(domains)


def colour(number: int) -> str:
    """Return the colour of a line by its number."""
    return f"series-{number % SERIES + 1}"
