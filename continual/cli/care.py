"""The commands that take care of a workspace: doctor, backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app
from continual.cli.options import JsonOption, WorkspaceOption, open_workspace, print_json
from continual.errors import InputError
from continual.storage.terminal import say


@app.command()
def doctor(
    full: Annotated[
        bool, typer.Option("--full", help="Read every file, not only those that changed since they were last read.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend, and say what was done.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Find damaged, missing, unknown and left-over files, and wrong records.

    --fix removes what killed processes left, rebuilds damaged snapshots, drops damaged scores, and moves files that the
    catalog does not know to .continual/lost. The exit code is 0 if nothing is wrong, and 2 if something is.
    """
    from continual.cli.render import care as render

    with Bars() as bars:
        found = open_workspace(workspace).doctor(full=full, fix=fix, progress=bars)
    print_json(found.to_json()) if json else render.print_diagnosis(found)
    if not found.healthy:
        raise typer.Exit(2)


@app.command()
def backup(
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="Folder of backups, which is made, or a URL such as s3://bucket/dir."),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file back from the backup, and check its digest.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Copy the workspace to a folder of backups; other commands may run meanwhile.

    Only what the folder lacks is copied. A running or interrupted update is left out.
    """
    from continual.cli.render import care as render

    with Bars() as bars:
        made = open_workspace(workspace).backup(target, verify=verify, progress=bars)
    print_json(made.to_json()) if json else render.print_backup(made)


@app.command()
def restore(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or URL that `continual backup` wrote to.")],
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="New or empty folder for the workspace.", show_default=False)
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="NAME", help="Backup to restore.", show_default="the newest")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the backups instead.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write the workspace of a backup to a new folder."""
    from continual.care.backup import backups
    from continual.cli.render import care as render
    from continual.workspace import Workspace

    if show:
        names = backups(source)
        print_json(names) if json else say("\n".join(names))
        return
    target = workspace or directory
    if target is None:
        raise InputError("Name a new folder for the workspace: `continual restore SOURCE DIR`.")
    with Bars() as bars:
        made = Workspace.restore(source, target, at=at, progress=bars)
    print_json(made.to_json()) if json else render.print_restored(made)
