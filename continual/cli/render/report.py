"""What report prints, besides the report itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from continual.cli.render.console import say

if TYPE_CHECKING:
    from continual.report.report import Report


def print_report(report: Report, html: Path | None) -> None:
    """Print the report as tables, and where its HTML file is."""
    from continual.report.terminal import print_tables

    print_tables(report)
    if html is not None:
        say(f"The report is in {html.resolve()}")


def write_html(report: Report, file: Path) -> None:
    """Write the report as an HTML file."""
    from continual.report.html import write_html as write

    write(report, file)


def print_figures(files: list[Path], quiet: bool) -> None:
    """Print where the charts are.

    Args:
        quiet: A program reads what is printed, so print nothing.
    """
    if not quiet:
        say(f"Wrote {len(files)} files to {files[0].parent}; {files[0].name} shows them.")


def print_mteb(folder: Path, quiet: bool) -> None:
    """Print where mteb's result files are.

    Args:
        quiet: A program reads what is printed, so print nothing.
    """
    if not quiet:
        say(f"Wrote mteb's result files to {folder}: mteb.ResultCache({str(folder)!r}).load_results() reads them.")
