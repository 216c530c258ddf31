"""The report as files for a pull request: charts as SVG, PNG and CSV, tables as CSV, and one page of Markdown."""

from __future__ import annotations

from pathlib import Path

from continual.errors import InputError
from continual.report import summary
from continual.report.figures import Table, draw
from continual.report.figures.data import plain
from continual.report.figures.draw import WIDE
from continual.report.html import palette
from continual.report.report import Report
from continual.report.sections import Figure, Section, sections
from continual.storage.files import publish

PAGE = "report.md"

SCALE = 2
"""Pixels of a PNG for one of the drawing."""

BROAD = 900
"""Width of a drawing that has the page's whole width."""

ROWS = 40
"""Rows of a table up to which Markdown shows it; of a longer one the CSV file is named."""


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write all charts and tables of a report.

    Args:
        report: What to write.
        folder: Made if it is not there.

    Returns:
        The files, the page of Markdown first.

    Raises:
        InputError: It cannot be written.
    """
    found = sections(report)
    contents: dict[str, bytes] = {}
    for section in found:
        for figure in section.figures:
            contents |= _chart_files(figure)
        for table in section.tables:
            contents[f"{table.name}.csv"] = table.to_csv().encode()
    contents = {PAGE: markdown(report, found).encode()} | contents
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with publish(folder / name) as partial:
                partial.write_bytes(content)
    except OSError as error:
        raise InputError(f"The figures cannot be written to {folder}: {error.strerror or error}.") from None
    return [folder / name for name in contents]


def markdown(report: Report, found: list[Section]) -> str:
    """Return the report as Markdown that shows the charts beside it; whatever is in a name is text there."""
    lines = [f"# {plain(summary.in_service(report))}", "", plain(summary.last_update(report)), ""]
    lines += [f"- {plain(reason)}" for reason in summary.latest(report).reasons]
    for section in found:
        lines += ["", f"## {plain(section.title)}", ""]
        lines += [plain(section.about), ""] if section.about else []
        lines += [*(f"- {plain(note)}" for note in section.notes), ""] if section.notes else []
        for figure in section.figures:
            lines += [f"![{plain(figure.chart.title)}]({figure.chart.name}.png)", ""]
            lines += [_folded(figure.behind, figure.chart.name), ""]
        for table in section.tables:
            lines += [_folded(table, table.name), ""]
        lines += [f"- **{plain(name)}**: {plain(value)}" for name, value in section.facts]
    return "\n".join(lines).rstrip() + "\n"


def _folded(table: Table, name: str) -> str:
    if len(table.rows) > ROWS:
        return f"{plain(table.caption)} {len(table.rows)} rows: [{name}.csv]({name}.csv)"
    return f"<details><summary>{plain(table.caption)}</summary>\n\n{table.to_markdown()}\n</details>"


def _chart_files(figure: Figure) -> dict[str, bytes]:
    name = figure.chart.name
    drawing = draw(figure.chart, BROAD if figure.wide else WIDE, palette())
    return {
        f"{name}.svg": drawing.encode(),
        f"{name}.png": _png(drawing),
        f"{name}.csv": figure.behind.to_csv().encode(),
    }


def _png(drawing: str) -> bytes:
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=drawing, zoom=SCALE, sans_serif_family="DejaVu Sans"))
