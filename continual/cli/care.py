"""The command that checks a workspace: doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app
from continual.cli.options import JsonOption, WorkspaceOption, open_workspace, print_json


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
