"""The command that compares two versions: compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app
from continual.cli.options import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)
from continual.errors import InputError


@app.command()
def compare(
    a: Annotated[
        str | None, typer.Argument(metavar="[A]", help="Version: an id or alias; by default the parent of B.")
    ] = None,
    b: Annotated[str, typer.Argument(metavar="[B]", help="Version: an id or alias.")] = "current",
    queries: Annotated[
        bool, typer.Option("--queries", help="Compare query by query: which fell and rose most, and their subjects.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Compare weights by group of layers, and how far embeddings moved.")
    ] = False,
    index: Annotated[
        bool, typer.Option("--index", help="Compare indexes: what B's queries find in the index that A filled.")
    ] = False,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Task for scores or --queries, repeatable; by default those of the suite step."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", metavar="N", help="With --queries: how many to show of each; 5 by default.")
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Compare two versions: their scores, or queries, weights or indexes.

    Scores are compared task by task: B minus A with its interval, the p-value of a permutation test, and how many
    queries B answers better and worse. Missing scores are computed first.
    """
    from continual.cli.render import compare as render
    from continual.cli.render.index import print_index
    from continual.cli.render.queries import print_queries

    if queries + weights + index > 1:
        raise InputError("--queries, --weights and --index are different comparisons. Choose one.")
    if count is not None and not queries:
        raise InputError("-n works with --queries only. Add --queries, or leave -n out.")
    if task and (weights or index):
        raise InputError("--task works with scores and --queries only. Leave it out.")
    opened = open_workspace(workspace)
    found: Any
    show: Callable[[Any], None]
    with Bars() as bars:
        if queries:
            limit = {} if count is None else {"count": count}
            found, show = opened.compare_queries(a, b, tasks=task or None, **limit, progress=bars), print_queries
        elif weights:
            found, show = opened.compare_weights(a, b, progress=bars), render.print_weights
        elif index:
            found, show = opened.compare_index(a, b, progress=bars), print_index
        else:
            found, show = opened.compare(a, b, tasks=task or None, progress=bars), render.print_scores
    print_json(found.to_json()) if json else show(found)
