"""What compare --queries prints. Texts come from other people, so they are made safe for a terminal."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from rich.text import Text

from continual.cli.render.console import console, say, table
from continual.report.figures.numbers import probability

if TYPE_CHECKING:
    from continual.eval.regressions import (
        ClusterChange,
        MovedDocument,
        QueryChange,
        Regressions,
    )

CLUSTERS = 12
"""Most clusters that are shown, half of them from each end."""

QUERY = 200
"""Most characters of a query that are shown."""

DOCUMENT = 90
"""Most characters of a document that are shown."""

_TURNS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\u200e", "\u200f"}
"""Marks that change the direction of writing; a text could use them to look like another."""


def print_queries(found: Regressions) -> None:
    """Print the clusters, then the queries that fell and rose most."""
    say(
        f"{found.first} -> {found.second}: of {found.queries:,} queries {found.worse:,} fell and {found.better:,} rose "
        f"({visible(', '.join(found.tasks))})"
    )
    for version, tasks in found.scored_again.items():
        say(f"{version} was scored again on {visible(', '.join(tasks))}, because its rankings were not kept.")
    if found.left_out:
        say(f"Left out, because they have no score per query: {visible(', '.join(found.left_out))}")
    _print_clusters(found)
    for title, changes in (("Fell most", found.losses), ("Rose most", found.gains)):
        say(f"\n{title}" if changes else f"\n{title}: -")
        for change in changes:
            _print_query(change, found)


def visible(text: str, most: int | None = None) -> str:
    """Return a text on one line, without control characters and marks that change the direction of writing."""
    spaced = "".join(" " if character.isspace() else character for character in text)
    shown = "".join(each for each in spaced if unicodedata.category(each) != "Cc" and each not in _TURNS)
    shown = " ".join(shown.split())
    return shown if most is None or len(shown) <= most else shown[: most - 1] + "…"


def _print_clusters(found: Regressions) -> None:
    shown = found.clusters
    if len(shown) > CLUSTERS:
        shown = shown[: CLUSTERS // 2] + shown[-CLUSTERS // 2 :]
    level = f"{100 * found.confidence:g} % interval"
    say(f"\nQueries by subject, points ({len(shown)} of {len(found.clusters)})")
    columns = ("task", "queries about", "queries", found.first, found.second, "change", level, "p")
    rows = table(*columns, numbers=(2, None))
    for column in rows.columns[2:]:
        column.no_wrap = True
    for each in shown:
        rows.add_row(Text(visible(each.task)), Text(_subject(each)), *_numbers(each))
    console.print(rows)
    say("p: that the cluster did not change, adjusted (Holm) for the number of clusters")


def _subject(each: ClusterChange) -> str:
    return visible(", ".join(each.words)) or "(no word in common)"


def _numbers(each: ClusterChange) -> list[str]:
    points = [f"{each.size:,}", f"{each.before:.1f}", f"{each.after:.1f}", f"{each.change:+.1f}"]
    return [*points, f"{each.low:+.1f} to {each.high:+.1f}", probability(each.p)]


def _print_query(change: QueryChange, found: Regressions) -> None:
    say(
        f"{change.change:+.1f}  {visible(change.task)} {visible(change.id)}: {visible(change.text, QUERY)}  "
        f"({change.before:.1f} -> {change.after:.1f})"
    )
    rows = table(*("",) * 5, show_header=False)
    for document in change.documents:
        relevant = Text("relevant" if document.relevant else "", style="bold")
        text = Text(visible(document.text, DOCUMENT), style="dim")
        rows.add_row("     ", Text(_places(document)), relevant, Text(visible(document.id)), text)
    if change.documents:
        console.print(rows)


def _places(document: MovedDocument) -> str:
    if document.before is None:
        return f"entered at {document.after}"
    return f"left from {document.before}" if document.after is None else f"{document.before} to {document.after}"
