"""The commands about evaluation: task add, task list, eval."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app, task_app
from continual.cli.options import (
    JsonOption,
    VersionArgument,
    WorkspaceOption,
    open_workspace,
    print_json,
)


@task_app.command("add")
def add_task(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the task; mteb:NAME alone keeps the name it has in mteb.")
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]",
            help="Folder with corpus, queries and qrels (Parquet, or BEIR's JSONL and TSV), or the qrels file of the "
            "split to use; or mteb:NAME.",
        ),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="Domain that the task tests; without it, the task is OOD.")
    ] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Subset (language) of an mteb task to keep, repeatable; by default all."),
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out tasks of a benchmark whose data is not available.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Add an evaluation task from a folder or from mteb.

    `continual task add NAME DIR` copies a folder. `continual task add mteb:SciFact` adds a task of mteb, and
    `continual task add "mteb:MTEB(eng, v2)"` all tasks of a benchmark; their data comes from the local Hugging Face
    cache or from the Hub.
    """
    from continual.cli.render import tasks as render

    opened = open_workspace(workspace)
    with Bars() as bars:
        reports = opened.add_task(
            name, source, domain=domain, subsets=subset or (), skip_missing=skip_missing, progress=bars
        )
    print_json({"tasks": [asdict(report) for report in reports]}) if json else render.print_tasks_added(reports)


@task_app.command("list")
def list_tasks(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List the evaluation tasks."""
    from continual.cli.render import tasks as render

    found = open_workspace(workspace).tasks()
    print_json({"tasks": [asdict(task) for task in found]}) if json else render.print_task_list(found)


@app.command("eval")
def evaluate(
    name: VersionArgument = "current",
    suite: Annotated[
        str, typer.Option(metavar="step|release", help="Suite of continual.toml to score on.")
    ] = "release",
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Task to score on, repeatable; by default those of the suite."),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Score a version on a suite of tasks.

    Scores that exist for the same version, task and settings are not computed again.
    """
    from continual.cli.render import tasks as render

    with Bars() as bars:
        found = open_workspace(workspace).evaluate(name, suite=suite, tasks=task or None, progress=bars)
    print_json(found.to_json()) if json else render.print_evaluation(found)
