"""The command about what domains do to each other: analyze conflicts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from continual.cli.app import analyze_app
from continual.cli.options import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)


@analyze_app.command("conflicts")
def conflicts(
    domain: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Domain to compare, once per domain; by default all.")
    ] = None,
    rows: Annotated[
        str, typer.Option(metavar="N|all", help="Rows of each domain to train on, at most; all or 0 takes them all.")
    ] = "256",
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over these rows; by default train.epochs.")
    ] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="base|current", help="Model that every training starts from.")
    ] = "base",
    clusters: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Clusters to cut the domains into; by default groups are joined as long as the pairs between them do "
            "not hurt each other, on average, by more than chance does.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the trainings, from 0 up.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="File of the clusters; by default conflicts.toml in the workspace."
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the trainings and their cost, and do nothing.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Find which domains hurt each other, and cluster them.

    Each domain is trained alone and with each other one, on a sample of its rows. The conflict of two is their loss
    together minus their loss alone, on rows that no training saw. An analysis that was interrupted goes on, and
    one more domain costs its own trainings only.
    """
    from continual.cli import render_conflicts as render
    from continual.cli.bars import Bars
    from continual.conflicts.clusters import FILE
    from continual.conflicts.run import check_call

    opened = open_workspace(workspace)
    options: dict[str, Any] = {
        "domains": domain or None,
        "rows": render.parse_rows(rows),
        "epochs": epochs,
        "start": start,
        "seed": seed,
    }
    # Before the cost, which takes a while to measure.
    check_call(opened.registry, domain, clusters, out.expanduser() if out else opened.directory / FILE)
    with Bars() as bars:
        planned = opened.plan_conflicts(**options, progress=bars)
    if plan:
        print_json(planned.to_json()) if json else render.print_conflict_plan(planned)
        return
    print(render.cost(planned), file=sys.stderr, flush=True)
    try:
        with Bars() as bars:
            found = opened.conflicts(**options, clusters=clusters, out=out, progress=bars)
    except KeyboardInterrupt:
        print("continual: interrupted. The same command goes on where it stopped.", file=sys.stderr)
        raise typer.Exit(130) from None
    print_json(found.to_json()) if json else render.print_conflicts(found)
