"""What a recipe would cost, phase by phase, and what it did cost, beside one training on all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from continual.config import IDLE, Config
from continual.eval.suites import suite_tasks
from continual.progress import SILENT, Progress
from continual.recipes.forecast import Forecast, forecast
from continual.recipes.plan import Layout, Planned
from continual.recipes.recipe import Merge
from continual.registry import Cost, Provenance, Registry, Version
from continual.registry.registry import ROOT
from continual.versions.build import kept


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
    """What a recipe would do, and its cost beside one training on all rows.

    Attributes:
        recipe: Its name.
        phases: In their order.
        pairs: Pairs that all phases train; what a search of coefficients encodes is not among them.
        new_pairs: Pairs of those that are not there yet.
        new_tokens: Tokens of these, estimated from samples of their rows.
        new_seconds: Time of these, estimated from a few batches measured here.
        joint_pairs: Pairs that one training on all rows trains.
        tasks: Names of the tasks that the result would be scored on.
        search_pairs: Pairs that a search that is still to be made would encode with a gradient, at most; 0 without one.
        search_forward_pairs: Pairs that it would encode without one, at most.
        search_seconds: Time of the search, a rough estimate.
        clusters: Domains by cluster, where the recipe goes by them; else empty.
        skipped: Rows that no phase trains on, by domain: of kind classification or clustering, and without negatives.
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
        """Return it as plain data."""
        return asdict(self)


def cost_of(registry: Registry, config: Config, layout: Layout, progress: Progress = SILENT) -> RecipePlan:
    """Return what a recipe would cost. Changes nothing."""
    phases = [_cost(each) for each in layout.phases]
    ahead = Forecast()
    if any(each.made is None and (each.pairs or each.searches) for each in phases):
        with kept(registry, ROOT, progress=progress) as (root,):
            progress.start("measuring a few batches", None, "batches")
            ahead = forecast(root, layout, trust_remote_code=config.trust_remote_code)
        progress.finish()
    return RecipePlan(
        recipe=layout.recipe.name,
        phases=phases,
        pairs=sum(each.pairs for each in phases),
        new_pairs=sum(each.pairs for each in phases if each.made is None),
        new_tokens=ahead.tokens,
        new_seconds=ahead.seconds,
        joint_pairs=layout.joint_pairs,
        tasks=[task.name for task in suite_tasks(registry.tasks(), config, "step")],
        search_pairs=ahead.search_pairs,
        search_forward_pairs=ahead.search_forward_pairs,
        search_seconds=ahead.search_seconds,
        clusters=layout.clusters if layout.clustered else {},
        skipped=layout.material.skipped,
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
        searches=isinstance(phase, Merge) and phase.search,
    )


def spent(versions: Sequence[Version]) -> Cost:
    """Return what the phases that made some versions cost."""
    searches = [cost for version in versions if (cost := version.provenance.search_cost) is not None]
    return Cost(
        pairs=sum(each.pairs_trained for each in versions) + sum(each.pairs for each in searches),
        tokens=sum(each.tokens_trained for each in versions) + sum(each.tokens for each in searches),
        seconds=sum(each.seconds for each in versions) + sum(each.seconds for each in searches),
        forward_pairs=sum(each.forward_pairs for each in searches),
        forward_tokens=sum(each.forward_tokens for each in searches),
    )


@dataclass(frozen=True)
class JointCost:
    """What one training on all rows costs.

    Attributes:
        pairs: Rows times epochs, those held out for a search included.
        tokens: Tokens of these; None where nothing tells.
        seconds: Of the training; None where nothing tells.
        version: The training on all rows in which tokens and seconds were measured. None: they are estimated, at the
            tokens of a pair and the seconds of a token of the recipe's own trainings.
    """

    pairs: int
    tokens: int | None
    seconds: float | None
    version: str | None


def joint_cost(layout: Layout, versions: Sequence[Version], known: Sequence[Version]) -> JointCost:
    """Return what one training on a recipe's rows costs, as measured in this workspace if there was one.

    Args:
        layout: The recipe.
        versions: Of its phases.
        known: All of the workspace.
    """
    trained = [each for each in versions if each.pairs_trained]
    batches = {name for each in layout.phases for name in each.batches}
    devices = {_device(each.provenance) for each in trained}
    for version in reversed(known):
        provenance = version.provenance
        if (
            provenance.training is not None
            and provenance.phase is not None
            and provenance.start == ROOT  # of any recipe: the last subset of boom is one
            and version.pairs_trained == layout.joint_pairs
            and set(version.batches) == batches
            and _deciding(provenance.config["train"]) == layout.plain
            and {_device(provenance)} == devices  # seconds of another machine are no measure of these
        ):
            return JointCost(layout.joint_pairs, version.tokens_trained, version.seconds, version.id)
    pairs, tokens = (sum(getattr(each, name) for each in trained) for name in ("pairs_trained", "tokens_trained"))
    if not (pairs and tokens):
        return JointCost(layout.joint_pairs, None, None, None)
    expected = tokens / pairs * layout.joint_pairs
    seconds = sum(each.seconds for each in trained) / tokens * expected
    return JointCost(layout.joint_pairs, round(expected), seconds, None)


def _device(provenance: Provenance) -> tuple[str, str]:
    """Return where a phase was trained, and in which arithmetic."""
    training = provenance.training
    assert training is not None
    return training.device, training.precision


def _deciding(train: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in train.items() if name not in IDLE}
