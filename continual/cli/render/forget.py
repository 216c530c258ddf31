"""What forget prints."""

from __future__ import annotations

from continual.cli.render.console import say
from continual.forget.certificate import Certificate, Rebuilt, SearchResult

NAMES = {
    "rows": "training row",
    "rejects": "rejected row",
    "task_queries": "query of a task",
    "task_documents": "document of a task",
    "judgements": "judgement",
    "leaks": "recorded leak",
    "scores": "score",
    "tasks": "task",
    "batches": "batch",
    "domains": "domain",
}

SHOWN = 10
"""Paths of a list that are printed."""

PLURALS = {"query of a task": "queries of tasks", "document of a task": "documents of tasks", "batch": "batches"}


def print_certificate(done: Certificate, *, dry_run: bool = False) -> None:
    """Print what was removed, what was trained on it, and what still holds it."""
    if done.selection is not None:
        counts = [_count(done.removed[name], title) for name, title in NAMES.items() if done.removed.get(name)]
        files = len(done.files)
        say(f"{'Would remove' if dry_run else 'Removed'} {', '.join(counts) or 'no row'} ({_count(files, 'file')}).")
        if done.shared:
            verb = "stays" if done.shared == 1 else "stay"
            say(f"{_count(done.shared, 'text')} {verb}, because rows that were not selected have the same text.")
        if done.missed:
            say(
                f"Up to {_count(sum(done.missed.values()), 'row')} of {', '.join(done.missed)} were dropped before, "
                "as duplicates or leaks of what is removed. Ingest the files again to add them."
            )
        if done.domain is not None and not dry_run:
            say(f"The name {done.domain} itself is kept, in the certificate and in the records of versions.")
        if done.discarded is not None:
            say(f"{'Would discard' if dry_run else 'Discarded'} the unfinished update to {done.discarded}.")
    if done.search is not None:
        _print_search(done.search)
    _print_versions(done)
    if done.rebuilt is not None:
        _print_rebuilt(done.rebuilt)
    _print_elsewhere(done)
    if done.path is not None:
        say(f"Certificate: .continual/{done.path}")


def _print_search(search: SearchResult) -> None:
    if search.cleared:
        say(f"Removed {_count(len(search.cleared), 'file')} that no record names: {', '.join(search.cleared)}.")
    apart = f" ({search.whole_only:,} of them only as whole cells)" if search.whole_only else ""
    result = f"found in {', '.join(search.found)}" if search.found else "none was found"
    read = f"{_count(search.files, 'file')}, {search.bytes / 1e6:,.1f} MB"
    say(f"Searched {read}, for {_count(search.texts, 'removed text')}{apart}: {result}.")
    if search.short:
        say(
            f"Look at these files that no record names: a cell equals a short removed text, perhaps by chance: "
            f"{_some(search.short)}."
        )
    if search.unread:
        say(f"Not searched, because they can't be read: {_some(search.unread)} in .continual.")
    beside = search.beside
    if beside is None:
        return
    if beside.found:
        say(f"These files of yours in the folder of the workspace still hold them: {_some(beside.found)}.")
    if skipped := [*beside.unread, *beside.links]:
        say(f"Not searched in the folder of the workspace, links and what can't be read: {_some(skipped)}.")


def _print_versions(done: Certificate) -> None:
    if not done.versions:
        if done.selection is not None:
            say("No version was trained on them.")
        return
    for name, why in done.versions.items():
        say(f"    {name} was {why}.")
    if done.rebuilt is None:
        say("These models still know the rows. `continual forget --rebuild` replaces the current one and removes them.")


def _print_rebuilt(rebuilt: Rebuilt) -> None:
    for old, new, how in rebuilt.steps:
        say(f"    {old}: {how}." if new is None else f"    {old}: {how} as {new}.")
    if rebuilt.new != rebuilt.old:
        say(f"The current version is {rebuilt.new}; it was {rebuilt.old}. {rebuilt.why}")
    else:
        say(rebuilt.why)
    if rebuilt.distance is not None and rebuilt.new != rebuilt.old:
        cosine = "" if rebuilt.cosine is None else f", and the mean cosine of embeddings is {rebuilt.cosine:.4f}"
        say(
            f"Its weights differ from those of {rebuilt.old} by {rebuilt.distance:.1%} of what {rebuilt.old} had "
            f"changed since the root base{cosine}."
        )
    if rebuilt.refused:
        say(
            f"The gate would have refused {', '.join(rebuilt.refused)}. Compare the scores: `continual eval "
            f"{rebuilt.new}`."
        )
    say(f"Removed the models of {', '.join(rebuilt.removed)}.")


def _print_elsewhere(done: Certificate) -> None:
    if done.lost:
        say(f"Nobody knows what these lost models were trained on: {', '.join(done.lost)}. Remove them by hand.")
    if done.backups:
        say(f"Backups that were made before still hold the rows: {', '.join(done.backups)}.")
    else:
        say("Backups and exports that were made before still hold the rows.")


def _some(paths: list[str]) -> str:
    """Return the first paths; the certificate has all."""
    more = f" and {len(paths) - SHOWN:,} more" if paths[SHOWN:] else ""
    return f"{', '.join(paths[:SHOWN])}{more}"


def _count(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    return f"{number:,} {PLURALS.get(what, what + 's')}"
