"""Result of a recipe: its phases, their cost, and the scores of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from continual.config import Config
from continual.eval.ood import flags_of
from continual.eval.suites import suite_settings, suite_tasks
from continual.progress import Progress
from continual.recipes.cost import JointCost, joint_cost, total_cost
from continual.recipes.plan import Layout, PlannedPhase
from continual.registry import CURRENT, ROOT, Cost, Cuts, Registry, Version
from continual.versions.scores import score_missing


@dataclass(frozen=True)
class PhaseResult:
    """A finished phase.

    Attributes:
        name: Name of the phase.
        version: Id of its version.
        rows: Number of rows by domain that it trained on; empty for a merge.
        pairs: Training pairs, or pairs that the search of a merge encoded with a gradient.
        tokens: Tokens of `pairs`.
        seconds: Time of the training or search, including model loading and interrupted runs.
        again: Whether the version existed already, so that the phase cost nothing in this run.
        resumed: Number of optimizer steps done by an earlier run, from whose checkpoint this run continued.
        cuts: What the training did not use of its rows; None for a merge, and in versions of older releases.
    """

    name: str
    version: str
    rows: dict[str, int]
    pairs: int
    tokens: int
    seconds: float
    again: bool
    resumed: int = 0
    cuts: Cuts | None = None


@dataclass(frozen=True)
class RecipeResult:
    """The model that a recipe trained, with its cost and its scores.

    Attributes:
        recipe: Name of the recipe.
        version: The version that its last phase made. It is not the current version.
        phases: The phases in their order.
        cost: Cost of all phases, including those of earlier runs.
        joint: Cost of one training on all rows.
        scores: Scores in points by version (the root base, the current version, the result) and task.
        roles: "trained" for tasks whose domain the result learned, "leaked" for other tasks whose texts it was trained
            on, and "OOD" for the rest, by task.
        current: Id of the current version.
        metrics: Main score of each task.
        skipped: Number of rows left out by domain, because their kind needs negatives and they have none.
    """

    recipe: str
    version: Version
    phases: list[PhaseResult]
    cost: Cost
    joint: JointCost
    scores: dict[str, dict[str, float]]
    roles: dict[str, str]
    current: str
    metrics: list[str]
    skipped: dict[str, int]

    @property
    def pairs(self) -> int:
        """Pairs that all phases encoded with a gradient, including those of earlier runs."""
        return self.cost.pairs

    @property
    def joint_pairs(self) -> int:
        """Training pairs of one training on all rows."""
        return self.joint.pairs

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        more = {"sha256": self.version.sha256, "pairs": self.pairs, "joint_pairs": self.joint_pairs}
        return asdict(self) | {"version": self.version.id} | more


def phase_result(planned: PlannedPhase, version: Version, *, again: bool, resumed: Mapping[str, int]) -> PhaseResult:
    """Return the result of a phase.

    Args:
        version: The version of the phase.
        again: Whether the version existed before this run.
        resumed: Optimizer steps of earlier runs, by phase.
    """
    cost = total_cost([version])
    return PhaseResult(
        name=planned.phase.name,
        version=version.id,
        rows=planned.rows,
        pairs=cost.pairs,
        tokens=cost.tokens,
        seconds=cost.seconds,
        again=again,
        resumed=resumed.get(planned.phase.name, 0),
        cuts=version.provenance.training.cuts if version.provenance.training is not None else None,
    )


def recipe_result(
    registry: Registry,
    config: Config,
    layout: Layout,
    result: Version,
    phases: Sequence[PhaseResult],
    progress: Progress,
) -> RecipeResult:
    """Score the result, the root base and the current version on the suite `step`, and return all figures."""
    current = registry.version(CURRENT)
    tasks = suite_tasks(registry.tasks(), config, "step")
    scored = {version.id: version for version in (registry.version(ROOT), current, result)}
    for version in scored.values():
        score_missing(registry, version, tasks, config, progress)
    scores = registry.scores(suite_settings(tasks, config, "step"))
    learned = {batch.domain for batch in registry.batches() if batch.id in result.batches}
    flagged = flags_of(registry, result.id)
    roles = {
        task.name: "trained" if task.domain in learned else "leaked" if task.name in flagged else "OOD"
        for task in tasks
    }
    versions = [registry.version(phase.version) for phase in phases]
    return RecipeResult(
        recipe=layout.recipe.name,
        version=result,
        phases=list(phases),
        cost=total_cost(versions),
        joint=joint_cost(layout, versions, registry.versions()),
        scores={
            name: {task.name: scores[name, task.name].score for task in tasks if (name, task.name) in scores}
            for name in scored
        },
        roles=roles,
        current=current.id,
        metrics=[task.metric for task in tasks],
        skipped=layout.training_rows.skipped,
    )
