"""One step: from new rows to a new version in service, or a refusal.

`update` below is the recipe, numbered as the design numbers it: 1 draw, 2 train, 3 fold, 4 merge, 5 evaluate,
6 gate. Step 1 is `continual.step.spec.prepare`, which also fixes everything that decides the weights.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from continual.config import validate
from continual.errors import (
    ContinualError,
    DivergedError,
    FoldError,
    NothingToDoError,
    WorkspaceBusy,
)
from continual.eval.ood import flags_of
from continual.eval.suites import suite_settings
from continual.index.check import measure_step
from continual.index.pair import drop_vectors, vectors_file
from continual.index.result import IndexComparison
from continual.merge.rules import find_rule
from continual.models.weights import weights_sha256
from continual.progress import (
    SILENT,
    Log,
    Progress,
    no_log,
)
from continual.registry import (
    Registry,
    Run,
    Score,
    Version,
)
from continual.registry.catalog import now
from continual.registry.registry import CURRENT, ROOT
from continual.replay import Draw
from continual.step.spec import Spec
from continual.step.tracking import step_figures
from continual.storage.files import remove
from continual.train.coefficients import search
from continual.versions.build import join, materialise, prove
from continual.versions.scores import score, score_missing
from continual.versions.sweep import discard_run

HOPELESS = (DivergedError, FoldError, NothingToDoError)
"""What a step ends with however often it is resumed."""

PROOF_TEXTS = 16
"""Texts on which the fold is proved."""


@dataclass(frozen=True)
class StepResult:
    """What an update came to.

    Attributes:
        version: The new version, accepted or refused.
        parent: What was in service when the step began.
        spec: What decided it.
        scores: The new version's score on every task, in points.
        previous: The parent's.
        in_service: What is in service now: the version, or its parent if it was refused, or another one if
            somebody moved `current` while the step ran.
        index: The comparison with the index of its parent; None if that was not measured.
        kinds: What each task is to this step: "new", "learned", "again", "OOD" or "leaked" (see `task_kinds`).
    """

    version: Version
    parent: Version
    spec: Spec
    scores: dict[str, Score]
    previous: dict[str, Score]
    kinds: dict[str, str]
    in_service: str
    index: IndexComparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data: version, parent, verdict, and the scores of both in points."""
        return {
            "version": self.version.id,
            "parent": self.parent.id,
            "status": self.version.status,
            "verdict": self.version.verdict,
            "sha256": self.version.sha256,
            "pairs_trained": self.version.pairs_trained,
            "tokens_trained": self.version.tokens_trained,
            "seconds": self.version.seconds,
            "joint_pairs": self.version.joint_pairs,
            "scores": {task: score.score for task, score in self.scores.items()},
            "previous": {task: score.score for task, score in self.previous.items()},
            "kinds": self.kinds,
            "in_service": self.in_service,
            "index": None if self.index is None else self.index.to_json(),
        }

    @property
    def passed(self) -> bool:
        """Whether the gate let it pass."""
        return self.version.status == "accepted"


def update(
    registry: Registry,
    spec: Spec,
    drawn: Draw,
    *,
    resume: bool = False,
    progress: Progress = SILENT,
    log: Log = no_log,
) -> StepResult:
    """Run one step to its verdict.

    Args:
        registry: The workspace's registry.
        spec: What `prepare` fixed.
        drawn: The rows, from `prepare` or `reopen`: step 1, Draw.
        resume: Continue from the run's last checkpoint.
        progress: Shows how far it is.
        log: Told the figures of every optimizer step, and at the end the scores and the verdict.

    A step that cannot be begun, or that would fail again as it was begun, is discarded. What fails otherwise (on a
    machine with other arithmetic, or later, at a task that cannot be read) leaves the run to be resumed.
    """
    from continual.index.cross import Side
    from continual.merge.sources import Model
    from continual.step.gate import judge
    from continual.train.checkpoint import steps_done
    from continual.train.loop import train
    from continual.train.lora import fold, prove_fold

    config = validate(spec.config, "the run's settings")
    root, parent, start = (registry.version(name) for name in (ROOT, spec.parent, spec.start))
    root_folder, parent_folder, start_folder = (materialise(registry, each) for each in (root, parent, start))
    for version in {each.id: each for each in (root, parent, start)}.values():
        prove(version, registry.path(version.path))
    folded = registry.path(f"runs/{spec.version}/update")
    adapter, snapshot = f"adapters/{spec.version}", f"versions/{spec.version}"
    run = Run(spec.version, "running", dataclasses.asdict(spec), now(), None)
    if not resume:
        registry.begin_run(run)

    try:
        # 2. Train an update model: LoRA on the rows drawn, from current or from the root base.
        trained = train(
            start_folder,
            drawn.table,
            config.train,
            seed=spec.seed,
            run_dir=folded.parent,
            adapter_dir=registry.path(adapter),
            anchor=root_folder if config.train.anchor == "base" else parent_folder,
            resume=resume,
            progress=progress,
            log=log,
            trust_remote_code=config.trust_remote_code,
        )

        # 3. Fold the adapter into the weights it was trained on, and prove it on a few texts.
        fold(start_folder, registry.path(adapter), folded)
        fold_error = prove_fold(
            start_folder,
            registry.path(adapter),
            folded,
            drawn.table["query"].slice(0, PROOF_TEXTS).to_pylist(),
            trust_remote_code=config.trust_remote_code,
        )
    except WorkspaceBusy:
        raise
    except ContinualError as error:
        # What a checkpoint holds is thrown away only for what would happen again, not for what a machine lacks.
        if isinstance(error, HOPELESS) or not steps_done(folded.parent):
            discard_run(registry, run)
        raise

    # 4. Merge with what is in service.
    recipe = dataclasses.asdict(spec)
    if find_rule(spec.merge).searches:
        places = {"root": root_folder, "current": parent_folder, "update": folded}
        recipe |= search(spec.merge, drawn.held_table, config, **places, seed=spec.seed, progress=progress)
    recipe["state_next"] = join(recipe, parent_folder, Model(folded), root_folder, registry.path(snapshot), progress)
    sha256 = weights_sha256(registry.path(snapshot))

    # 5. Evaluate the tasks of the suite `step`, the parent and the root too where they lack one; and what the new
    #    version does to the index of its parent.
    tasks = [task for task in registry.tasks() if task.name in spec.tasks]
    vectors = {each: vectors_file(registry, each) if config.index.step else None for each in (parent.id, spec.version)}
    for known in {each.id: each for each in (root, parent)}.values():
        score_missing(registry, known, tasks, config, progress, keep=vectors.get(known.id))
    kept = vectors[spec.version]
    scores = score(registry, spec.version, registry.path(snapshot), sha256, tasks, config, progress, keep=kept)
    index = None
    if config.index.step:
        sides = (
            Side(parent.id, parent.sha256, parent_folder, vectors[parent.id]),
            Side(spec.version, sha256, registry.path(snapshot), kept),
        )
        index = measure_step(registry, config, *sides, tasks, spec.batches, progress)

    # 6. Gate: current moves to the new version, or stays.
    new = {each.task: each for each in scores}
    comparable = registry.scores(suite_settings(tasks, config, "step"))
    old = {task: each for (owner, task), each in comparable.items() if owner == parent.id}
    kinds = task_kinds(registry, spec)
    verdict = judge(new, old, kinds, registry.root, config)
    version = Version(
        id=spec.version,
        position=0,
        parent=parent.id,
        status="accepted" if verdict.passed else "refused",
        path=snapshot,
        adapter=adapter,
        sha256=sha256,
        batches=spec.batches,
        pairs_trained=trained.pairs,
        tokens_trained=trained.tokens,
        seconds=trained.seconds,
        joint_pairs=spec.joint_pairs,
        recipe=recipe | {"training": trained.to_json(), "fold_error": fold_error},
        verdict=verdict.to_json(),
        created_at=now(),
    )
    reason = f"update to {version.id} passed the gate" if verdict.passed else None
    measured = None if index is None else index.to_json()
    version = registry.add_version(version, scores, promote=reason, compatibility=measured)
    log(step_figures(new, old, verdict.passed), trained.steps)
    remove(folded.parent)
    in_service = registry.version(CURRENT)
    drop_vectors(registry, in_service)
    return StepResult(version, parent, spec, new, old, kinds, in_service.id, index)


def task_kinds(registry: Registry, spec: Spec) -> dict[str, str]:
    """Return what each task is to a step.

    "new": its domain is learned in this step; "learned": it was learned before; "again": both; "OOD": neither, and no
    row, of whatever domain, that is in the task or nearly so was ever trained on; "leaked": its domain is in neither,
    but the lineage trained on such rows before the task was known.
    """
    leaked = flags_of(registry, spec.parent)
    domain_of = {batch.id: batch.domain for batch in registry.batches()}
    learned = {domain_of[batch] for batch in registry.learned(registry.version(spec.parent))}
    learning = {domain_of[batch] for batch in spec.batches}
    kinds = {(True, False): "new", (False, True): "learned", (True, True): "again", (False, False): "OOD"}
    found = {}
    for task in registry.tasks():
        if task.name in spec.tasks:
            kind = kinds[task.domain in learning, task.domain in learned]
            found[task.name] = "leaked" if kind == "OOD" and task.name in leaked else kind
    return found
