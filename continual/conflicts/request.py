"""The options of an analysis of conflicts, and the analysis or the plan that they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.config import Config
from continual.conflicts.analysis import Conflicts
from continual.conflicts.clusters import FILE
from continual.conflicts.plan import ConflictPlan, Inquiry, make_plan, prepare
from continual.conflicts.run import check_call, run
from continual.progress import SILENT, Progress
from continual.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ConflictRequest:
    """The options of `Workspace.conflicts` and `Workspace.plan_conflicts`.

    Attributes:
        domains: Domains to compare; None for all.
        rows: Rows of each domain to train on, at most; 0 for all but those that the loss is measured on.
        start: Model that every training starts from: "base" or "current".
        clusters: Number of clusters; None joins groups while the pairs between them conflict, on average, by no more
            than chance.
        seed: Seed of the trainings, 0 or more.
        out: File for the clusters; None for `conflicts.toml` in the workspace. An edited file is never overwritten.
        settings: Settings of [train] over those of `continual.toml`, such as `{"train": {"epochs": 2}}`.
    """

    domains: Sequence[str] | None = None
    rows: int = 256
    start: str = "base"
    clusters: int | None = None
    seed: int = 0
    out: str | Path | None = None
    settings: Mapping[str, Mapping[str, Any]] | None = None

    def target(self, directory: Path) -> Path:
        """Return the file for the clusters, in a workspace's folder unless another is named."""
        return directory / FILE if self.out is None else Path(self.out).expanduser().resolve()

    def prepare(self, registry: Registry, config: Config) -> Inquiry:
        """Draw the rows and fix what is trained."""
        changed = config.change(self.settings or {}, only="train")
        return prepare(registry, changed, domains=self.domains, rows=self.rows, start=self.start, seed=self.seed)


def plan_conflicts(
    registry: Registry, config: Config, directory: Path, request: ConflictRequest, progress: Progress = SILENT
) -> ConflictPlan:
    """Return what an analysis would train, and its cost; see `Workspace.plan_conflicts`."""
    # The cost takes a while to measure, so a call that could not end is refused before.
    check_call(registry, request.domains, request.clusters, request.target(directory))
    return make_plan(registry, request.prepare(registry, config), progress)


def find_conflicts(
    registry: Registry, config: Config, directory: Path, request: ConflictRequest, progress: Progress = SILENT
) -> Conflicts:
    """Train, compare and cluster the domains; see `Workspace.conflicts`."""
    inquiry = request.prepare(registry, config)
    return run(registry, inquiry, count=request.clusters, out=request.target(directory), progress=progress)
