"""What init and status print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table

if TYPE_CHECKING:
    from continual.report.status import Status


def print_init(status: Status, base: str) -> None:
    """Print what was made, and the next command."""
    say(f"Made a workspace in {status.directory}. {base} is version v0, the current version.")
    say("The settings are in continual.toml.")
    here = "" if Path(status.directory) == Path.cwd() else f"`cd {status.directory}`, then "
    say(f"Next: {here}add a domain with `continual ingest FILE`.")


def print_status(status: Status) -> None:
    """Print the state of a workspace, and the next command."""
    since = status.since.replace("T", " ")[:16]
    say(f"{status.current} is the current version since {since} UTC ({status.directory})")
    if status.domains:
        rows = table("domain", "rows", "learned", "kind", "tasks", numbers=(1, 3))
        for domain in status.domains:
            counts = f"{domain.rows:,}", f"{domain.learned:,}"
            rows.add_row(escape(domain.name), *counts, domain.kind, escape(", ".join(domain.tasks)))
        console.print(rows)
    say(f"OOD tasks: {', '.join(status.ood_tasks) or '-'}")
    say(f"{status.versions} version{'s' * (status.versions > 1)}, {status.bytes / 1e6:,.0f} MB on disk")
    waiting = [domain.name for domain in status.domains if domain.learned < domain.rows]
    if status.running:
        say(f"An update to {status.running} is running.")
    elif status.interrupted:
        say(f"The update to {status.interrupted} was interrupted. `continual update --resume` continues it.")
    elif waiting:
        say(f"New rows in {', '.join(waiting)}: `continual update` learns them.")
    else:
        say("All rows are learned. `continual ingest FILE` adds more.")
