"""The report as files, for a pull request: charts as SVG, PNG and CSV, tables as CSV, and one Markdown page."""

from __future__ import annotations

from pathlib import Path

from continual.errors import InputError
from continual.report import summary
from continual.report.figures import Table, draw_chart
from continual.report.figures.data import escape_markdown
from continual.report.figures.draw import WIDE
from continual.report.html import palette
from continual.report.report import Report
from continual.report.sections import Figure, ReportSection, sections
from continual.storage.files import publish

PAGE = "report.md"

SCALE = 2
"""Pixels of a PNG per pixel of the drawing."""

FULL_WIDTH = 900
"""Width of a drawing that takes the full width of the page, pixels."""

MOST_ROWS = 40
"""Most rows of a table in the Markdown page, which links to the CSV file of a longer table."""


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write all charts and tables of a report.

    Args:
        folder: Created if needed.

    Returns:
        The files, the Markdown page first.

    Raises:
        InputError: The folder can't be written to.
    """
    parts = sections(report)
    contents: dict[str, bytes] = {}
    for section in parts:
        for figure in section.figures:
            contents |= _chart_files(figure)
        for table in section.tables:
            contents[f"{table.name}.csv"] = table.to_csv().encode()
    contents = {PAGE: markdown(report, parts).encode()} | contents
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with publish(folder / name) as partial:
                partial.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"The figures can't be written to {folder}: {error.strerror or error}. "
            "Choose another folder with --figures."
        ) from None
    return [folder / name for name in contents]


def markdown(report: Report, parts: list[ReportSection]) -> str:
    """Return the report as Markdown that embeds the chart files; markup in names is escaped."""
    lines = [
        f"# {escape_markdown(summary.current_version(report))}",
        "",
        escape_markdown(summary.last_update(report)),
        "",
    ]
    lines += [f"- {escape_markdown(reason)}" for reason in summary.latest(report).reasons]
    for section in parts:
        lines += ["", f"## {escape_markdown(section.title)}", ""]
        lines += [escape_markdown(section.about), ""] if section.about else []
        lines += [*(f"- {escape_markdown(note)}" for note in section.notes), ""] if section.notes else []
        for figure in section.figures:
            lines += [f"![{escape_markdown(figure.chart.title)}]({figure.chart.name}.png)", ""]
            lines += [_folded(figure.values, figure.chart.name), ""]
        for table in section.tables:
            lines += [_folded(table, table.name), ""]
        lines += [f"- **{escape_markdown(name)}**: {escape_markdown(value)}" for name, value in section.facts]
    return "\n".join(lines).rstrip() + "\n"


def _folded(table: Table, name: str) -> str:
    if len(table.rows) > MOST_ROWS:
        return f"{escape_markdown(table.caption)} {len(table.rows)} rows: [{name}.csv]({name}.csv)"
    return f"<details><summary>{escape_markdown(table.caption)}</summary>\n\n{table.to_markdown()}\n</details>"


def _chart_files(figure: Figure) -> dict[str, bytes]:
    name = figure.chart.name
    drawing = draw_chart(figure.chart, FULL_WIDTH if figure.wide else WIDE, palette())
    return {
        f"{name}.svg": drawing.encode(),
        f"{name}.png": _png(drawing),
        f"{name}.csv": figure.values.to_csv().encode(),
    }


def _png(drawing: str) -> bytes:
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=drawing, zoom=SCALE, sans_serif_family="DejaVu Sans"))
