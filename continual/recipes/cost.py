"""Planned and actual cost of a recipe, by phase, against one training on all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from continual.config import Config, deciding_settings
from continual.eval.suites import suite_tasks
from continual.progress import SILENT, Progress
from continual.recipes.forecast import Forecast, forecast
from continual.recipes.plan import Layout, PlannedPhase
from continual.recipes.recipe import Merge
from continual.registry import ROOT, Cost, Provenance, Registry, Version
from continual.versions.build import kept


@dataclass(frozen=True)
class PhaseCost:
    """Planned cost of a phase.

    Attributes:
        name: Name of the phase.
        start: Name of the phase that it starts from, or that task vectors are measured from.
        members: Names of the phases that it merges; empty for a training.
        rows: Number of rows by domain; empty for a merge.
        epochs: Passes over the rows; 0 for a merge.
        pairs: Rows times epochs.
        made: Id of an existing version that makes the phase unnecessary; None if it has to be made.
        searches: Whether it is a merge whose coefficients are searched.
    """

    name: str
    start: str
    members: tuple[str, ...]
    rows: dict[str, int]
    epochs: int
    pairs: int
    made: str | None
    searches: bool = False


@dataclass(frozen=True)
class RecipePlan:
    """What a recipe would do, and its cost against one training on all rows.

    Attributes:
        recipe: Name of the recipe.
        phases: Cost of each phase, in their order.
        pairs: Training pairs of all phases, without those that searches encode.
        new_pairs: Training pairs of the phases that have to be made.
        new_tokens: Tokens of `new_pairs`, estimated from samples of their rows.
        new_seconds: Training time of `new_pairs`, estimated from a few batches on this machine.
        joint_pairs: Training pairs of one training on all rows.
        tasks: Names of the tasks that the result would be scored on.
        search_pairs: Most pairs that searches that have to be made would encode with a gradient.
        search_forward_pairs: Most pairs that these searches would encode without a gradient.
        search_seconds: Rough estimate of the time of these searches.
        clusters: Domains by cluster, if the recipe trains by clusters; otherwise empty.
        skipped: Number of rows left out by domain, because their kind needs negatives and they have none.
    """

    recipe: str
    phases: list[PhaseCost]
    pairs: int
    new_pairs: int
    new_tokens: int
    new_seconds: float
    joint_pairs: int
    tasks: list[str]
    search_pairs: int = 0
    search_forward_pairs: int = 0
    search_seconds: float = 0.0
    clusters: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)


def cost_of(registry: Registry, config: Config, layout: Layout, progress: Progress = SILENT) -> RecipePlan:
    """Return the planned cost of a recipe. Change nothing."""
    phases = [_phase_cost(planned) for planned in layout.phases]
    ahead = Forecast()
    if any(phase.made is None and (phase.pairs or phase.searches) for phase in phases):
        with kept(registry, ROOT, progress=progress) as (root,):
            progress.start("measuring a few batches", None, "batches")
            ahead = forecast(root, layout, trust_remote_code=config.trust_remote_code)
        progress.finish()
    return RecipePlan(
        recipe=layout.recipe.name,
        phases=phases,
        pairs=sum(phase.pairs for phase in phases),
        new_pairs=sum(phase.pairs for phase in phases if phase.made is None),
        new_tokens=ahead.tokens,
        new_seconds=ahead.seconds,
        joint_pairs=layout.joint_pairs,
        tasks=[task.name for task in suite_tasks(registry.tasks(), config, "step")],
        search_pairs=ahead.search_pairs,
        search_forward_pairs=ahead.search_forward_pairs,
        search_seconds=ahead.search_seconds,
        clusters=layout.clusters if layout.clustered else {},
        skipped=layout.training_rows.skipped,
    )


def _phase_cost(planned: PlannedPhase) -> PhaseCost:
    phase = planned.phase
    merges = isinstance(phase, Merge)
    return PhaseCost(
        name=phase.name,
        start=phase.base if isinstance(phase, Merge) else phase.start,
        members=phase.members if isinstance(phase, Merge) else (),
        rows=planned.rows,
        epochs=0 if merges else planned.config.train.epochs,
        pairs=planned.pairs,
        made=None if planned.existing is None else planned.existing.id,
        searches=isinstance(phase, Merge) and phase.search,
    )


def total_cost(versions: Sequence[Version]) -> Cost:
    """Return the total cost of the trainings and searches that made versions, and of projections for texts to keep."""
    projected = sum(version.provenance.kept.seconds for version in versions if version.provenance.kept is not None)
    searches = [cost for version in versions if (cost := version.provenance.search_cost) is not None]
    return Cost(
        pairs=sum(version.pairs_trained for version in versions) + sum(cost.pairs for cost in searches),
        tokens=sum(version.tokens_trained for version in versions) + sum(cost.tokens for cost in searches),
        seconds=sum(version.seconds for version in versions) + sum(cost.seconds for cost in searches) + projected,
        forward_pairs=sum(cost.forward_pairs for cost in searches),
        forward_tokens=sum(cost.forward_tokens for cost in searches),
    )


@dataclass(frozen=True)
class JointCost:
    """Cost of one training on all rows.

    Attributes:
        pairs: Rows times epochs, including rows held out for a search.
        tokens: Tokens of `pairs`; None if they cannot be estimated.
        seconds: Training time; None if it cannot be estimated.
        version: Id of the version in whose training tokens and seconds were measured. None if they are estimated from
            the recipe's own trainings: from their tokens per pair and seconds per token.
    """

    pairs: int
    tokens: int | None
    seconds: float | None
    version: str | None


def joint_cost(layout: Layout, versions: Sequence[Version], all_versions: Sequence[Version]) -> JointCost:
    """Return the cost of one training on a recipe's rows: that of an existing version if there is one, or an estimate.

    Args:
        versions: Versions of the recipe's phases.
        all_versions: All versions of the workspace.
    """
    trained = [version for version in versions if version.pairs_trained]
    batches = {batch for phase in layout.phases for batch in phase.batches}
    devices = {_device(version.provenance) for version in trained}
    for version in reversed(all_versions):
        provenance = version.provenance
        if (
            provenance.training is not None
            and provenance.phase is not None
            and provenance.start == ROOT  # in any recipe: the last subset of boom holds all rows
            and version.pairs_trained == layout.joint_pairs
            and set(version.batches) == batches
            and deciding_settings(provenance.config["train"]) == layout.plain
            and {_device(provenance)} == devices  # seconds on another device cannot be compared
        ):
            return JointCost(layout.joint_pairs, version.tokens_trained, version.seconds, version.id)
    pairs = sum(version.pairs_trained for version in trained)
    tokens = sum(version.tokens_trained for version in trained)
    if not (pairs and tokens):
        return JointCost(layout.joint_pairs, None, None, None)
    expected = tokens / pairs * layout.joint_pairs
    seconds = sum(version.seconds for version in trained) / tokens * expected
    return JointCost(layout.joint_pairs, round(expected), seconds, None)


def _device(provenance: Provenance) -> tuple[str, str]:
    """Return the device and the precision of a phase's training."""
    training = provenance.training
    assert training is not None
    return training.device, training.precision
