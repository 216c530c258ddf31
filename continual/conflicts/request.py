"""The options of a conflict analysis, and the functions that plan or run it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from continual.config import Config, Options, Seed
from continual.conflicts.analysis import Conflicts
from continual.conflicts.clusters import FILE
from continual.conflicts.plan import ConflictJob, ConflictPlan, estimate_conflicts, prepare_conflicts
from continual.conflicts.run import check_call, run
from continual.executors.choose import open_executor
from continual.executors.protocol import Executor
from continual.progress import SILENT, Progress
from continual.registry import Registry


class ConflictRequest(Options):
    """The options of `Workspace.conflicts` and `Workspace.plan_conflicts`.

    Attributes:
        domains: Names of the domains to compare; None compares all.
        rows: Maximum number of training rows per domain; 0 takes all that are not held out.
        start: The model that every training starts from: "base" or "current".
        clusters: Number of clusters; None joins groups as long as the pairs between them conflict, on average, by no
            more than chance.
        seed: Seed of the trainings, 0 or more.
        out: File to write the clusters to; None means `conflicts.toml` in the workspace. An edited file is never
            overwritten.
        settings: Settings of [train] that replace those of `continual.toml`, such as `{"train": {"epochs": 2}}`.
    """

    call = "analyze conflicts"
    takes = {  # noqa: RUF012  pydantic reads the annotation of the base class
        "start": "--from takes base or current",
        "seed": "--seed must be an integer of 0 or more, below 2^63",
    }

    domains: list[str] | None = None
    rows: int = 256
    start: Literal["base", "current"] = "base"
    clusters: int | None = None
    seed: Seed = 0
    out: Path | None = None
    settings: dict[str, dict[str, Any]] | None = None

    def target(self, directory: Path) -> Path:
        """Return the file to write the clusters to; `directory` is the workspace's folder."""
        return directory / FILE if self.out is None else self.out.expanduser().resolve()

    def prepare(self, registry: Registry, config: Config) -> ConflictJob:
        """Draw the rows of the analysis and list its trainings."""
        changed = config.change(self.settings or {}, only="train")
        return prepare_conflicts(
            registry, changed, domains=self.domains, rows=self.rows, start=self.start, seed=self.seed
        )


def plan_conflicts(
    registry: Registry, config: Config, directory: Path, request: ConflictRequest, progress: Progress = SILENT
) -> ConflictPlan:
    """Return what an analysis would train, with its cost; see `Workspace.plan_conflicts`."""
    # Measuring the cost takes a while, so check the arguments first.
    check_call(registry, request.domains, request.clusters, request.target(directory))
    return estimate_conflicts(registry, request.prepare(registry, config), progress)


def find_conflicts(
    registry: Registry,
    config: Config,
    directory: Path,
    request: ConflictRequest,
    *,
    executor: Executor | None = None,
    progress: Progress = SILENT,
) -> Conflicts:
    """Train, compare and cluster the domains; see `Workspace.conflicts`."""
    job, out = request.prepare(registry, config), request.target(directory)
    with nullcontext() if executor is None else open_executor(executor, progress) as execute:
        return run(registry, job, count=request.clusters, out=out, execute=execute, progress=progress)
