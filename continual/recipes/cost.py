"""What a recipe would cost, phase by phase, beside one training on all rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from continual.build import kept
from continual.config import Config
from continual.eval.suites import suite_tasks
from continual.progress import SILENT, Progress
from continual.recipes.plan import Layout, Planned
from continual.recipes.recipe import Merge
from continual.registry import Registry
from continual.registry.registry import ROOT


@dataclass(frozen=True)
class PhaseCost:
    """What a phase would cost.

    Attributes:
        name: Of the phase.
        start: What it starts from, or measures from.
        members: The phases that it merges; empty for a training.
        rows: Rows by domain; empty for a merge.
        epochs: Passes over them; 0 for a merge.
        pairs: Rows times epochs.
        made: Id of the version that is there already, so that it costs nothing; None: it must be made.
    """

    name: str
    start: str
    members: tuple[str, ...]
    rows: dict[str, int]
    epochs: int
    pairs: int
    made: str | None


@dataclass(frozen=True)
class RecipePlan:
    """What a recipe would do, and its cost beside one training on all rows.

    Attributes:
        recipe: Its name.
        phases: In their order.
        pairs: Pairs of all phases.
        new_pairs: Pairs of those that are not there yet.
        new_tokens: Tokens of these, estimated.
        new_seconds: Time of these, estimated from a few batches measured here.
        joint_pairs: Pairs that one training on all rows trains.
        tasks: Names of the tasks that the result would be scored on.
    """

    recipe: str
    phases: list[PhaseCost]
    pairs: int
    new_pairs: int
    new_tokens: int
    new_seconds: float
    joint_pairs: int
    tasks: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def cost_of(registry: Registry, config: Config, layout: Layout, progress: Progress = SILENT) -> RecipePlan:
    """Return what a recipe would cost. Changes nothing."""
    from continual.train import estimate

    phases = [_cost(each) for each in layout.phases]
    new = sum(each.pairs for each in phases if each.made is None)
    tokens, seconds = 0.0, 0.0
    largest = max((each for each in layout.phases if each.table is not None), key=lambda each: each.pairs)
    if new:
        with kept(registry, ROOT, progress=progress) as (root,):
            progress.start("measuring a few batches", None, "batches")
            trust = config.trust_remote_code
            found = estimate(root, largest.table, largest.config.train, trust_remote_code=trust)
        progress.finish()
        tokens, seconds = found.tokens * new / found.pairs, found.seconds * new / found.pairs
    return RecipePlan(
        recipe=layout.recipe.name,
        phases=phases,
        pairs=sum(each.pairs for each in phases),
        new_pairs=new,
        new_tokens=round(tokens),
        new_seconds=seconds,
        joint_pairs=layout.joint_pairs,
        tasks=[task.name for task in suite_tasks(registry.tasks(), config, "step")],
    )


def _cost(planned: Planned) -> PhaseCost:
    phase = planned.phase
    merges = isinstance(phase, Merge)
    return PhaseCost(
        name=phase.name,
        start=phase.base if isinstance(phase, Merge) else phase.start,
        members=phase.members if isinstance(phase, Merge) else (),
        rows=planned.rows,
        epochs=0 if merges else planned.config.train.epochs,
        pairs=planned.pairs,
        made=None if planned.made is None else planned.made.id,
    )
