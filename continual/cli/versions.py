"""The commands about versions: list, show, history, diff, rebuild, pin, promote, rollback, export, gc."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from continual.cli.app import app, versions_app
from continual.cli.options import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)

Name = Annotated[str, typer.Argument(metavar="VERSION", help="An id such as v3, or an alias such as current.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the log of the alias.")]


@versions_app.command("list")
def list_versions(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List all versions, the root base first."""
    from continual.cli import render_versions as render

    opened = open_workspace(workspace)
    found, current = opened.versions(), opened.version().id
    dropped = {version.id for version in found if not opened.registry.path(version.path).is_dir()}
    if json:
        rows = [asdict(version) | {"dropped": version.id in dropped} for version in found]
        print_json({"current": current, "versions": rows})
    else:
        render.print_versions(found, current, dropped)


@versions_app.command("show")
def show_version(name: Name, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show how a version was made, from what, and what the gate said of it."""
    from continual.cli import render_versions as render

    lineage = open_workspace(workspace).lineage(name)
    print_json(asdict(lineage[-1])) if json else render.print_version(lineage[-1], lineage)


@versions_app.command("history")
def show_history(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show what was in service, since when, and why."""
    from continual.cli import render_versions as render

    events = open_workspace(workspace).history()
    print_json([asdict(event) for event in events]) if json else render.print_history(events)


@versions_app.command("diff")
def diff_versions(
    first: Annotated[str, typer.Argument(metavar="A", help="An id such as v3, or an alias such as current.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Compare what two versions changed, by group of layers, and how embeddings moved."""
    from continual.cli import render_versions as render
    from continual.cli.bars import Bars

    with Bars() as bars:
        found = open_workspace(workspace).diff(first, second, progress=bars)
    print_json(found.to_json()) if json else render.print_diff(found)


@versions_app.command("rebuild")
def rebuild_version(name: Name, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Build a version again from the root base and adapters, and check its sha256."""
    from continual.cli.bars import Bars

    with Bars() as bars:
        version = open_workspace(workspace).rebuild(name, progress=bars)
    if json:
        print_json({"version": version.id, "sha256": version.sha256})
    else:
        print(f"{version.id} was built again with the weights that were recorded, sha256 {version.sha256[:12]}.")


@versions_app.command("pin")
def pin_version(
    name: Name,
    off: Annotated[bool, typer.Option("--off", help="Let it be dropped again.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Keep the snapshot of a version, whatever gc drops."""
    from continual.cli.bars import Bars

    with Bars() as bars:
        version = open_workspace(workspace).pin(name, not off, progress=bars)
    what = "its snapshot stays" if version.pinned else "its snapshot may be dropped"
    print_json({"version": version.id, "pinned": version.pinned}) if json else print(f"{version.id}: {what}.")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="An id such as v3, or an alias such as current.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another; by default what is in service.")] = "current",
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Compare the scores of two versions, with intervals.

    Task by task: B minus A with its interval, the p-value of a permutation test, and how many queries B answers better
    and worse. What a version was not scored on yet is scored first.
    """
    from continual.cli import render_versions as render
    from continual.cli.bars import Bars

    with Bars() as bars:
        found = open_workspace(workspace).compare(first, second, progress=bars)
    print_json(found.to_json()) if json else render.print_comparison(found)


@app.command()
def gc(
    keep_every: Annotated[
        int | None,
        typer.Option(metavar="N", help="Every n-th version keeps its snapshot; by default store.keep_every."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be dropped.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Drop the snapshots that can be built again.

    Each is built again and compared before it is dropped. The root base, what is in service and pinned versions stay.
    Checkpoints of trainings that `train` began and did not end are removed too.
    """
    from continual.cli import render_versions as render
    from continual.cli.bars import Bars

    with Bars() as bars:
        found = open_workspace(workspace).gc(keep_every=keep_every, dry_run=dry_run, progress=bars)
    print_json(asdict(found)) if json else render.print_collected(found, dry_run)


@app.command()
def promote(name: Name, reason: Reason = None, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Put a version into service, whatever the gate said."""
    from continual.cli.bars import Bars

    with Bars() as bars:
        event = open_workspace(workspace).promote(name, **({"reason": reason} if reason else {}), progress=bars)
    print_json(asdict(event)) if json else print(f"{event.version} is in service now; it was {event.previous}.")


@app.command()
def rollback(reason: Reason = None, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Put back into service what was there before."""
    from continual.cli.bars import Bars

    with Bars() as bars:
        event = open_workspace(workspace).rollback(**({"reason": reason} if reason else {}), progress=bars)
    print_json(asdict(event)) if json else print(f"{event.version} is in service now; it was {event.previous}.")


@app.command()
def export(
    name: Name,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a version out, for SentenceTransformer.

    With it goes a model card, README.md, that names its lineage, data, licences and scores, and mteb's result files.
    """
    from continual.cli.bars import Bars

    opened = open_workspace(workspace)
    with Bars() as bars:
        version, target = opened.version(name), opened.export(name, directory, progress=bars)
    if json:
        print_json({"version": version.id, "sha256": version.sha256, "directory": str(target)})
    else:
        print(f"{version.id} is in {target}: SentenceTransformer({str(target)!r}) loads it.")
