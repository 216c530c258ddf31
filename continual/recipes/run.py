"""Running a recipe. Every phase becomes a version, and phases whose version exists are skipped.

A phase is identified by a hash of everything that decides its weights. So a killed run continues with the phase it was
in, and a recipe that is run again after a domain got new rows makes only the phases that depend on that domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from continual.config import Config
from continual.executors.protocol import Execute
from continual.models.weights import weights_sha256
from continual.progress import SILENT, Progress
from continual.recipes.cost import total_cost
from continual.recipes.jobs import check_adapter, load_libraries, run_job
from continual.recipes.plan import Layout, PlannedPhase
from continual.recipes.recipe import START, Merge, Train, needed_phases
from continual.recipes.result import RecipeResult, phase_result, recipe_result
from continual.registry import ROOT, Provenance, Registry, TrainResult, Version
from continual.registry.catalog import now
from continual.registry.provenance import libraries
from continual.storage.aside import announce
from continual.storage.files import remove
from continual.train.coefficients import position
from continual.train.job import PROOF_TEXTS, Job
from continual.versions.build import PHASE_RUN, materialise, merge_members, merge_update, prove
from continual.versions.sweep import ANNOUNCED, sweep_steps


def run_recipe(
    registry: Registry,
    config: Config,
    layout: Layout,
    *,
    execute: Execute | None = None,
    progress: Progress = SILENT,
) -> RecipeResult:
    """Make the phases of a recipe that have no version yet, and score the result. `current` does not move.

    The caller holds the update lock.

    Args:
        config: Settings of the workspace, for the evaluation.
        execute: Runs trainings that do not depend on each other; None runs them one after the other in this process.
    """
    sweep_phases(registry, layout)
    versions = {planned.phase.name: planned.existing for planned in layout.phases if planned.existing is not None}
    before, resumed = set(versions), dict[str, int]()
    while len(versions) < len(layout.phases):
        missing = [planned for planned in layout.phases if planned.phase.name not in versions]
        ready = [planned for planned in missing if needed_phases(planned.phase) <= versions.keys() | {START}]
        trainings = [planned for planned in ready if isinstance(planned.phase, Train)]
        resumed |= _resumed_steps(registry, trainings)
        _train(registry, layout, trainings, versions, execute, progress)
        for planned in ready:
            if isinstance(planned.phase, Merge):
                versions[planned.phase.name] = _merge(registry, layout, planned, planned.phase, versions, progress)
    remove(registry.root / ANNOUNCED)
    phases = []
    for planned in layout.phases:
        name = planned.phase.name
        phases.append(phase_result(planned, versions[name], again=name in before, resumed=resumed))
    return recipe_result(registry, config, layout, versions[layout.phases[-1].phase.name], phases, progress)


def sweep_phases(registry: Registry, layout: Layout) -> None:
    """Remove checkpoints of phases that have a version now, and what killed phases left.

    Checkpoints of other recipes stay, so that these can resume. `continual gc` removes them.
    """
    sweep_steps(registry)
    versions = registry.versions()
    wanted = {_run_dir(registry, planned.key) for planned in layout.phases if planned.existing is None}
    ended = {_run_dir(registry, version.provenance.key) for version in versions if version.provenance.key}
    for path in ended - wanted:
        remove(path)


def _resumed_steps(registry: Registry, trainings: Sequence[PlannedPhase]) -> dict[str, int]:
    """Return the number of optimizer steps in the checkpoint of each training, by phase."""
    from continual.train.checkpoint import steps_done

    return {planned.phase.name: steps_done(_run_dir(registry, planned.key)) for planned in trainings}


def _train(
    registry: Registry,
    layout: Layout,
    trainings: Sequence[PlannedPhase],
    versions: dict[str, Version],
    execute: Execute | None,
    progress: Progress,
) -> None:
    """Train phases that do not depend on each other, and record each one when it is done."""
    first_id = int(registry.next_version_id()[1:])
    jobs, folders = [], dict[str, Path]()
    for offset, planned in enumerate(trainings):
        assert isinstance(planned.phase, Train)
        start = _phase_version(registry, planned.phase.start, versions)
        if start.id not in folders:
            folders[start.id] = _folder(registry, start, progress)
        job = Job(
            start=folders[start.id],
            table=planned.table,
            config=planned.config.train,
            seed=planned.seed,
            run_dir=_run_dir(registry, planned.key),
            adapter_dir=registry.path(f"adapters/v{first_id + offset}"),
            resume=True,
            trust_remote_code=planned.config.trust_remote_code,
        )
        jobs.append(job)
    names = [job.adapter_dir.name for job in jobs]
    announce(registry.root / ANNOUNCED, *(f"{folder}/{name}" for folder in ("adapters", "versions") for name in names))
    results: Iterator[TrainResult]
    if execute is None or not jobs:
        results, quiet = (run_job(job, progress) for job in jobs), progress
    else:  # its one bar stays while the first versions are recorded
        results, quiet = execute(run_job, jobs, [planned.pairs for planned in trainings]), SILENT
    for planned, job, result in zip(trainings, jobs, results, strict=True):
        check_adapter(job)
        versions[planned.phase.name] = _record(registry, layout, planned, job, result, versions, quiet)


def _record(
    registry: Registry,
    layout: Layout,
    planned: PlannedPhase,
    job: Job,
    result: TrainResult,
    versions: dict[str, Version],
    progress: Progress,
) -> Version:
    """Fold a trained adapter into the model it was trained from, check the fold, and record the version."""
    from continual.merge.sources import Adapted
    from continual.train.lora import prove_fold

    assert isinstance(planned.phase, Train)
    start, root = _phase_version(registry, planned.phase.start, versions), registry.version(ROOT)
    name = job.adapter_dir.name
    snapshot = registry.path(f"versions/{name}")
    provenance = replace(
        _provenance(registry, layout, planned), start=start.id, merge="interpolate", weight=1.0, training=result
    )
    merge_update(
        name, provenance, job.start, Adapted(job.start, job.adapter_dir), registry.path(root.path), snapshot, progress
    )
    texts = job.table["query"].slice(0, PROOF_TEXTS).to_pylist()
    trust = planned.config.trust_remote_code
    error = prove_fold(job.start, job.adapter_dir, snapshot, texts, trust_remote_code=trust)
    version = _add(registry, layout, planned, replace(provenance, fold_error=error), start, snapshot, versions)
    remove(job.run_dir)
    return version


def _merge(
    registry: Registry,
    layout: Layout,
    planned: PlannedPhase,
    phase: Merge,
    versions: dict[str, Version],
    progress: Progress,
) -> Version:
    name = registry.next_version_id()
    members = [versions[member] for member in phase.members]
    base = _phase_version(registry, phase.base, versions)
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
        rows = layout.training_rows
        assert rows.held is not None, "a layout with a search has rows held out"
        load_libraries()
        search = position(rows.held, planned.config, base_folder, folders, layout.seed, progress)
        provenance = search.decide(replace(provenance, held=rows.held_windows))
    snapshot = registry.path(f"versions/{name}")
    announce(registry.root / ANNOUNCED, f"versions/{name}")
    merge_members(name, provenance, folders, base_folder, snapshot, progress)
    return _add(registry, layout, planned, provenance, base, snapshot, versions)


def _add(
    registry: Registry,
    layout: Layout,
    planned: PlannedPhase,
    provenance: Provenance,
    parent: Version,
    snapshot: Path,
    versions: dict[str, Version],
) -> Version:
    """Record the version of a phase."""
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
    cost = total_cost([version, *(versions[name] for name in _dependencies(layout, planned.phase.name))])
    return registry.add_version(replace(version, provenance=replace(provenance, cost=cost)))


def _dependencies(layout: Layout, name: str) -> set[str]:
    """Return the names of all phases that a phase depends on, directly or not."""
    phases = {planned.phase.name: planned.phase for planned in layout.phases}
    dependencies: set[str] = set()
    waiting = [name]
    while waiting:
        needed = needed_phases(phases[waiting.pop()]) - {START}
        waiting += needed - dependencies
        dependencies |= needed
    return dependencies


def _provenance(registry: Registry, layout: Layout, planned: PlannedPhase) -> Provenance:
    """Return the part of a phase's provenance that trainings and merges share."""
    return Provenance(
        seed=planned.seed,
        new=planned.windows,
        guarded=layout.training_rows.guarded,
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


def _phase_version(registry: Registry, phase: str, versions: dict[str, Version]) -> Version:
    return registry.version(ROOT) if phase == START else versions[phase]


def _folder(registry: Registry, version: Version, progress: Progress) -> Path:
    """Return the folder of a version, rebuilt if it was dropped, after a check of its weights."""
    folder = materialise(registry, version, progress)
    prove(registry, version)
    return folder


def _run_dir(registry: Registry, key: str) -> Path:
    return registry.path(f"runs/{PHASE_RUN}{key[:16]}")
