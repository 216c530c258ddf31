"""What the commands about evaluation tasks print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table
from continual.cli.render.reading import print_reading
from continual.report.report import measured

if TYPE_CHECKING:
    from continual.registry import Task
    from continual.stream import TaskReport
    from continual.versions.scores import Evaluation


def print_task(report: TaskReport) -> None:
    """Print what was added, and how many training rows leak into it."""
    if report.unchanged:
        say(f"The task {report.name} exists already with the same content. Nothing changed.")
        return
    kind = f"tests the domain {report.domain}" if report.domain else "out of domain"
    held = f"{report.task_type} on {report.queries:,} items"
    if report.judgements:
        held = f"{report.queries:,} queries, {report.documents:,} documents, {report.judgements:,} judgements"
    if not report.checked:
        held += ". Training rows are not checked for leaks into it, because mteb does not say what its texts are"
    say(f"Added the task {report.name} ({kind}): {held}.")
    if report.reading is not None:
        print_reading(report.reading)
    if report.leaked_rows:
        near = f" ({report.near_rows:,} as near duplicates)" if report.near_rows else ""
        say(
            f"{report.leaked_rows:,} stored training rows leak into it{near}. Updates skip them from now on. The task "
            "is not OOD for versions that were trained on them."
        )


def print_tasks_added(reports: Sequence[TaskReport]) -> None:
    """Print what was added, a line or two per task."""
    for report in reports:
        print_task(report)
    if len(reports) > 1:
        new = sum(not report.unchanged for report in reports)
        say(f"{len(reports)} tasks, {new} of them new.")


def print_task_list(tasks: Sequence[Task]) -> None:
    """Print a line per task."""
    if not tasks:
        say("There is no evaluation task. `continual ingest` holds one out, and `continual task add` adds one.")
        return
    columns = ("task", "domain", "type", "main score", "queries", "documents", "from")
    rows = table(*columns, numbers=(4, 6), header_style="bold")
    for task in tasks:
        documents = f"{task.documents:,}" if task.documents else ""
        rows.add_row(
            escape(task.name),
            escape(task.domain or "OOD"),
            task.task_type,
            measured([task.metric]),
            f"{task.queries:,}",
            documents,
            escape(_origin(task)),
        )
    console.print(rows)


def print_evaluation(found: Evaluation) -> None:
    """Print a version's scores, and the sample of a task if not all of it was scored."""
    columns = ("task", "domain", "type", "main score", "points", "queries", "sample")
    rows = table(*columns, numbers=(4, 6), header_style="bold")
    for score in found.scores:
        sample = score.settings.partition(", ")[2]
        domain = score.domain or ("OOD" if score.flag is None else "trained on")
        cells = (score.task, domain, score.task_type, measured([score.metric]))
        rows.add_row(*map(escape, cells), f"{score.score:.1f}", f"{score.queries:,}", escape(sample))
    say(f"{found.version}, suite {found.suite}")
    console.print(rows)
    for score in found.scores:
        if score.flag is not None:
            say(f"{score.task}: {score.flag}")
    known = sum(not score.new for score in found.scores)
    if known:
        say(f"{known} of {len(found.scores)} scores existed and were not computed again.")


def _origin(task: Task) -> str:
    if task.mteb is None:
        return task.origin
    places = {f"{part['dataset']}@{part['revision'][:7]}" for part in task.mteb["parts"]}
    return f"{task.origin} ({places.pop() if len(places) == 1 else f'{len(places)} data sets'})"
