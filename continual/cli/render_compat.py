"""How index compatibility looks in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from continual.cli.render import console, say

if TYPE_CHECKING:
    from continual.index.check import FittedFolder
    from continual.index.result import Compatibility


def print_pairs(found: Sequence[Compatibility]) -> None:
    """Print a line per pair of versions."""
    if not found:
        say("Nothing was measured yet. `continual update` does it, and so does `continual compat check OLD NEW`.")
        return
    table = _table("old", "new", "cosine", "overlap", "kept", "map", "re-index", texts=2)
    for each in found:
        cosine, overlap = each.mean("canary"), each.mean("overlap")
        figures = (f"{cosine:.3f}", f"{overlap:.0%}", f"{each.kept:.1%}", _share(each.kept_mapped))
        table.add_row(each.old, each.new, *figures, each.needs_reindex)
    console.print(table)
    say(
        "kept, map: shares of full re-embedding's score that new queries have on the old index, as they are and "
        "through a map, each on the task that loses most"
    )


def print_compatibility(found: Compatibility) -> None:
    """Print the scores of both models on the indexes of both, task by task, and the verdict."""
    say(
        f"Points, by queries/index: old is {found.old}, new is {found.new}, map is {found.new}'s queries through a map."
    )
    columns = ("old/old", "new/new", "new/old", "map/old", "old/new", "kept", "map")
    table = _table("task", "cosine", "overlap", *columns, texts=1, gap=1)
    for task in found.tasks:
        scores = (task.old_on_old, task.new_on_new, task.new_on_old, task.mapped_on_old, task.old_on_new)
        shown = ["" if score is None else f"{score:.1f}" for score in scores]
        shares = f"{task.kept:.1%}", _share(task.kept_mapped)
        table.add_row(escape(task.task), f"{task.canary:.3f}", f"{task.overlap:.0%}", *shown, *shares)
    console.print(table)
    say("kept, map: new/old and map/old as shares of new/new, which full re-embedding gives")
    say(f"Re-index: {found.needs_reindex}. {' '.join(found.reasons)}")


def print_fitted(fitted: FittedFolder) -> None:
    """Print what a fitted map recovers, and how it is used."""
    found = fitted.compatibility
    print_compatibility(found)
    assert found.map is not None
    settings = ", ".join(f"{name} {value:g}" for name, value in found.map.settings.items())
    say(
        f"Map: {found.map.method}{f' ({settings})' if settings else ''}, fitted on {found.map.rows:,} learned rows, "
        f"chosen among {len(fitted.tried)} on {found.map.held_out:,} others."
    )
    if found.map.method == "identity":
        say("No map finds more than none does, so the folder holds the new model as it is.")
    say(
        f"SentenceTransformer({str(fitted.directory)!r}).encode_query(...) searches the index of {found.old} until it "
        f"is made anew with {found.new}. Encode no documents with it."
    )


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _table(*columns: str, texts: int, gap: int = 2) -> Table:
    table = Table(*columns, box=None, pad_edge=False, padding=(0, gap, 0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[texts:]:
        column.justify, column.no_wrap = "right", True
    return table
