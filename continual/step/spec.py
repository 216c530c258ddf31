"""Step 1 of an update: draw its rows, and record everything that determines its weights, before any training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from continual.config import Config, MergeConfig, validate
from continual.errors import InputError, NothingToDoError
from continual.eval.suites import suite_tasks
from continual.merge.rules import Rule, check_rule, find_rule
from continual.progress import SILENT, Progress
from continual.registry import CURRENT, ROOT, Batch, Provenance, Registry, Run, Spec, Version
from continual.registry.provenance import libraries
from continual.replay import Draw, RowReader, get_policy
from continual.replay.mined import domains_of, find_mined
from continual.step.draw import cursors_of, draw_rows
from continual.step.keep import find_texts
from continual.step.request import Request


def prepare(
    registry: Registry,
    config: Config,
    request: Request,
    *,
    look: bool = True,
    parent: Version | None = None,
    batches: Collection[str] | None = None,
    progress: Progress = SILENT,
) -> tuple[Spec, Draw]:
    """Draw the rows of the next step and record everything that determines its weights. Changes nothing.

    Args:
        registry: The workspace's registry.
        config: The workspace's settings; the request changes them.
        request: What the caller asks.
        look: Let a policy that needs the current version's embeddings choose the replay rows. If False, take the first
            candidates instead, the same number of rows; this is enough to estimate the cost.
        parent: The version that the step continues; None: the current one.
        batches: Ids of the batches to learn; None: all that the parent has not learned.
        progress: A bar over the candidates.

    Raises:
        NothingToDoError: There is nothing new to learn.
        NotFoundError: A domain, recipe or merge rule is unknown.
        InputError: The merge rule does not fit the start, its parameters, or the rows.
    """
    config, seed = request.resolve(config), request.seed or 0
    rule = _check_merge(config.merge)
    parent = parent or registry.version(CURRENT)
    learned = registry.learned(parent)
    history = [batch for batch in registry.batches() if batch.id in learned]
    new = [
        batch for batch in _new_batches(registry, learned, request.domains) if batches is None or batch.id in batches
    ]
    held = config.merge.search_rows if rule.searches else 0
    mined = find_mined(registry, [*new, *history])
    drawn, available = draw_rows(
        registry, config, parent, new, history, held=held, seed=seed, look=look, mined=mined, progress=progress
    )
    if not any(window.rows for window in drawn.new):
        lacking = ", or has no negatives in a domain that needs them" if available.skipped else ""
        raise NothingToDoError(
            "No new row can be used for training: each contains a query or a relevant document of an evaluation task"
            f"{lacking}. Add other rows with `continual ingest FILE`."
        )
    if rule.searches:
        _check_held(drawn)
    kept = find_texts(registry.root.parent, config)[1] if config.merge.keep else None

    decision = rule.decide(config.merge.weight, rule_state(parent, rule))
    moved = {} if get_policy(config.replay.policy).fixed else {window.domain: window.stop for window in drawn.replay}
    learning = [batch.id for batch in new]
    provenance = Provenance(
        start=parent.id if config.merge.start == "current" else ROOT,
        merge=rule.name,
        weight=decision.weight,
        parameters=config.merge.parameters,
        state=decision.state,
        seed=seed,
        new=drawn.new,
        replay=drawn.replay,
        held=drawn.held,
        cursors=parent.provenance.cursors | moved,
        guarded=available.guarded,
        skipped=available.skipped,
        instructions=registry.instructions([*learned, *learning]),
        mined=mined,
        mined_from=domains_of(registry, mined),
        kept=kept,
        config=config.model_dump(mode="json"),
        libraries=libraries(),
        recipe=request.recipe or "continual",
    )
    spec = Spec(
        version=registry.next_version_id(),
        parent=parent.id,
        batches=learning,
        tasks=[task.name for task in suite_tasks(registry.tasks(), config, "step")],
        joint_pairs=sum(available.rows.values()) * config.train.epochs,
        provenance=provenance,
    )
    return spec, drawn


def reopen(registry: Registry, run: Run) -> tuple[Spec, Draw]:
    """Return the spec of an interrupted run and its rows, drawn again and compared.

    Raises:
        InputError: The current version, the libraries, or the rows changed since the run began.
    """
    spec, made = run.spec, run.spec.provenance
    parent = registry.version(CURRENT)
    again = f"Start over with `continual update --restart`, which discards the unfinished {spec.version}."
    changed = {name: number for name, number in libraries().items() if made.libraries.get(name) != number}
    if changed:
        was = ", ".join(f"{name} {made.libraries.get(name)} (now {number})" for name, number in changed.items())
        raise InputError(
            f"{spec.version} was started with {was}, so resuming it now would give different weights. Install the "
            f"libraries it was started with and resume. {again.replace('Start', 'Or start')}"
        )
    if parent.id != spec.parent:
        raise InputError(
            f"{spec.version} was started from {spec.parent}, but the current version is now {parent.id}. {again}"
        )
    learned = registry.learned(parent)
    batches = registry.batches()
    config = validate(made.config, "the run's settings")
    if find_mined(registry, [batch for batch in batches if batch.id in {*spec.batches, *learned}]) != made.mined:
        raise InputError(f"The mined negatives changed since {spec.version} was started. {again}")
    with RowReader(registry, made.mined) as rows:
        drawn = rows.draw(
            [batch for batch in batches if batch.id in spec.batches],
            [batch for batch in batches if batch.id in learned],
            {window.domain: window.candidates or window.rows for window in made.replay},
            cursors_of(parent, get_policy(config.replay.policy)),
            config.merge.search_rows if find_rule(str(made.merge)).searches else 0,
            {window.domain: window.picked for window in made.replay if window.picked},
        )
    if (drawn.new, drawn.replay, drawn.held) != (made.new, made.replay, made.held):
        raise InputError(
            f"The rows of {spec.version} changed since it was started, perhaps because a task was added. {again}"
        )
    return spec, drawn


def _check_merge(merge: MergeConfig) -> Rule:
    """Return the merge rule of the settings.

    Raises:
        InputError: It does not fit the start, or takes no such parameters.
    """
    from continual.merge.methods import find_method

    rule = check_rule(merge.method, merge.start)
    method = find_method(rule.method)
    set_by_rule = rule.sets & merge.parameters.keys()
    if set_by_rule:
        raise InputError(f"--merge {rule.name} finds {min(set_by_rule)} itself. Leave it out of merge.parameters.")
    if merge.parameters and not method.parameters:
        raise InputError(
            f"--merge {rule.name} takes no parameters, but merge.parameters sets {', '.join(merge.parameters)}. Leave "
            "them out, or choose a rule that takes them: `continual merge --list`."
        )
    method.resolve(merge.parameters)
    return rule


def new_batches(registry: Registry, domains: Sequence[str] | None) -> list[Batch]:
    """Return the batches that the current version has not learned, of some domains or of all.

    Raises:
        NothingToDoError: There is none.
        NotFoundError: A domain does not exist.
    """
    return _new_batches(registry, registry.learned(registry.version(CURRENT)), domains)


def _new_batches(registry: Registry, learned: set[str], domains: Sequence[str] | None) -> list[Batch]:
    names = registry.domain_names(domains or None)
    new = [batch for batch in registry.batches() if batch.id not in learned and batch.kept and batch.domain in names]
    if not new:
        current = registry.version(CURRENT).id
        why = f"{current} has learned all rows of {', '.join(names)}" if names else "no rows were ingested yet"
        raise NothingToDoError(f"There is nothing new to learn: {why}. Add rows with `continual ingest FILE`.")
    return new


def _check_held(drawn: Draw) -> None:
    """Refuse a search of coefficients without held-out rows of each of the step's domains."""
    held = {window.domain: window.rows for window in drawn.held}
    few = {
        window.domain: held.get(window.domain, 0)
        for window in drawn.new + drawn.replay
        if held.get(window.domain, 0) < 2
    }
    if few:
        names = ", ".join(f"{domain} ({rows})" for domain, rows in few.items())
        raise InputError(
            "A search of merge coefficients needs at least two held-out rows of each domain (a tenth of a new domain "
            f"is held out), and there are too few of {names}. Choose a weight instead, such as --merge 0.8."
        )


def rule_state(parent: Version, rule: Rule) -> dict[str, Any]:
    """Return the state that the rule left in the parent.

    Raises:
        InputError: The rule builds on all updates so far, and another rule merged some of them.
    """
    before = parent.provenance.merge
    if before not in (None, rule.name) and rule.stateful:
        others = " or --merge ".join(dict.fromkeys((before, "interpolate")))
        raise InputError(
            f"--merge {rule.name} works only from the root base or from a version merged with {rule.name}. {parent.id} "
            f"was merged with {before}, so {rule.name} would lose what {parent.id} has learned. Use --merge {others}. "
            f"Or make {parent.id} the root base of a new workspace: `continual export {parent.id} --out DIR`, then "
            "`continual init NEW --base DIR`."
        )
    return dict(parent.provenance.state_next) if before == rule.name else {}
