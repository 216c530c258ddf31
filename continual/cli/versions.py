"""The commands about versions: list, show, promote, rollback, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from continual.cli.app import app, versions_app
from continual.cli.options import JsonOption, WorkspaceOption, open_workspace, print_json

Name = Annotated[str, typer.Argument(metavar="VERSION", help="An id such as v3, or an alias such as current.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the log of the alias.")]


@versions_app.command("list")
def list_versions(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List all versions, the root base first."""
    from continual.cli import render

    opened = open_workspace(workspace)
    found, current = opened.versions(), opened.version().id
    if json:
        print_json({"current": current, "versions": [asdict(version) for version in found]})
    else:
        render.print_versions(found, current)


@versions_app.command("show")
def show_version(name: Name, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show how a version was made, from what, and what the gate said of it."""
    from continual.cli import render

    lineage = open_workspace(workspace).lineage(name)
    print_json(asdict(lineage[-1])) if json else render.print_version(lineage[-1], lineage)


@app.command()
def promote(name: Name, reason: Reason = None, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Put a version into service, whatever the gate said."""
    opened = open_workspace(workspace)
    event = opened.promote(name, reason) if reason else opened.promote(name)
    print_json(asdict(event)) if json else print(f"{event.version} is in service now; it was {event.previous}.")


@app.command()
def rollback(reason: Reason = None, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Put the parent of current back into service."""
    opened = open_workspace(workspace)
    event = opened.rollback(reason) if reason else opened.rollback()
    print_json(asdict(event)) if json else print(f"{event.version} is in service now; it was {event.previous}.")


@app.command()
def export(
    name: Name,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a version out, for SentenceTransformer."""
    opened = open_workspace(workspace)
    version, target = opened.version(name), opened.export(name, directory)
    if json:
        print_json({"version": version.id, "sha256": version.sha256, "directory": str(target)})
    else:
        print(f"{version.id} is in {target}: SentenceTransformer({str(target)!r}) loads it.")
