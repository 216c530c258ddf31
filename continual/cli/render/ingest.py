"""What ingest prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table
from continual.cli.render.reading import listed, print_reading
from continual.stream.readers.base import NO_NAME

if TYPE_CHECKING:
    from continual.stream import IngestReport


def print_ingest(report: IngestReport, store: Path) -> None:
    """Print how many rows of a file were kept, and why others were not.

    Args:
        report: Of one file.
        store: The folder that the path of the reject file is relative to.
    """
    if report.unchanged:
        say(f"{report.source} was ingested before (domain {report.domain}, batch {report.batch}). Nothing changed.")
        if report.license:
            say(f"Its licence is {report.license}.")
        return
    kept = f"batch {report.batch}" if report.batch else "no batch, because there is no new row to train on"
    say(f"{report.source} -> domain {report.domain}, {kept}")
    rows = table("", "", "", numbers=(1, 2), show_header=False)
    rows.columns[2].style = "dim"
    task = f"for the task {report.task}" if report.task and report.held_out else ""
    reasons = sorted(report.reject_reasons.items(), key=lambda each: -each[1])
    rejects = listed([f"{reason} ({count:,})" if len(reasons) > 1 else reason for reason, count in reasons])
    mapped = report.scores and not report.score_range
    for label, count, note in (
        ("rows in", report.rows_in, _several(report)),
        ("kept", report.kept, "to train on"),
        *([("not positive", report.not_positive, _negatives(report))] if mapped else []),
        ("duplicates", report.duplicates, ""),
        ("leaked", report.leaked, _leaks(report)),
        ("rejected", report.rejected, rejects),
        ("held out", report.held_out, task),
    ):
        rows.add_row(f"  {label}", f"{count:,}", escape(note))
    console.print(rows)
    say(f"  columns: {', '.join(f'{role} from {column}' for role, column in report.columns.items())}")
    if report.score_range:
        least, largest = report.score_range
        say(f"  graded pairs: scores from {least:g} to {largest:g} are stored as 0 to 1")
    if report.unread:
        say(f"  not read: {listed([name if name.strip() else NO_NAME for name in report.unread])}")
    if report.instruction:
        say(f"  instruction: {report.instruction}")
    if report.task_reading is not None:
        print_reading(report.task_reading)
    if report.dropped_negatives:
        say(f"{report.dropped_negatives:,} negatives were left out: they are positives of the same query in the file.")
    if report.without_negatives:
        say(
            f"{report.without_negatives:,} of the kept rows have no negatives. Updates skip them, because rows of a "
            f"{report.kind} domain use only their own negatives."
        )
    if report.rejects_path:
        say(f"The rejected rows, with reasons: {store / report.rejects_path}")

    for warning in report.warnings:
        say(f"Warning: {warning}")


def _several(report: IngestReport) -> str:
    """Return how many rows count more than once."""
    rows = report.several_positives
    return f"{rows:,} {'row' if rows == 1 else 'rows'} with several positives, each counted" if rows else ""


def _negatives(report: IngestReport) -> str:
    """Return what became of the rows with a low score, and which scores there are."""
    least, largest = report.scores or (0, 0)
    gave = report.not_positive - report.between
    parts = [f"scores are from {least:g} to {largest:g}"]
    if report.between:
        parts.append(f"{report.between:,} left out")
    if gave:
        parts.append(f"{gave:,} negative, which gave {report.hard_negatives:,} hard negatives")
    return ", ".join(parts)


def _leaks(report: IngestReport) -> str:
    """Return how rows leak; with counts if in several ways."""
    ways = {
        "exact duplicates of a task text": report.leaked - report.near - report.of_held,
        "near duplicates of a task text": report.near,
        "of a held-out document": report.of_held,
    }
    found = {way: count for way, count in ways.items() if count}
    return ", ".join(f"{count:,} {way}" if len(found) > 1 else way for way, count in found.items())
