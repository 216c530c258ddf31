"""The command that says what got worse: regressions."""

from __future__ import annotations

from typing import Annotated

import typer

from continual.cli.app import app
from continual.cli.options import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)


@app.command()
def regressions(
    first: Annotated[
        str | None, typer.Argument(metavar="[A]", help="An id or alias; by default the parent of B.")
    ] = None,
    second: Annotated[str, typer.Argument(metavar="[B]", help="Another; by default what is in service.")] = "current",
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Task, once for each; by default those of the suite step.")
    ] = None,
    count: Annotated[int, typer.Option("-n", metavar="N", help="Queries to show of each kind.")] = 5,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show which queries got worse from A to B.

    The queries that fell and rose most, with the documents that left and entered their first ten; and clusters of
    queries, named by the words that set them apart, with intervals. What was scored before rankings were kept is scored
    once more.
    """
    from continual.cli import render_regressions as render
    from continual.cli.bars import Bars

    opened = open_workspace(workspace)
    with Bars() as bars:
        found = opened.regressions(first, second, tasks=task or None, count=count, progress=bars)
    print_json(found.to_json()) if json else render.print_regressions(found)
