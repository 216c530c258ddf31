"""Running a recipe: every phase a version, and none that was made already made again.

A phase is known by all that decides its weights. So a run that was killed goes on with the phase it was in, and a
recipe that is run again after one domain has new rows trains what depends on that domain, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from continual.config import Config
from continual.eval.ood import flags_of
from continual.eval.suites import suite_settings, suite_tasks
from continual.models.weights import weights_sha256
from continual.progress import SILENT, Progress
from continual.recipes.cost import JointCost, joint_cost, spent
from continual.recipes.jobs import Executor, load_libraries, run_job
from continual.recipes.plan import Layout, Planned
from continual.recipes.recipe import START, Merge, Train
from continual.registry import Cost, Provenance, Registry, Score, TrainResult, Version
from continual.registry.catalog import now
from continual.registry.provenance import libraries
from continual.registry.registry import CURRENT, ROOT
from continual.storage.files import remove
from continual.train.coefficients import position
from continual.train.job import Job
from continual.versions.build import (
    BEGUN,
    combine,
    join,
    materialise,
    prove,
)
from continual.versions.scores import score_missing
from continual.versions.sweep import sweep_steps

PROOF_TEXTS = 16
"""Texts on which a fold is proved."""


@dataclass(frozen=True)
class Made:
    """A phase that is done.

    Attributes:
        name: Of the phase.
        version: What it made.
        rows: Rows by domain that it trained on; empty for a merge.
        pairs: Pairs that it trained, or that the search of a merge's coefficients encoded with a gradient.
        tokens: Tokens of these.
        seconds: Of the training or the search, over all resumptions, with the loading of the models.
        again: Whether it had been made before, and cost nothing now.
        resumed: Optimizer steps that a run before had done, from whose checkpoint this one went on; 0: none.
    """

    name: str
    version: str
    rows: dict[str, int]
    pairs: int
    tokens: int
    seconds: float
    again: bool
    resumed: int = 0


@dataclass(frozen=True)
class Trained:
    """What a recipe came to.

    Attributes:
        recipe: Its name.
        version: The result; it is not in service.
        phases: In their order.
        cost: Of all phases, those made before too.
        joint: What one training on all rows costs.
        scores: By version (the root base, what is in service, the result) and task, in points.
        roles: By task: "trained" where the result learned its domain, else "OOD", or "leaked" where it trained on
            texts of it nevertheless.
        current: What is in service.
        metrics: Names of the tasks' main scores.
        skipped: Rows that no phase trained on, by domain: of kind classification or clustering, and without negatives.
    """

    recipe: str
    version: Version
    phases: list[Made]
    cost: Cost
    joint: JointCost
    scores: dict[str, dict[str, float]]
    roles: dict[str, str]
    current: str
    metrics: list[str]
    skipped: dict[str, int]

    @property
    def pairs(self) -> int:
        """Pairs that all phases trained and searched with, those made before too."""
        return self.cost.pairs

    @property
    def joint_pairs(self) -> int:
        """Pairs that one training on all rows trains."""
        return self.joint.pairs

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        more = {"sha256": self.version.sha256, "pairs": self.pairs, "joint_pairs": self.joint_pairs}
        return asdict(self) | {"version": self.version.id} | more


def run_recipe(
    registry: Registry,
    config: Config,
    layout: Layout,
    *,
    executor: Executor | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Make every phase of a recipe that is not there, score what the last one made, and put nothing into service.

    Args:
        registry: The workspace's registry; the caller holds the update lock.
        config: The workspace's settings, for the scores.
        layout: From `lay_out`.
        executor: Maps a function over trainings that do not depend on each other; None: one after another, here.
        progress: Shows how far it is.
    """
    sweep_phases(registry, layout)
    made: dict[str, Version] = {each.phase.name: each.made for each in layout.phases if each.made is not None}
    before, resumed = set(made), dict[str, int]()
    while len(made) < len(layout.phases):
        ready = [each for each in layout.phases if each.phase.name not in made and _ready(each, made)]
        trainings = [each for each in ready if isinstance(each.phase, Train)]
        resumed |= _resumed(registry, trainings)
        _train(registry, layout, trainings, made, executor, progress)
        for each in ready:
            if isinstance(each.phase, Merge):
                made[each.phase.name] = _merge(registry, layout, each, each.phase, made, progress)
    result = made[layout.phases[-1].phase.name]
    phases = [_account(each, made[each.phase.name], each.phase.name in before, resumed) for each in layout.phases]
    return _scored(registry, config, layout, result, phases, progress)


def sweep_phases(registry: Registry, layout: Layout) -> None:
    """Remove what killed trainings left: checkpoints of phases that are made by now, and what has no record.

    Checkpoints that other recipes began stay: these go on when they are asked for again. `continual gc` removes them.
    """
    sweep_steps(registry)
    versions = registry.versions()
    wanted = {_run_dir(registry, each.key) for each in layout.phases if each.made is None}
    ended = {_run_dir(registry, version.provenance.key) for version in versions if version.provenance.key}
    for path in ended - wanted:
        remove(path)
    known = {version.id for version in versions} | {run.id for run in registry.runs() if run.state == "running"}
    for folder in ("adapters", "versions"):
        for path in registry.path(folder).glob("v*"):
            if path.name not in known:
                remove(path)


def _ready(planned: Planned, made: dict[str, Version]) -> bool:
    phase = planned.phase
    asked = {*phase.members, phase.base} if isinstance(phase, Merge) else {phase.start}
    return asked <= made.keys() | {START}


def _resumed(registry: Registry, trainings: Sequence[Planned]) -> dict[str, int]:
    """Return by phase the optimizer steps that killed trainings had done, and their checkpoints hold."""
    from continual.train.checkpoint import steps_done

    return {each.phase.name: steps_done(_run_dir(registry, each.key)) for each in trainings}


def _train(
    registry: Registry,
    layout: Layout,
    trainings: Sequence[Planned],
    made: dict[str, Version],
    executor: Executor | None,
    progress: Progress,
) -> None:
    """Train phases that are independent of each other, and record each as it comes."""
    number = int(registry.next_version_id()[1:])
    jobs, folders = [], dict[str, Path]()
    for place, planned in enumerate(trainings):
        assert isinstance(planned.phase, Train)
        start = _version(registry, planned.phase.start, made)
        if start.id not in folders:
            folders[start.id] = _folder(registry, start, progress)
        job = Job(
            start=folders[start.id],
            table=planned.table,
            config=planned.config.train,
            seed=planned.seed,
            run_dir=_run_dir(registry, planned.key),
            adapter_dir=registry.path(f"adapters/v{number + place}"),
            resume=True,
            trust_remote_code=planned.config.trust_remote_code,
        )
        jobs.append(job)
    results = executor(run_job, jobs) if executor else (run_job(job, progress) for job in jobs)
    for planned, job, result in zip(trainings, jobs, results, strict=True):
        made[planned.phase.name] = _record(registry, layout, planned, job, result, made, progress)


def _record(
    registry: Registry,
    layout: Layout,
    planned: Planned,
    job: Job,
    result: TrainResult,
    made: dict[str, Version],
    progress: Progress,
) -> Version:
    """Fold a trained adapter into what it was trained on, prove it, and record the version."""
    from continual.merge.sources import Adapted
    from continual.train.lora import prove_fold

    assert isinstance(planned.phase, Train)
    start, root = _version(registry, planned.phase.start, made), registry.version(ROOT)
    name = job.adapter_dir.name
    snapshot = registry.path(f"versions/{name}")
    provenance = replace(
        _provenance(registry, layout, planned), start=start.id, merge="interpolate", weight=1.0, training=result
    )
    join(name, provenance, job.start, Adapted(job.start, job.adapter_dir), registry.path(root.path), snapshot, progress)
    texts = job.table["query"].slice(0, PROOF_TEXTS).to_pylist()
    trust = planned.config.trust_remote_code
    error = prove_fold(job.start, job.adapter_dir, snapshot, texts, trust_remote_code=trust)
    version = _add(registry, layout, planned, replace(provenance, fold_error=error), start, snapshot, made)
    remove(job.run_dir)
    return version


def _merge(
    registry: Registry, layout: Layout, planned: Planned, phase: Merge, made: dict[str, Version], progress: Progress
) -> Version:
    name = registry.next_version_id()
    members = [made[member] for member in phase.members]
    base = _version(registry, phase.base, made)
    folders = [_folder(registry, member, progress) for member in members]
    base_folder = _folder(registry, base, progress)
    provenance = replace(
        _provenance(registry, layout, planned),
        start=base.id,
        merge=phase.method,
        members=[member.id for member in members],
        weights=list(phase.weights or [1.0] * len(members)),
        parameters=dict(phase.parameters),
    )
    if phase.search:
        assert layout.material.held is not None, "a layout with a search has rows for it"
        load_libraries()
        windows, held = layout.material.held
        found = position(held, planned.config, base_folder, folders, layout.seed, progress)
        provenance = found.decide(replace(provenance, held=windows))
    snapshot = registry.path(f"versions/{name}")
    combine(name, provenance, folders, base_folder, snapshot, progress)
    return _add(registry, layout, planned, provenance, base, snapshot, made)


def _add(
    registry: Registry,
    layout: Layout,
    planned: Planned,
    provenance: Provenance,
    parent: Version,
    snapshot: Path,
    made: dict[str, Version],
) -> Version:
    """Record what a phase made."""
    result = provenance.training
    version = Version(
        id=snapshot.name,
        parent=parent.id,
        status="trained",
        path=f"versions/{snapshot.name}",
        adapter=None if result is None else f"adapters/{snapshot.name}",
        sha256=weights_sha256(snapshot),
        batches=planned.batches,
        pairs_trained=result.pairs if result else 0,
        tokens_trained=result.tokens if result else 0,
        seconds=result.seconds if result else 0.0,
        joint_pairs=layout.joint_pairs,
        provenance=provenance,
        verdict=None,
        created_at=now(),
    )
    behind = [version, *(made[name] for name in _behind(layout, planned.phase.name))]
    return registry.add_version(replace(version, provenance=replace(provenance, cost=spent(behind))))


def _behind(layout: Layout, name: str) -> set[str]:
    """Return the phases that a phase is made of, itself left out."""
    phases = {each.phase.name: each.phase for each in layout.phases}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        phase = phases[waiting.pop()]
        asked = {*phase.members, phase.base} if isinstance(phase, Merge) else {phase.start}
        waiting += asked - found - {START}
        found |= asked - {START}
    return found


def _provenance(registry: Registry, layout: Layout, planned: Planned) -> Provenance:
    """Return what the version of every phase records of how it was made."""
    return Provenance(
        seed=planned.seed,
        new=planned.windows,
        guarded=layout.material.guarded,
        instructions=registry.instructions(planned.batches),
        config=planned.config.model_dump(mode="json"),
        libraries=libraries(),
        recipe=layout.recipe.name,
        options=layout.options,
        phase=planned.phase.name,
        key=planned.key,
        keeps=planned.keeps,
        clusters=layout.clusters if planned.keeps else {},
    )


def _version(registry: Registry, phase: str, made: dict[str, Version]) -> Version:
    return registry.version(ROOT) if phase == START else made[phase]


def _folder(registry: Registry, version: Version, progress: Progress) -> Path:
    """Return the folder of a version, built again if it was dropped, with the weights that were recorded."""
    folder = materialise(registry, version, progress)
    prove(version, folder)
    return folder


def _run_dir(registry: Registry, key: str) -> Path:
    return registry.path(f"runs/{BEGUN}{key[:16]}")


def _account(planned: Planned, version: Version, again: bool, resumed: Mapping[str, int]) -> Made:
    cost, name = spent([version]), planned.phase.name
    counts = (cost.pairs, cost.tokens, cost.seconds)
    return Made(name, version.id, planned.rows, *counts, again, resumed.get(name, 0))


def _scored(
    registry: Registry, config: Config, layout: Layout, result: Version, phases: list[Made], progress: Progress
) -> Trained:
    """Score the result beside the root base and what is in service, on the suite `step`."""
    current = registry.version(CURRENT)
    tasks = suite_tasks(registry.tasks(), config, "step")
    shown = {each.id: each for each in (registry.version(ROOT), current, result)}
    for version in shown.values():
        score_missing(registry, version, tasks, config, progress)
    known: dict[tuple[str, str], Score] = registry.scores(suite_settings(tasks, config, "step"))
    learned = {batch.domain for batch in registry.batches() if batch.id in result.batches}
    flagged = flags_of(registry, result.id)
    roles = {
        task.name: "trained" if task.domain in learned else "leaked" if task.name in flagged else "OOD"
        for task in tasks
    }
    versions = [registry.version(each.version) for each in phases]
    return Trained(
        recipe=layout.recipe.name,
        version=result,
        phases=phases,
        cost=spent(versions),
        joint=joint_cost(layout, versions, registry.versions()),
        scores={
            name: {task.name: known[name, task.name].score for task in tasks if (name, task.name) in known}
            for name in shown
        },
        roles=roles,
        current=current.id,
        metrics=[task.metric for task in tasks],
        skipped=layout.material.skipped,
    )
