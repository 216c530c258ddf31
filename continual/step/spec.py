"""What a step will do, fixed before it does it: `prepare` for a new step, `reopen` for a killed one.

A `Spec` holds everything that decides the weights. It is kept with the run and then with the version, so a step
that was killed continues to the same weights, and a version says how it was made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from continual.config import Config, validate
from continual.errors import InputError, NothingToDoError
from continual.eval.suites import Sample, sample_of, suite_tasks
from continual.merge.rules import Rule, check_rule, find_rule
from continual.progress import SILENT, Progress
from continual.registry import (
    Batch,
    Registry,
    Run,
    Task,
    Version,
)
from continual.registry.provenance import libraries
from continual.registry.registry import CURRENT, ROOT
from continual.replay import Draw, Rows, get_policy
from continual.step.draw import (
    cursors_of,
    draw,
    replayed,
    seconds_to_choose,
)
from continual.versions.build import kept


@dataclass(frozen=True)
class Spec:
    """Everything that decides the weights of a step. Plain data: it is kept as JSON with run and version.

    Attributes:
        version: Id that the step's version will have.
        parent: The version in service when the step began.
        start: The version that training starts from.
        merge: Name of the merge rule.
        weight: Weight of the update that the rule decided, 0 to 1.
        state: What the rule is given: counts of it, and what the merges before left.
        seed: Seed of the LoRA factors and of the order of the batches.
        batches: Ids of the batches that are learned.
        new: Windows of the rows that are learned.
        replay: Windows of the rows that are replayed.
        cursors: Per domain, the row hash where its next window starts.
        tasks: Names of the evaluation tasks of the suite `step`; the step is judged by these.
        joint_pairs: Pairs that retraining on the whole lineage would train.
        config: The resolved settings.
        libraries: Versions of what computed it.
        parameters: Of the merge method.
        held: Windows of the rows that are held out of training for the coefficient search, if the rule has one.
        guarded: Names of the tasks that were known when the rows were drawn: no row that leaks into one is trained on.
            None in steps of before this was recorded.
        recipe: Name of the recipe that set replay, merge and training.
        skipped: New rows that are not trained on, by domain: of kind classification or clustering, and without
            negatives.
        instructions: What is put before the queries of the domains that the version will have learned, by domain.
    """

    version: str
    parent: str
    start: str
    merge: str
    weight: float
    state: dict[str, Any]
    seed: int
    batches: list[str]
    new: list[dict[str, Any]]
    replay: list[dict[str, Any]]
    cursors: dict[str, str]
    tasks: list[str]
    joint_pairs: int
    config: dict[str, Any]
    libraries: dict[str, str]
    parameters: dict[str, float] = field(default_factory=dict)
    held: list[dict[str, Any]] = field(default_factory=list)
    guarded: list[str] | None = None
    recipe: str = "continual"
    skipped: dict[str, int] = field(default_factory=dict)
    instructions: dict[str, str] = field(default_factory=dict)


def prepare(
    registry: Registry,
    config: Config,
    *,
    domains: Sequence[str] | None,
    seed: int,
    recipe: str = "continual",
    look: bool = True,
    progress: Progress = SILENT,
) -> tuple[Spec, Draw]:
    """Draw the rows of the next step and fix everything that decides its weights. Changes nothing.

    Args:
        registry: The workspace's registry.
        config: The resolved settings.
        domains: Domains to learn; None means all that have batches which current has not learned.
        seed: Any integer from 0 up.
        recipe: Name of the recipe whose settings these are.
        look: Let a policy that chooses by the model in service do so. If not, as many rows are drawn, the first of the
            candidates: enough to tell what the step costs.
        progress: Shows how far it is.

    Raises:
        NothingToDoError: There is nothing new.
        NotFoundError: A domain is not known.
        InputError: A setting is out of its range, or the merge rule does not go with the start.
    """
    from continual.merge.methods import find_method

    rule = check_rule(config.merge.method, config.merge.start)
    method = find_method(rule.method)
    set_by_rule = rule.sets & config.merge.parameters.keys()
    if set_by_rule:
        raise InputError(f"--merge {rule.name} finds {min(set_by_rule)} itself. Leave it out of the parameters.")
    if config.merge.parameters and not method.parameters:
        raise InputError(
            f"--merge {rule.name} takes no parameters, and {', '.join(config.merge.parameters)} was given. A weight is "
            "set as --merge 0.3."
        )
    method.resolve(config.merge.parameters)
    if seed < 0:
        raise InputError(f"--seed takes an integer from 0 up, not {seed}.")
    parent = registry.version(CURRENT)
    learned = registry.learned(parent)
    history = [batch for batch in registry.batches() if batch.id in learned]
    new = _new_batches(registry, learned, domains)

    policy = get_policy(config.replay.policy)
    held = config.merge.search_rows if rule.searches else 0
    drawn, stock = draw(
        registry,
        config,
        parent,
        new,
        history,
        held=held,
        seed=seed,
        look=look,
        progress=progress,
    )
    if not any(window.rows for window in drawn.new):
        left = ", or has no negatives in a domain of a kind that needs them" if stock.skipped else ""
        raise NothingToDoError(
            f"Every new row is a query or a relevant document of an evaluation task{left}, so there is nothing to "
            "train on."
        )

    if rule.searches:
        _check_held(drawn)
    decision = rule.decide(config.merge.weight, _state(parent, rule))
    spec = Spec(
        version=registry.next_version_id(),
        parent=parent.id,
        start=parent.id if config.merge.start == "current" else ROOT,
        merge=rule.name,
        weight=decision.weight,
        state=decision.state,
        seed=seed,
        batches=[batch.id for batch in new],
        new=[window.to_json() for window in drawn.new],
        replay=[window.to_json() for window in drawn.replay],
        cursors=dict(parent.recipe.get("cursors", {}))
        | ({} if policy.fixed else {window.domain: window.stop for window in drawn.replay}),
        tasks=[task.name for task in suite_tasks(registry.tasks(), config, "step")],
        joint_pairs=sum(stock.rows.values()) * config.train.epochs,
        config=config.model_dump(mode="json"),
        libraries=libraries(),
        parameters=config.merge.parameters,
        held=[window.to_json() for window in drawn.held],
        guarded=stock.guarded,
        recipe=recipe,
        skipped=stock.skipped,
        instructions=registry.instructions([batch.id for batch in [*history, *new]]),
    )
    return spec, drawn


_SAMPLE = 200
"""Rows of each domain by whose length a full retraining is estimated."""


@dataclass(frozen=True)
class Plan:
    """What a step would do, and its cost beside retraining on the whole lineage.

    Attributes:
        spec: The step.
        pairs: Pairs it would train: rows times epochs.
        tokens: Tokens it would train on, estimated.
        seconds: Training time, estimated from a few batches measured here.
        joint_pairs: Pairs that a full retraining would train.
        joint_tokens: Its tokens, estimated from a sample of every domain.
        joint_seconds: Its time at the same seconds per token.
        candidates: Rows that the model in service would embed to choose the replay from.
        choice_seconds: Time that takes, estimated.
        tasks: Tasks it would evaluate, with their texts (queries and documents).
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

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return dataclasses.asdict(self)


def make_plan(registry: Registry, spec: Spec, drawn: Draw, progress: Progress = SILENT) -> Plan:
    """Estimate the cost of a step. Changes nothing."""
    from continual.train.loop import estimate

    config = validate(spec.config, "the plan's settings")
    learned = registry.learned(registry.version(spec.parent))
    lineage = [batch for batch in registry.batches() if batch.id in learned or batch.id in spec.batches]
    with Rows(registry) as rows:
        counts = rows.count(lineage)
        sample = rows.draw([], lineage, dict.fromkeys(counts, _SAMPLE), {}).table
    with kept(registry, spec.start, progress=progress) as (start,):
        progress.start("measuring a few batches", None, "batches")
        cost = estimate(start, drawn.table, config.train, count=sample, trust_remote_code=config.trust_remote_code)
    progress.finish()
    candidates = sum(window.get("candidates", 0) for window in spec.replay)
    choice_seconds = 0.0
    if candidates:
        with kept(registry, spec.parent, progress=progress) as (in_service,):
            choice_seconds = seconds_to_choose(in_service, replayed(drawn), candidates, config)
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
            task.name: _texts(task, sample_of(task, config.suites.step))
            for task in registry.tasks()
            if task.name in spec.tasks
        },
        candidates=candidates,
        choice_seconds=choice_seconds,
    )


def _texts(task: Task, sample: Sample) -> int:
    return min(task.queries, sample.queries or task.queries) + min(task.documents, sample.documents or task.documents)


def reopen(registry: Registry, run: Run) -> tuple[Spec, Draw]:
    """Return the spec of an interrupted run and its rows, proved to be the same ones.

    Raises:
        InputError: What is in service, or the rows, changed since the run began.
    """
    spec = Spec(**run.spec)
    parent = registry.version(CURRENT)
    again = f"Begin it again with `continual update --restart`; the {spec.version} that was begun is discarded."
    changed = {name: number for name, number in libraries().items() if spec.libraries.get(name) != number}
    if changed:
        was = ", ".join(f"{name} {spec.libraries.get(name)} (now {number})" for name, number in changed.items())
        raise InputError(
            f"{spec.version} was begun with {was}; going on would give other weights than either. Install what it was "
            f"begun with, and resume. {again.replace('Begin', 'Or begin')}"
        )
    if parent.id != spec.parent:
        raise InputError(f"{spec.version} was begun on {spec.parent}, and {parent.id} is in service now. {again}")
    learned = registry.learned(parent)
    batches = registry.batches()
    config = validate(spec.config, "the run's settings")
    with Rows(registry) as rows:
        drawn = rows.draw(
            [batch for batch in batches if batch.id in spec.batches],
            [batch for batch in batches if batch.id in learned],
            {window["domain"]: window.get("candidates", window["rows"]) for window in spec.replay},
            cursors_of(parent, get_policy(config.replay.policy)),
            config.merge.search_rows if find_rule(spec.merge).searches else 0,
            {window["domain"]: window["picked"] for window in spec.replay if "picked" in window},
        )
    windows = [window.to_json() for window in drawn.new + drawn.replay + drawn.held]
    if windows != spec.new + spec.replay + spec.held:
        raise InputError(f"The rows that {spec.version} was begun on changed, perhaps by a new task. {again}")
    return spec, drawn


def _new_batches(registry: Registry, learned: set[str], domains: Sequence[str] | None) -> list[Batch]:
    names = registry.domain_names(domains or None)
    new = [batch for batch in registry.batches() if batch.id not in learned and batch.kept and batch.domain in names]
    if not new:
        what = f"{registry.version(CURRENT).id} has learned all of {', '.join(names)}"
        raise NothingToDoError(
            f"There is nothing new to learn: {what if names else 'no domain was ingested yet'}. Register new rows "
            "with `continual ingest FILE`."
        )
    return new


def _check_held(drawn: Draw) -> None:
    """Refuse a search that one of the step's domains would have no say in."""
    held = {window.domain: window.rows for window in drawn.held}
    few = {
        window.domain: held.get(window.domain, 0)
        for window in drawn.new + drawn.replay
        if held.get(window.domain, 0) < 2
    }
    if few:
        names = ", ".join(f"{domain} ({rows})" for domain, rows in few.items())
        raise InputError(
            "A search of coefficients holds a tenth of a new domain out of training, and needs two rows of each; there "
            f"are too few of {names}. Choose a weight instead, such as --merge 0.8."
        )


def _state(parent: Version, rule: Rule) -> dict[str, Any]:
    """Return what the rule left in the parent.

    Raises:
        InputError: The rule goes on from all updates so far, and some of them were merged by another rule: it would
            forget them.
    """
    before = parent.recipe.get("merge")
    if before not in (None, rule.name) and rule.remembers:
        raise InputError(
            f"--merge {rule.name} goes on from a root base or from a version that it made, and {parent.id} was made "
            f"by {before}: what was learned until then would be lost. Use --merge {before} or --merge interpolate; or "
            f"make {parent.id} the root base of another workspace: `continual export {parent.id} DIR`, then "
            "`continual init NEW --base DIR`."
        )
    return dict(parent.recipe.get("state_next", {})) if before == rule.name else {}
