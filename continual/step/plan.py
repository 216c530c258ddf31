"""The plan of a step: what it would train and evaluate, and its cost compared with full retraining."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from continual.config import Config, validate
from continual.eval.suites import sample_of, texts_of
from continual.progress import SILENT, Progress
from continual.registry import Cuts, Registry, Spec
from continual.replay import Draw, RowReader
from continual.step.budget import texts_allowed
from continual.step.draw import replayed, seconds_to_choose
from continual.step.request import Request
from continual.step.spec import prepare
from continual.versions.build import kept

_SAMPLE = 200
"""Rows sampled per domain to estimate the cost of full retraining."""


@dataclass(frozen=True)
class Plan:
    """What a step would do, and its cost compared with retraining on the whole lineage.

    Attributes:
        spec: The step.
        pairs: Pairs it would train: rows times epochs.
        tokens: Tokens it would train on, estimated.
        seconds: Training time, estimated from a few batches measured here.
        joint_pairs: Pairs that a full retraining would train.
        joint_tokens: Its tokens, estimated from a sample of every domain.
        joint_seconds: Its time at the same seconds per token.
        tasks: Tasks it would evaluate, with their texts (queries and documents).
        texts: Texts that it may encode to score them; None: no limit. If they have more, some are scored on a probe.
        candidates: Rows that the current version would embed to choose the replay from.
        choice_seconds: Estimated time to embed them, in seconds.
        cuts: What would not be used of the texts and negatives of the rows, counted in a sample of at most 1,024.
    """

    spec: Spec
    pairs: int
    tokens: int
    seconds: float
    joint_pairs: int
    joint_tokens: int
    joint_seconds: float
    tasks: dict[str, int]
    candidates: int = 0
    choice_seconds: float = 0.0
    cuts: Cuts | None = None
    texts: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self) | {"spec": self.spec.to_json()}


def plan_update(registry: Registry, config: Config, request: Request, progress: Progress = SILENT) -> Plan:
    """Return what an update would do, and its cost. Changes nothing; see `Workspace.plan`."""
    spec, drawn = prepare(registry, config, request, look=False, progress=progress)
    return estimate_cost(registry, spec, drawn, progress)


def estimate_cost(registry: Registry, spec: Spec, drawn: Draw, progress: Progress = SILENT) -> Plan:
    """Return the plan of a step: its cost is estimated, and nothing changes."""
    from continual.train.loop import estimate

    made = spec.provenance
    config = validate(made.config, "the plan's settings")
    learned = registry.learned(registry.version(spec.parent))
    lineage = [batch for batch in registry.batches() if batch.id in learned or batch.id in spec.batches]
    with RowReader(registry) as rows:
        counts = rows.count(lineage)
        sample = rows.draw([], lineage, dict.fromkeys(counts, _SAMPLE), {}).table
    with kept(registry, str(made.start), progress=progress) as (start,):
        progress.start("measuring a few batches", None, "batches")
        cost = estimate(start, drawn.table, config.train, count=sample, trust_remote_code=config.trust_remote_code)
    progress.finish()
    candidates = sum(window.candidates for window in made.replay)
    choice_seconds = 0.0
    if candidates:
        with kept(registry, spec.parent, progress=progress) as (current,):
            choice_seconds = seconds_to_choose(current, replayed(drawn), candidates, config)
    joint_tokens = round(sum(counts[domain] * each for domain, each in cost.row_tokens.items()) * config.train.epochs)
    return Plan(
        spec=spec,
        pairs=cost.pairs,
        tokens=cost.tokens,
        seconds=cost.seconds,
        joint_pairs=spec.joint_pairs,
        joint_tokens=joint_tokens,
        joint_seconds=cost.seconds * joint_tokens / cost.tokens,
        tasks={
            task.name: texts_of(task, sample_of(task, config.suites, "step"))
            for task in registry.tasks()
            if task.name in spec.tasks
        },
        candidates=candidates,
        choice_seconds=choice_seconds,
        cuts=cost.cuts,
        texts=texts_allowed(config, cost.pairs),
    )
