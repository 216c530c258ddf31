"""The command about how domains affect each other: analyze conflicts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from continual.cli.bars import Bars
from continual.cli.groups import analyze_app
from continual.cli.options import (
    ExecutorOption,
    JsonOption,
    SettingOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)
from continual.cli.parse import parse_rows, parse_settings
from continual.executors.choose import parse_executor
from continual.storage.terminal import say, warn


@analyze_app.command("conflicts")
def conflicts(
    domain: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Domain to compare, repeatable; by default all.")
    ] = None,
    rows: Annotated[str, typer.Option(metavar="N|all", help="Rows of each domain to train on, at most.")] = "256",
    start: Annotated[
        str, typer.Option("--from", metavar="base|current", help="Model that every training starts from.")
    ] = "base",
    clusters: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Number of clusters; by default groups are joined while the pairs between them conflict, on average, "
            "by no more than chance.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the trainings, 0 or more.")] = 0,
    setting: SettingOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="File for the clusters; by default conflicts.toml in the workspace."
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the trainings and the cost, and change nothing.")] = False,
    executor: ExecutorOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Find which domains hurt each other, and cluster them.

    Trains each domain alone and with each other one, on a sample of its rows. The conflict of two domains is their loss
    together minus their loss alone, on rows that no training saw. An interrupted analysis continues where it stopped,
    and a further domain costs only its own trainings.
    """
    from continual.cli.render import conflicts as render

    if executor is not None:
        parse_executor(executor)  # also for a plan, which trains nothing
    opened = open_workspace(workspace)
    options: dict[str, Any] = {"domains": domain or None, "rows": parse_rows(rows), "start": start, "seed": seed}
    options |= {"clusters": clusters, "out": out, "settings": parse_settings(setting)}
    with Bars() as bars:
        planned = opened.plan_conflicts(**options, progress=bars)
    if plan:
        print_json(planned.to_json()) if json else render.print_conflict_plan(planned)
        return
    say(render.cost(planned), sys.stderr)
    try:
        with Bars() as bars:
            found = opened.conflicts(**options, executor=executor, progress=bars)
    except KeyboardInterrupt:
        warn("interrupted. Run the same command again to continue.")
        raise typer.Exit(130) from None
    print_json(found.to_json()) if json else render.print_conflicts(found)
