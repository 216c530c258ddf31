"""One step: from new rows to a new current version, or a refusal.

`update` below reads top to bottom: 1 draw, 2 train, 3 fold, 4 merge, 5 evaluate, 6 gate. Step 1 is
`continual.step.spec.prepare`, which also records everything that determines the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from continual.config import Config, validate
from continual.errors import ContinualError, DivergedError, FoldError, NothingToDoError, WorkspaceBusy
from continual.eval.ood import flags_of
from continual.index.check import measure_step
from continual.index.pair import drop_vectors
from continual.index.result import IndexComparison
from continual.merge.rules import find_rule
from continual.models.weights import weights_sha256
from continual.progress import SILENT, Log, Progress, no_log
from continual.registry import (
    CURRENT,
    ROOT,
    Provenance,
    Registry,
    Role,
    Run,
    Score,
    Spec,
    Task,
    Verdict,
    Version,
)
from continual.registry.catalog import now
from continual.replay import Draw
from continual.step.evaluate import Candidate, Scored
from continual.step.evaluate import evaluate as score_and_judge
from continual.step.judge import as_verdict
from continual.step.keep import check_unchanged, find_texts, project_adapter
from continual.step.tracking import step_figures
from continual.storage.files import remove
from continual.train.coefficients import search
from continual.train.job import PROOF_TEXTS, Job
from continual.versions.build import materialise, merge_update, prove
from continual.versions.sweep import discard_run

PERMANENT = (DivergedError, FoldError, NothingToDoError)
"""Errors that recur on every resume."""


@dataclass(frozen=True)
class StepResult:
    """The outcome of an update.

    Attributes:
        version: The new version, accepted or refused.
        parent: The version that was current when the step began.
        spec: What decided the step.
        scores: The new version's score on every task that was scored in full, in points.
        previous: The parent's; where it has none, that of the last version before it that has one.
        roles: What each task is to this step.
        current: Id of the current version now: the new version, or its parent if the gate refused it, or another
            one if somebody promoted it while the step ran.
        index: The comparison with the parent's index; None if that was not measured.
    """

    version: Version
    parent: Version
    spec: Spec
    scores: dict[str, Score]
    previous: dict[str, Score]
    roles: dict[str, Role]
    current: str
    index: IndexComparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data: version, parent, verdict, what was cut, and the scores of both in points."""
        version, training = self.version, self.version.provenance.training
        return {
            "version": version.id,
            "parent": self.parent.id,
            "status": version.status,
            "verdict": None if version.verdict is None else version.verdict.to_json(),
            "sha256": version.sha256,
            "pairs_trained": version.pairs_trained,
            "tokens_trained": version.tokens_trained,
            "seconds": version.seconds,
            "joint_pairs": version.joint_pairs,
            "cuts": None if training is None or training.cuts is None else asdict(training.cuts),
            "scores": {task: score.score for task, score in self.scores.items()},
            "previous": {task: score.score for task, score in self.previous.items()},
            "roles": self.roles,
            "current": self.current,
            "index": None if self.index is None else self.index.to_json(),
        }

    @property
    def passed(self) -> bool:
        """Whether the gate accepted the version."""
        return self.version.status == "accepted"


@dataclass(frozen=True)
class Step:
    """A step in progress: what it starts from, and where its files go.

    Attributes:
        registry: The workspace's registry.
        spec: What decides the step.
        config: The settings in it.
        root: The root base.
        parent: The current version when the step began.
        start: The version to train from: one of these two.
    """

    registry: Registry
    spec: Spec
    config: Config
    root: Version
    parent: Version
    start: Version

    @classmethod
    def open(cls, registry: Registry, spec: Spec) -> Step:
        """Return the step of a spec, with the folders it needs rebuilt and checked."""
        config = validate(spec.provenance.config, "the run's settings")
        versions = [registry.version(name) for name in (ROOT, spec.parent, str(spec.provenance.start))]
        for version in {version.id: version for version in versions}.values():
            materialise(registry, version)
            prove(registry, version)
        return cls(registry, spec, config, *versions)

    def folder(self, version: Version) -> Path:
        """Return the folder of one of the versions that the step starts from."""
        return self.registry.path(version.path)

    @property
    def run(self) -> Path:
        """Folder of the checkpoint and of the update model."""
        return self.registry.path(f"runs/{self.spec.version}")

    @property
    def adapter(self) -> str:
        """The update's adapter, relative to `.continual/`."""
        return f"adapters/{self.spec.version}"

    @property
    def snapshot(self) -> str:
        """The new version's folder, relative to `.continual/`."""
        return f"versions/{self.spec.version}"

    @property
    def target(self) -> Path:
        """The new version's folder."""
        return self.registry.path(self.snapshot)

    @property
    def tasks(self) -> list[Task]:
        """The evaluation tasks of the suite `step`."""
        return [task for task in self.registry.tasks() if task.name in self.spec.tasks]


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

    A step that cannot start, or that would fail the same way again, is discarded. After any other failure (hardware
    that lacks the precision, an unreadable task), the run can be resumed.

    Args:
        registry: The workspace's registry.
        spec: What `prepare` recorded.
        drawn: The rows, from `prepare` or `reopen`: step 1, Draw.
        resume: Continue from the run's last checkpoint.
        progress: One bar per part.
        log: Gets the figures of every optimizer step, and at the end the scores and the verdict.
    """
    step = Step.open(registry, spec)
    run = Run(spec.version, "running", spec, now(), None)
    if not resume:
        registry.begin_run(run)
    # 2. Train an update model: LoRA on the rows drawn, from the current version or from the root base.
    # 3. Fold the adapter into the weights it was trained on, and check it on a few texts.
    provenance = train_and_fold(step, run, drawn, resume=resume, progress=progress, log=log)
    # 4. Merge with the current version.
    provenance = merge(step, provenance, drawn, progress)
    sha256 = weights_sha256(step.target)
    # 5. Evaluate the tasks of the suite `step`, and what the new version does to its parent's index.
    roles = task_roles(registry, spec)
    training = provenance.training
    assert training is not None, "an update trains"
    found, verdict, index = evaluate(step, sha256, roles, training.pairs, progress)
    # 6. Gate: the new version becomes the current one, or not.
    version = record(step, provenance, sha256, [*found.new.values(), *found.new_probes.values()], verdict, index)
    log(step_figures(found.new, found.old, verdict.passed), training.steps)
    remove(step.run)
    current = registry.version(CURRENT)
    drop_vectors(registry, current)
    return StepResult(version, step.parent, spec, found.new, found.old, roles, current.id, index)


def train_and_fold(step: Step, run: Run, drawn: Draw, *, resume: bool, progress: Progress, log: Log) -> Provenance:
    """Train the adapter and fold it in; return the provenance with what the training did.

    With `merge.keep`, the adapter is projected for the texts to keep before it is folded in for good.

    Raises:
        ContinualError: The training or the fold failed; the run is discarded if it would fail again.
    """
    from continual.train.checkpoint import steps_done
    from continual.train.loop import train
    from continual.train.lora import fold, prove_fold

    registry, config, start = step.registry, step.config, step.folder(step.start)
    made = step.spec.provenance
    kept = made.kept
    if kept is not None:
        to_keep, found = find_texts(registry.root.parent, config)
        check_unchanged(found, kept, step.spec.version)
    job = Job(
        start=start,
        table=drawn.table,
        config=config.train,
        seed=made.seed,
        run_dir=step.run,
        adapter_dir=registry.path(step.adapter),
        anchor=step.folder(step.root if config.train.anchor == "base" else step.parent),
        resume=resume,
        trust_remote_code=config.trust_remote_code,
    )
    folded, texts = step.run / "update", drawn.table["query"].slice(0, PROOF_TEXTS).to_pylist()
    try:
        training = train(job, progress, log)
        fold(start, job.adapter_dir, folded)
        if kept is not None:
            kept = project_adapter(job, folded, kept, to_keep, progress)
            fold(start, job.adapter_dir, folded)
        fold_error = prove_fold(start, job.adapter_dir, folded, texts, trust_remote_code=config.trust_remote_code)
    except WorkspaceBusy:
        raise
    except ContinualError as error:
        # Discard the checkpoint only if resuming would fail the same way, not if this machine lacks something.
        if isinstance(error, PERMANENT) or not steps_done(step.run):
            discard_run(registry, run)
        raise
    return replace(made, training=training, kept=kept, fold_error=fold_error)


def merge(step: Step, provenance: Provenance, drawn: Draw, progress: Progress) -> Provenance:
    """Merge the update model with the current version; return the provenance with what was decided here."""
    from continual.merge.sources import Model

    rule = find_rule(str(provenance.merge))
    root, parent, folded = step.folder(step.root), step.folder(step.parent), step.run / "update"
    if rule.searches:
        folders = {"root": root, "current": parent, "update": folded}
        seed = provenance.seed
        found = search(rule.name, drawn.held_table, step.config, **folders, seed=seed, progress=progress)
        provenance = found.decide(provenance)
    state = merge_update(step.spec.version, provenance, parent, Model(folded), root, step.target, progress)
    return replace(provenance, state_next=state)


def evaluate(
    step: Step, sha256: str, roles: dict[str, Role], pairs: int, progress: Progress
) -> tuple[Scored, Verdict, IndexComparison | None]:
    """Score and judge the new version, and measure what it finds in the parent's index."""
    from continual.index.cross import Side

    registry, config, parent, new = step.registry, step.config, step.parent, step.spec.version
    candidate = Candidate(
        registry, config, new, step.target, sha256, step.root, parent, step.tasks, roles=roles, pairs=pairs
    )
    found, decision = score_and_judge(candidate, progress)
    verdict = as_verdict(decision)
    if not config.index.step:
        return found, verdict, None
    old_side = Side(parent.id, parent.sha256, step.folder(parent), candidate.vectors(parent.id))
    new_side = Side(new, sha256, step.target, candidate.vectors(new))
    both = [task for task in step.tasks if task.name in found.new and found.old[task.name].version == parent.id]
    return found, verdict, measure_step(registry, config, old_side, new_side, both, step.spec.batches, progress)


def record(
    step: Step,
    provenance: Provenance,
    sha256: str,
    scores: Sequence[Score],
    verdict: Verdict,
    index: IndexComparison | None,
) -> Version:
    """Record the new version with its scores, and move `current` to it if it passed the gate, in one transaction."""
    training = provenance.training
    assert training is not None, "an update trains"
    version = Version(
        id=step.spec.version,
        parent=step.parent.id,
        status="accepted" if verdict.passed else "refused",
        path=step.snapshot,
        adapter=step.adapter,
        sha256=sha256,
        batches=step.spec.batches,
        pairs_trained=training.pairs,
        tokens_trained=training.tokens,
        seconds=training.seconds,
        joint_pairs=step.spec.joint_pairs,
        provenance=provenance,
        verdict=verdict,
        created_at=now(),
    )
    reason = f"update to {version.id} passed the gate" if verdict.passed else None
    measured = None if index is None else index.to_json()
    step.registry.add_version(version, scores, promote=reason, compatibility=measured)
    return version


def task_roles(registry: Registry, spec: Spec) -> dict[str, Role]:
    """Return what each task of the suite `step` is to a step; see `continual.registry.verdict.Role`."""
    leaked = flags_of(registry, spec.parent)
    domain_of = {batch.id: batch.domain for batch in registry.batches()}
    learned = {domain_of[batch] for batch in registry.learned(registry.version(spec.parent))}
    learning = {domain_of[batch] for batch in spec.batches}
    by_domain: dict[tuple[bool, bool], Role] = {
        (True, False): "new",
        (False, True): "learned",
        (True, True): "again",
        (False, False): "OOD",
    }
    found: dict[str, Role] = {}
    for task in registry.tasks():
        if task.name in spec.tasks:
            role = by_domain[task.domain in learning, task.domain in learned]
            found[task.name] = "leaked" if role == "OOD" and task.name in leaked else role
    return found
