"""What index show, index fit and compare --index print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from continual.cli.render.console import console, say, table

if TYPE_CHECKING:
    from continual.index.fill import Checked, Filled
    from continual.index.fit import FittedFolder
    from continual.index.result import IndexComparison


def print_pairs(found: Sequence[IndexComparison]) -> None:
    """Print a line per pair of versions."""
    if not found:
        say("No indexes were compared yet. `continual update` and `continual compare A B --index` compare them.")
        return
    rows = _table("old", "new", "cosine", "overlap", "kept", "map", "re-index", texts=2)
    for each in found:
        cosine, overlap = each.mean("canary"), each.mean("overlap")
        figures = (f"{cosine:.3f}", f"{overlap:.0%}", f"{each.kept:.1%}", _share(each.kept_mapped))
        rows.add_row(each.old, each.new, *figures, each.needs_reindex)
    console.print(rows)
    say(
        "kept, map: share of full re-embedding's score that new queries keep on the old index, as they are and through "
        "a query map, on the task that loses most"
    )


def print_index(found: IndexComparison) -> None:
    """Print the scores of both models on the indexes of both, task by task, and whether to re-index."""
    say(
        f"Points by queries/index: old is {found.old}, new is {found.new}, map is {found.new}'s queries through a "
        "query map."
    )
    columns = ("old/old", "new/new", "new/old", "map/old", "old/new", "kept", "map")
    rows = _table("task", "cosine", "overlap", *columns, texts=1, gap=1)
    for task in found.tasks:
        scores = (task.old_on_old, task.new_on_new, task.new_on_old, task.mapped_on_old, task.old_on_new)
        shown = ["" if score is None else f"{score:.1f}" for score in scores]
        shares = f"{task.kept:.1%}", _share(task.kept_mapped)
        rows.add_row(escape(task.task), f"{task.canary:.3f}", f"{task.overlap:.0%}", *shown, *shares)
    console.print(rows)
    say("kept, map: new/old and map/old as shares of new/new, the score after full re-embedding")
    say(f"Re-index: {found.needs_reindex}. {' '.join(found.reasons)}")


def print_fitted(fitted: FittedFolder) -> None:
    """Print what the queries of a fitted folder find, and how to use it."""
    found = fitted.comparison
    print_index(found)
    assert found.map is not None
    settings = ", ".join(f"{name} {value:g}" for name, value in found.map.settings.items())
    say(
        f"Query map: {found.map.method}{f' ({settings})' if settings else ''}, fitted on {found.map.rows:,} learned "
        f"rows, chosen from {len(fitted.tried)} maps on {found.map.held_out:,} others."
    )
    if found.map.method == "identity":
        say("No map does better than the queries as they are, so the folder holds the new model unchanged.")
    say(
        f"SentenceTransformer({str(fitted.directory)!r}).encode_query(...) searches the index of {found.old} until it "
        f"is rebuilt with {found.new}. Never encode documents with it."
    )


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _table(*columns: str, texts: int, gap: int = 2) -> Table:
    made = table(*columns, numbers=(texts, None), gap=gap)
    made.columns[0].overflow = "fold"
    for column in made.columns[texts:]:
        column.no_wrap = True
    return made


def print_filled(filled: Filled) -> None:
    """Print what a fill did."""
    rate = filled.embedded / filled.seconds if filled.seconds else 0.0
    say(
        f"{filled.count:,} texts by {filled.version} in {filled.target} ({filled.bytes / 1e6:,.1f} MB): "
        f"{filled.embedded:,} embedded in {filled.seconds:.0f} s ({rate:,.0f} texts/s), {filled.unchanged:,} "
        f"unchanged, {filled.removed:,} removed."
    )


def print_checked(found: Checked) -> None:
    """Print whether a version's queries may search an index, and why."""
    filled = found.manifest
    if found.verdict == "yes":
        say(f"Yes: {found.version} embeds as {filled.version} did, which filled the index.")
    elif found.verdict == "no":
        how = "; ".join(found.differences)
        say(f"No: {filled.version} filled the index, and {found.version} embeds otherwise: {how}.")
        say(
            f"Search it with {filled.version}, fill another index with {found.version}, or ask it through a query map: "
            f"`continual index fit {filled.version} {found.version} --out DIR`."
        )
    else:
        say(f"No: the vectors are not those of {filled.version}, though the manifest says so. Fill the index again.")
    if found.cosine is not None:
        say(
            f"{found.probes} texts embedded again have a cosine of at least {found.cosine:.4f} to their stored vectors."
        )
