"""What the commands about versions print, but for `versions show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table
from continual.registry import Alias
from continual.registry.catalog import utc

if TYPE_CHECKING:
    from continual.versions.collect import Collected
    from continual.versions.manage import VersionList


def print_versions(found: VersionList) -> None:
    """Print a line per version."""
    rows = table("", "version", "parent", "made (UTC)", "status", "pairs", "sha256", "snapshot", numbers=(5, 6))
    for column in rows.columns:
        column.no_wrap = True
    for version in found.versions:
        rows.add_row(
            "*" if version.id == found.current else "",
            version.id,
            version.parent or "",
            utc(version.created_at).removesuffix(" UTC"),
            version.status,
            f"{version.pairs_trained:,}",
            version.sha256[:12],
            "dropped" if version.id in found.dropped else "pinned" if version.pinned else "stored",
        )
    console.print(rows)
    say("* current version")


def print_current(event: Alias) -> None:
    """Print which version is current now."""
    say(f"{event.version} is now the current version; it was {event.previous}.")


def print_history(events: list[Alias]) -> None:
    """Print when and why each version became current, the newest last."""
    rows = table("since (UTC)", "version", "before", "reason")
    rows.columns[0].no_wrap = True
    for event in events:
        when = utc(event.at).removesuffix(" UTC")
        rows.add_row(when, event.version, event.previous or "", escape(event.reason))
    console.print(rows)


def print_collected(found: Collected, dry_run: bool) -> None:
    """Print which snapshots and checkpoints were dropped, and why the other snapshots were kept."""
    verb = "would be dropped" if dry_run else "dropped"
    if found.dropped:
        say(f"{verb}: {', '.join(found.dropped)}; a command that needs one rebuilds it.")
    if found.checkpoints:
        count = "1 checkpoint" if found.checkpoints == 1 else f"{found.checkpoints} checkpoints"
        say(f"{verb}: {count} of unfinished recipes.")
    if found.dropped or found.checkpoints:
        say(f"{'This would free' if dry_run else 'This freed'} {found.bytes / 1e6:,.0f} MB.")
    else:
        say(f"Nothing {'to drop' if dry_run else 'was dropped'}.")
    for version, reason in found.kept.items():
        say(f"{version} is kept: {reason}")
