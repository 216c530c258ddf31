"""The commands that take care of a workspace: doctor, backup, restore, forget."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

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
        bool, typer.Option("--verify", help="Read every file back from the backup, and replace what is damaged.")
    ] = False,
    remove: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Remove this backup instead, with the files that no other backup needs."),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Copy the workspace to a folder of backups; other commands may run meanwhile.

    Only what the folder lacks is copied. A running or interrupted update is left out.

    --remove needs no workspace. If the target is a URL, run no backup to it meanwhile.
    """
    from continual.cli.render import care as render
    from continual.workspace import Workspace

    if remove is not None:
        removed = Workspace.remove_backup(target, remove)
        print_json(removed.to_json()) if json else render.print_removed(removed)
        return
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
    """Write the workspace of a backup to a new folder.

    Code that models bring with them is not run there: trust_remote_code becomes false in continual.toml.
    """
    from continual.care.restore import backups
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


@app.command()
def forget(
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="Domain to forget, with all its rows and tasks.")
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of the rows to forget, in any format that ingest reads."),
    ] = None,
    query: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Query to forget, with all rows that have it.")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Make the current version without these rows, and remove the models that learned them."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask. Needed without a terminal.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Remove rows from everything that is stored, and show that no byte of their texts is left.

    Rows are removed from training data, tasks, rejected rows, caches and lost files. The command lists the versions
    that were trained on them. A certificate, without any of the texts, is kept in .continual/certificates.
    """
    from continual.cli.render import forget as render
    from continual.forget.request import Request

    options: dict[str, Any] = {"domain": domain, "rows": rows, "query": query, "rebuild": rebuild}
    opened = open_workspace(workspace)
    Request.of(**options, dry_run=dry_run).check()
    if domain is not None:
        opened.registry.domain_names([domain])  # an unknown one is said before anything is asked
    named = any(value is not None for value in (domain, rows, query))
    if not yes and not dry_run:
        if json or not sys.stdin.isatty():
            raise InputError("What is forgotten can't be restored. Add --yes, or look first with --dry-run.")
        if named:
            render.print_certificate(opened.forget(**options, dry_run=True), dry_run=True)
        if not typer.confirm("Remove this for good?"):
            say("Nothing was removed.")
            return
    with Bars() as bars:
        done = opened.forget(**options, dry_run=dry_run, progress=bars)
    print_json(done.to_json()) if json else render.print_certificate(done, dry_run=dry_run)
