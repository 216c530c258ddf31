"""The current version again, without the rows that were forgotten: composed of adapters where that is exact, else
trained again.

An update that was trained from the root base does not depend on the other updates. So the steps of the lineage are
merged once more in their order, without those that learned only forgotten rows, and with the recorded adapters of those
that drew none. An update that was trained from the current version, or that drew a forgotten row, is trained again with
its recorded settings and seed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from continual.config import Config, validate
from continual.errors import ContinualError, InputError, NothingToDoError
from continual.forget.certificate import Rebuilt
from continual.forget.taint import tainted
from continual.merge.rules import find_rule
from continual.models.weights import weights_sha256
from continual.pairs.request import mine_batches
from continual.progress import SILENT, Progress
from continual.registry import CURRENT, ROOT, Registry, Version
from continual.registry.catalog import now
from continual.registry.erase import FORGOTTEN, INCOMPLETE
from continual.step.request import Request
from continual.step.spec import prepare, rule_state
from continual.step.update import update
from continual.storage.aside import announce
from continual.storage.files import publish, remove
from continual.versions.build import has_adapter, kept, merge_update
from continual.versions.sweep import ANNOUNCED, discard_run, sweep_steps

COMPOSED, RETRAINED, LEFT_OUT = "composed", "retrained", "left out"


def rebuild_lineage(registry: Registry, config: Config, progress: Progress = SILENT) -> Rebuilt | None:
    """Make the current version again; return what was done, or None if no version depends on forgotten rows.

    The alias does not move, and nothing is removed. What a killed call has made already is used. The caller holds the
    update lock.

    Raises:
        InputError: A recipe made a version of the lineage.
    """
    reasons = tainted(registry.versions())
    if not reasons:
        return None
    old = registry.version(CURRENT)
    if old.id not in reasons:
        why = "The current version does not depend on the rows, so it stays."
        lost = _incomplete(registry, old)
        return Rebuilt(old.id, old.id, [], not lost, f"{why}{lost}", None, None, [], [*reasons])
    lineage = registry.lineage(old)
    clean = [version for version in lineage if version.id not in reasons]
    steps = lineage[len(clean) :]
    _check_recipes(steps)
    sweep_steps(registry)
    run = registry.interrupted()
    if run is not None:
        discard_run(registry, run)
    parent, done = clean[-1], list[tuple[str, str | None, str]]()
    refused: list[str] = []
    for step in steps:
        how, version = _repeat(registry, step, parent, progress)
        done.append((step.id, None if version is None else version.id, how))
        if version is not None:
            parent = version
            refused += [version.id] if version.status == "refused" and how == RETRAINED else []
    lost = _incomplete(registry, parent)
    exact, why = _exactness(steps, done, lost)
    distance, cosine = _distance(registry, config, old, parent, progress)
    return Rebuilt(old.id, parent.id, done, exact, why, distance, cosine, refused, [*reasons])


def _check_recipes(steps: Sequence[Version]) -> None:
    """Refuse a lineage that a recipe made: its phases were planned together."""
    made = next((step for step in steps if step.provenance.phase is not None), None)
    if made is not None:
        recipe = made.provenance.recipe
        raise InputError(
            f"The rows are removed, but {made.id} was made by the recipe {recipe}, whose phases were planned together, "
            f"so it cannot be rebuilt step by step. Run `continual train --recipe {recipe}` again, promote its result, "
            "and then `continual forget --rebuild` removes the models that learned the rows."
        )


def _repeat(registry: Registry, step: Version, parent: Version, progress: Progress) -> tuple[str, Version | None]:
    """Repeat a step on another parent; return how, and the new version or None if nothing of the step is left."""
    rows = {batch.id: batch.kept for batch in registry.batches()}
    left = [batch for batch in step.batches if rows.get(batch)]
    if not left:
        return LEFT_OUT, None
    how = COMPOSED if _composes(registry, step) else RETRAINED
    versions = registry.versions()
    known = [each for each in versions if each.provenance.replaces == step.id and each.parent == parent.id]
    usable = [each for each in known if each.status != FORGOTTEN and each.id not in tainted(versions)]
    if usable:  # made by a call that was killed
        return how, usable[-1]
    if how == COMPOSED:
        return how, _compose(registry, step, parent, left, progress)
    try:
        return how, _retrain(registry, step, parent, left, progress)
    except NothingToDoError:
        return LEFT_OUT, None


def _composes(registry: Registry, step: Version) -> bool:
    """Return whether the adapter of a step depends neither on forgotten rows nor on the version before it."""
    made = step.provenance
    train = validate(made.config, f"the settings of {step.id}").train
    alone = made.start == ROOT and train.anchor == "base" and not find_rule(str(made.merge)).searches
    return alone and not made.forgotten and has_adapter(registry, step)


def _compose(registry: Registry, step: Version, parent: Version, batches: list[str], progress: Progress) -> Version:
    """Merge the adapter of a step into another parent, as its rule says."""
    from continual.merge.sources import Adapted

    made, rule = step.provenance, find_rule(str(step.provenance.merge))
    config = validate(made.config, f"the settings of {step.id}")
    decision = rule.decide(config.merge.weight, rule_state(parent, rule))
    name = registry.next_version_id()
    provenance = replace(
        made,
        weight=decision.weight,
        state=decision.state,
        cursors=parent.provenance.cursors | made.cursors,
        instructions=registry.instructions([*registry.learned(parent), *batches]),
        replaces=step.id,
    )
    adapter, snapshot = f"adapters/{name}", f"versions/{name}"
    announce(registry.root / ANNOUNCED, adapter, snapshot)
    with publish(registry.path(adapter)) as partial:
        shutil.copytree(registry.path(str(step.adapter)), partial)
    with kept(registry, ROOT, parent.id, progress=progress) as (root, current):
        update_model = Adapted(root, registry.path(adapter))
        target = registry.path(snapshot)
        state = merge_update(name, provenance, current, update_model, root, target, progress)
    version = replace(
        step,
        id=name,
        parent=parent.id,
        path=snapshot,
        adapter=adapter,
        sha256=weights_sha256(registry.path(snapshot)),
        batches=batches,
        provenance=replace(provenance, state_next=state),
        verdict=None,
        created_at=now(),
        pinned=False,
    )
    registry.add_version(version)
    remove(registry.root / ANNOUNCED)
    return version


def _retrain(registry: Registry, step: Version, parent: Version, batches: list[str], progress: Progress) -> Version:
    """Take a step again on another parent, with its recorded settings and seed."""
    made = step.provenance
    config = validate(made.config, f"the settings of {step.id}")
    request = Request(seed=made.seed)
    if made.mined:
        # What was mined is gone, because it may have held what is forgotten. Mine again, as before the step.
        mine_batches(registry, config, parent.id, made.mined, progress)
    spec, drawn = prepare(registry, config, request, parent=parent, batches=batches, progress=progress)
    provenance = replace(spec.provenance, recipe=made.recipe, replaces=step.id)
    result = update(registry, replace(spec, provenance=provenance), drawn, progress=progress)
    return result.version


def _incomplete(registry: Registry, version: Version) -> str:
    """Return a sentence on the batches of a version that would have other rows if the forgotten ones had never been.

    The empty text if there are none.
    """
    learned = registry.learned(version)
    batches = [batch for batch in registry.batches() if batch.id in learned and batch.source_sha256 == INCOMPLETE]
    if not batches:
        return ""
    names = ", ".join(f"{batch.id} of {batch.domain}" for batch in batches)
    dropped = sum(batch.duplicates + batch.leaked for batch in batches)
    cure = f" Up to {dropped:,} rows were dropped as duplicates or leaks of them" if dropped else ""
    sources = ", ".join(dict.fromkeys(batch.source for batch in batches))
    return (
        f" But {names} would have other rows if the forgotten ones had never been there.{cure}"
        f"{f': ingest {sources} again, and learn what is new.' if dropped else ''}"
    )


def _exactness(steps: Sequence[Version], done: Sequence[tuple[str, str | None, str]], lost: str) -> tuple[bool, str]:
    """Return whether the new version equals one that never saw the rows, and why, in sentences.

    Args:
        lost: What `_incomplete` returned.
    """
    exact, why = _exact_weights(steps, done)
    if exact and lost and any(how == COMPOSED for _, _, how in done):
        why = "All updates were trained from the root base without replay and merged again without the rows."
    return exact and not lost, f"{why}{lost}"


def _exact_weights(steps: Sequence[Version], done: Sequence[tuple[str, str | None, str]]) -> tuple[bool, str]:
    """Return whether the weights equal those of the same batches without the rows, and why, as a sentence."""
    from continual.merge.methods import find_method

    by_id = {step.id: step for step in steps}
    composed = [by_id[name] for name, _, how in done if how == COMPOSED]
    retrained = [name for name, _, how in done if how == RETRAINED]
    replayed = [step.id for step in composed if step.provenance.replay]
    seeded = [step.id for step in composed if find_method(find_rule(str(step.provenance.merge)).method).seeded]
    if not composed and not retrained:
        return True, "It is the last version before the rows were learned."
    if retrained:
        return False, (
            f"{', '.join(retrained)} had drawn forgotten rows, or started from a version that had, so the step was "
            "trained again with its settings and seed."
        )
    if replayed:
        return False, (
            f"All updates were trained from the root base and merged again without the rows. {', '.join(replayed)} "
            "replayed rows of other domains, and would have drawn others without them."
        )
    if seeded:
        return False, (
            "All updates were trained from the root base and merged again without the rows. "
            f"{', '.join(seeded)} drew random numbers in the merge, which depend on the name of the version."
        )
    return True, (
        "All updates were trained from the root base without replay, so the new version equals one that never learned "
        "the rows, up to rounding."
    )


def _distance(
    registry: Registry, config: Config, old: Version, new: Version, progress: Progress
) -> tuple[float | None, float | None]:
    """Return how far the new version is from the old one: weights, and embeddings of texts of the tasks."""
    from continual.versions.diff import diff

    try:
        with kept(registry, ROOT, old.id, new.id, progress=progress):
            found = diff(registry, old, new, progress=progress, trust_remote_code=config.trust_remote_code)
    except ContinualError:  # the old version can't be rebuilt, so there is nothing to compare with
        return None, None
    whole = found.groups[-1]
    return whole.change / whole.first if whole.first else None, found.drift.mean if found.drift else None


def artifacts_of(registry: Registry, names: Sequence[str]) -> list[str]:
    """Return the files and folders of versions: snapshots, adapters and scores, relative to `.continual/`."""
    versions = [version for version in registry.versions() if version.id in names]
    paths = [path for version in versions for path in (version.path, version.adapter) if path is not None]
    paths += [score.path for score in registry.all_scores() if score.version in names and score.path is not None]
    return [*paths, *(f"scores/{name}" for name in names if registry.path(f"scores/{name}").is_dir())]
