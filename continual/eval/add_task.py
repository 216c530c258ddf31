"""Register an evaluation task from a folder, or from mteb by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from continual.errors import InputError
from continual.progress import SILENT, Progress
from continual.registry import MTEB, Registry
from continual.stream import TaskReport, import_task


def add_task(
    registry: Registry,
    name: str,
    source: str | Path | None = None,
    *,
    domain: str | None = None,
    subsets: Sequence[str] = (),
    skip_missing: bool = False,
    progress: Progress = SILENT,
) -> list[TaskReport]:
    """Register an evaluation task, or all tasks of a benchmark of mteb; see `Workspace.add_task`."""
    task_name: str | None = name
    if source is None and name.startswith(MTEB):
        task_name, source = None, name
    if source is None:
        raise InputError(
            f"The task {name} needs a source: `continual task add {name} DIR` for a folder, or `continual task add "
            f"{name} mteb:NAME` for a task of mteb."
        )
    if str(source).startswith(MTEB):
        from continual.eval.mteb_register import register

        return register(
            registry,
            str(source),
            name=task_name,
            domain=domain,
            subsets=subsets,
            skip_missing=skip_missing,
            progress=progress,
        )
    if subsets or skip_missing:
        raise InputError("--subset and --skip-missing work with mteb:NAME only. Leave them out for a folder.")
    return [import_task(registry, name, Path(source), domain)]
