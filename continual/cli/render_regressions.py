"""What `continual regressions` prints: texts of other people, made safe for a terminal."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from continual.cli.render import console, say
from continual.report.figures.numbers import probability

if TYPE_CHECKING:
    from continual.eval.regressions import (
        ClusterChange,
        MovedDocument,
        QueryChange,
        Regressions,
    )

CLUSTERS = 12
"""Clusters that are shown: half of them from either end."""

QUERY = 200
"""Characters of a query that are shown."""

DOCUMENT = 90
"""Characters of a document that are shown."""

_TURNS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\u200e", "\u200f"}
"""Marks that turn the direction of writing: with them a text can pretend to be another."""


def print_regressions(found: Regressions) -> None:
    """Print the clusters, then the queries that fell and rose most."""
    say(
        f"{found.first} -> {found.second}: of {found.queries:,} queries {found.worse:,} fell and {found.better:,} rose "
        f"({visible(', '.join(found.tasks))})"
    )
    for version, tasks in found.scored_again.items():
        say(f"{version} was scored once more on {visible(', '.join(tasks))}: its rankings had not been kept.")
    if found.left_out:
        say(f"Left out, for they have no score per query: {visible(', '.join(found.left_out))}")
    _print_clusters(found)
    for title, changes in (("Fell most", found.losses), ("Rose most", found.gains)):
        say(f"\n{title}" if changes else f"\n{title}: none")
        for change in changes:
            _print_query(change, found)


def visible(text: str, most: int | None = None) -> str:
    """Return a text on one line, without what a terminal would obey: control characters and turns of direction."""
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
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for each in shown:
        table.add_row(Text(visible(each.task)), Text(_subject(each)), *_numbers(each))
    console.print(table)
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
    table = Table(
        found.first, found.second, "", "document", "", box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False
    )
    for document in change.documents:
        relevant = Text("relevant" if document.relevant else "", style="bold")
        text = Text(visible(document.text, DOCUMENT), style="dim")
        table.add_row("     ", Text(_places(document)), relevant, Text(visible(document.id)), text)
    if change.documents:
        console.print(table)


def _places(document: MovedDocument) -> str:
    if document.before is None:
        return f"entered at {document.after}"
    return f"left from {document.before}" if document.after is None else f"{document.before} to {document.after}"
