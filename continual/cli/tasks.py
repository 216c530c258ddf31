"""The commands about evaluation: task add, task list, eval."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from continual.cli.app import app, task_app
from continual.cli.options import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)

MTEB = "mteb:"


@task_app.command("add")
def task_add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the task; a lone mteb:NAME keeps the name it has in mteb.")
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]",
            help="Folder with corpus, queries and qrels: Parquet, or BEIR's JSONL/TSV; or mteb:NAME of a task of mteb.",
        ),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="The domain that it tests; without one it is out of domain.")
    ] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of a task of mteb, a subset (language) to keep, once per subset."),
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out tasks of a benchmark whose data cannot be had.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Register an evaluation task: a folder's, or mteb's.

    `continual task add NAME DIR` copies a folder. `continual task add mteb:SciFact` takes a task of mteb, and
    `continual task add "mteb:MTEB(eng, v2)"` all tasks of a benchmark, from the local Hugging Face cache or from the
    Hub.
    """
    from continual.cli import render_tasks as render
    from continual.cli.bars import Bars
    from continual.errors import InputError

    opened = open_workspace(workspace)
    if source is None and name.startswith(MTEB):
        title, source = None, name
    else:
        title = name
    if source is None:
        raise InputError(f"continual task add {name} needs a folder, or mteb:NAME for a task of mteb.")
    if source.startswith(MTEB):
        with Bars() as bars:
            reports = opened.add_mteb(
                source, name=title, domain=domain, subsets=subset or (), skip_missing=skip_missing, progress=bars
            )
        if json:
            print_json({"tasks": [asdict(report) for report in reports]})
        else:
            render.print_tasks_added(reports)
        return
    if subset or skip_missing:
        raise InputError("--subset and --skip-missing go with mteb:NAME; a folder is taken as it is.")
    report = opened.add_task(name, Path(source), domain=domain)
    print_json(asdict(report)) if json else render.print_task(report)


@task_app.command("list")
def list_tasks(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List the evaluation tasks."""
    from continual.cli import render_tasks as render

    found = open_workspace(workspace).tasks()
    print_json({"tasks": [asdict(task) for task in found]}) if json else render.print_task_list(found)


@app.command("eval")
def evaluate(
    name: Annotated[
        str, typer.Argument(metavar="VERSION", help="An id such as v3, or an alias such as current.")
    ] = "current",
    suite: Annotated[
        str, typer.Option(metavar="step|release", help="Which of the suites in continual.toml to score.")
    ] = "release",
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Task to score instead of the suite's, once per task; sampled as it says."),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Score a version on a suite of tasks.

    A score that is there for the same version, task and settings is not computed again.
    """
    from continual.cli import render_tasks as render
    from continual.cli.bars import Bars

    with Bars() as bars:
        found = open_workspace(workspace).evaluate(name, suite=suite, tasks=task or None, progress=bars)
    print_json(found.to_json()) if json else render.print_evaluation(found)
