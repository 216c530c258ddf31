"""What the commands about evaluation tasks print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from continual.cli.render import console, say
from continual.report.report import measured

if TYPE_CHECKING:
    from continual.registry import Task
    from continual.stream import TaskReport
    from continual.versions.scores import Evaluation


def print_task(report: TaskReport) -> None:
    """Say what was registered, and whether rows trained on before leak into it."""
    if report.unchanged:
        say(f"The task {report.name} is registered already with the same content; nothing changed.")
        return
    kind = f"a task of the domain {report.domain}" if report.domain else "out of domain"
    held = f"{report.task_type} on {report.queries:,} items"
    if report.judgements:
        held = f"{report.queries:,} queries, {report.documents:,} documents, {report.judgements:,} judgements"
    if not report.checked:
        held += "; training rows are not checked against them"
    say(f"Registered {report.name} ({kind}): {held}.")
    if report.leaked_rows:
        near = f" ({report.near_rows:,} nearly)" if report.near_rows else ""
        say(
            f"{report.leaked_rows:,} stored training rows are in it{near}; no later update will train on them, and for "
            "versions that did it is not out of domain."
        )


def print_tasks_added(reports: Sequence[TaskReport]) -> None:
    """Say what was registered of mteb."""
    for report in reports:
        print_task(report)
    if len(reports) > 1:
        new = sum(not report.unchanged for report in reports)
        say(f"{len(reports)} tasks, {new} of them new.")


def print_task_list(tasks: Sequence[Task]) -> None:
    """Print a line per task."""
    if not tasks:
        say("There is no evaluation task. `continual ingest` holds one out, `continual task add` registers one.")
        return
    columns = ("task", "domain", "kind", "main score", "queries", "documents", "from")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.columns[4].justify = table.columns[5].justify = "right"
    for task in tasks:
        documents = f"{task.documents:,}" if task.documents else ""
        table.add_row(
            escape(task.name),
            escape(task.domain or "OOD"),
            task.task_type,
            measured([task.metric]),
            f"{task.queries:,}",
            documents,
            escape(_origin(task)),
        )
    console.print(table)


def print_evaluation(found: Evaluation) -> None:
    """Print a version's scores, and what they were made with where that is not everything."""
    columns = ("task", "domain", "kind", "main score", "points", "queries", "sample")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.columns[4].justify = table.columns[5].justify = "right"
    for score in found.scores:
        sample = score.settings.partition(", ")[2]
        domain = score.domain or ("OOD" if score.flag is None else "trained on")
        cells = (score.task, domain, score.task_type, measured([score.metric]))
        table.add_row(*map(escape, cells), f"{score.score:.1f}", f"{score.queries:,}", escape(sample))
    say(f"{found.version}, suite {found.suite}")
    console.print(table)
    for score in found.scores:
        if score.flag is not None:
            say(f"{score.task}: {score.flag}")
    known = sum(not score.new for score in found.scores)
    if known:
        say(f"{known} of {len(found.scores)} scores were there and were not computed again.")


def _origin(task: Task) -> str:
    if task.mteb is None:
        return task.origin
    places = {f"{part['dataset']}@{part['revision'][:7]}" for part in task.mteb["parts"]}
    return f"{task.origin} ({places.pop() if len(places) == 1 else f'{len(places)} data sets'})"
