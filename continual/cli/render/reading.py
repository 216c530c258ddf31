"""What was left out or converted in a task's folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.cli.render.console import say

if TYPE_CHECKING:
    from continual.stream.task_tables import TaskReading

NAMES = 10
"""Most names of files or columns that are shown."""


def print_reading(reading: TaskReading) -> None:
    """Print what was read of a task's folder, and what was left out, converted or ignored."""
    folder = reading.qrels.rpartition("/")[0]
    if folder:
        others = any(file.startswith(f"{folder}/") for file in reading.unread_files)
        hint = f". To use another split, name its file instead of the folder: DIR/{folder}/FILE" if others else ""
        say(f"  judgements: from {reading.qrels}{hint}")
    for label, parts in (("left out", _left_out(reading)), ("converted", _converted(reading))):
        if parts:
            say(f"  {label}: {'; '.join(parts)}")
    unread = [f"columns {listed(columns)} of {file}" for file, columns in reading.unread_columns.items()]
    unread += [f"files {listed(reading.unread_files)}"] if reading.unread_files else []
    if unread:
        say(f"  not read: {'; '.join(unread)}")


def _left_out(reading: TaskReading) -> list[str]:
    absent = "judgements whose query or document is missing or has no text"
    counts = {
        f"{absent}, such as {reading.dropped_example}": reading.dropped_judgements,
        "queries without a judgement": reading.unjudged_queries,
        "queries without a relevant document": reading.irrelevant_queries,
        "queries without text": reading.empty_queries,
        "documents without text": reading.empty_documents,
        "rows that repeat an id and its text": reading.repeated_rows,
        "rows that repeat a judgement": reading.repeated_judgements,
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def _converted(reading: TaskReading) -> list[str]:
    counts = {
        "grades below 0 count as 0": reading.negative_grades,
        "grades lost their fraction, as in trec_eval": reading.cut_grades,
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def listed(names: Sequence[str]) -> str:
    """Return names with commas between them: the first ones, and how many more there are."""
    more = f" and {len(names) - NAMES:,} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more
