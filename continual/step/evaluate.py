"""Step 5 of an update: score the new version, on a limited number of texts, and judge it.

With few tasks, all are scored in full. With more, the tasks of the new domains are, and each other task is scored on a
probe, a small fixed sample of it. The probes say which tasks may have fallen. What `eval.step_texts` has left is for
scoring those in full, and the ones that were scored in full longest ago.

A refusal never rests on a probe, nor on a version before the parent: a limit that seems broken is measured again in
full, with the parent's score. So is one that might be broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import Config, GateConfig
from continual.eval.samples import samples_of
from continual.eval.suites import Probe, SuiteName, sample_of, suite_settings, texts_of
from continual.index.pair import vectors_file
from continual.progress import Progress
from continual.registry import Registry, Role, Score, Task, Version
from continual.registry.artifacts import queries_of
from continual.step.budget import texts_allowed
from continual.step.gate import Decision, Finding
from continual.step.judge import judge
from continual.versions.scores import score_missing, score_suite, scorer_of, unscored

if TYPE_CHECKING:
    from continual.eval.run import Scorer

DOUBT = 0.2
"""A change beyond its limit with at most this one-sided p-value might break the limit, so it is measured in full."""

NEAR = 0.5
"""So is a learned domain whose probe fell by more than this share of its limit, and the OOD tasks if their mean did:
probes show some falls too small."""


@dataclass
class Scored:
    """The scores that a step compares, by task; more are added while the step is evaluated.

    Attributes:
        new: The new version's, in full.
        old: The parent's, in full; where it has none, that of the nearest version before it.
        new_probes: The new version's probes.
        old_probes: Those of the parent; where it has none, that of the nearest version before it.
    """

    new: dict[str, Score] = field(default_factory=dict)
    old: dict[str, Score] = field(default_factory=dict)
    new_probes: dict[str, Score] = field(default_factory=dict)
    old_probes: dict[str, Score] = field(default_factory=dict)

    def pairs(self) -> dict[str, tuple[Score, Score]]:
        """Return the new and the old score of each task: in full where there are both, else of the probe."""
        return self.of_probes() | self._both(self.new, self.old)

    def of_probes(self) -> dict[str, tuple[Score, Score]]:
        """Return the new and the old score of each probe."""
        return self._both(self.new_probes, self.old_probes)

    @staticmethod
    def _both(new: Mapping[str, Score], old: Mapping[str, Score]) -> dict[str, tuple[Score, Score]]:
        """Return two scores of each task; those with other settings are not comparable."""
        same = (task for task in new if task in old and new[task].settings == old[task].settings)
        return {task: (new[task], old[task]) for task in same}


@dataclass(frozen=True)
class Candidate:
    """A version that a step is making.

    Attributes:
        registry: The workspace's registry.
        config: The step's settings.
        version: Its id.
        folder: Its model folder.
        sha256: Digest of its weights.
        root: The root base.
        parent: The version that it continues.
        tasks: The tasks of the suite `step`.
        roles: What each task is to the step.
        pairs: Pairs that the step trained.
    """

    registry: Registry
    config: Config
    version: str
    folder: Path
    sha256: str
    root: Version
    parent: Version
    tasks: Sequence[Task]
    roles: Mapping[str, Role]
    pairs: int

    @property
    def texts(self) -> int | None:
        """How many texts may be encoded to score it; None if there is no limit."""
        return texts_allowed(self.config, self.pairs)

    def vectors(self, version: str) -> Path | None:
        """Return where the vectors of a version are kept; None if no index is compared."""
        return vectors_file(self.registry, version) if self.config.index.step else None

    def cost(self, tasks: Iterable[Task], suite: SuiteName = "step") -> int:
        """Return how many texts a suite scores of tasks."""
        return sum(texts_of(task, sample_of(task, self.config.suites, suite)) for task in tasks)


def evaluate(candidate: Candidate, progress: Progress) -> tuple[Scored, Decision]:
    """Score a new version, its parent and the root base where they lack scores, and decide."""
    registry, config, tasks = candidate.registry, candidate.config, candidate.tasks
    learning = [task for task in tasks if candidate.roles[task.name] in ("new", "again")]
    spent = candidate.cost(unscored(registry, candidate.root, tasks, config))
    _score_known(candidate, candidate.root, tasks, progress)
    lacking = unscored(registry, candidate.parent, tasks, config)
    everything = spent + candidate.cost(lacking) + candidate.cost(tasks)
    limited = candidate.texts is not None and everything > candidate.texts
    _score_known(candidate, candidate.parent, learning if limited else tasks, progress)
    keep = candidate.vectors(candidate.version)
    version, folder, sha256 = candidate.version, candidate.folder, candidate.sha256
    found = Scored()
    with scorer_of(registry, version, folder, sha256, config, progress, keep) as scorer:

        def score(chosen: Sequence[Task]) -> None:
            found.new |= by_task(score_suite(scorer, registry, chosen, config, "step"))

        found.old = last_scores(candidate)
        score(learning if limited else tasks)
        if limited:
            decision = judge(found.pairs(), candidate.roles, registry.root, config, candidate.parent.id)
            if decision.final(len(tasks) + 2):  # refused, whatever the other tasks show
                return found, decision
            spent += candidate.cost(learning) + candidate.cost(task for task in lacking if task in learning)
            spent += _score_probes(candidate, scorer, found, progress)
            chosen = choose(candidate, found, (candidate.texts or 0) - spent)
            score(chosen)
            _score_known(candidate, candidate.parent, [task for task in chosen if task.name not in found.old], progress)
            found.old = last_scores(candidate)
        decision, probes = (
            judge(pairs, candidate.roles, registry.root, config, candidate.parent.id)
            for pairs in (found.pairs(), found.of_probes())
        )
        while doubts := _doubts(candidate, found, decision, probes):
            score([task for task in doubts if task.name not in found.new])
            _score_known(candidate, candidate.parent, doubts, progress)
            found.old = last_scores(candidate)
            decision = judge(found.pairs(), candidate.roles, registry.root, config, candidate.parent.id)
    return found, decision


def by_task(scores: Iterable[Score]) -> dict[str, Score]:
    """Return scores by the names of their tasks."""
    return {score.task: score for score in scores}


def _score_known(
    candidate: Candidate, version: Version, tasks: Sequence[Task], progress: Progress, suite: SuiteName = "step"
) -> None:
    """Score a recorded version on the tasks it has no score on."""
    keep = candidate.vectors(version.id) if version.id == candidate.parent.id else None
    score_missing(candidate.registry, version, tasks, candidate.config, progress, suite, keep)


def _score_probes(candidate: Candidate, scorer: Scorer, found: Scored, progress: Progress) -> int:
    """Score the new version on probes that have at most `eval.step_texts`; return how many they have.

    Two learned domains and one OOD task take turns: each learned domain has a limit of its own, the OOD tasks share
    one. Those that were scored longest ago come first. A small task has no probe, and is scored in full instead. So
    that the next step can compare, the new domains are scored on their probes too, which have no texts of their own.
    """
    registry, config = candidate.registry, candidate.config
    have = samples_of(registry, candidate.tasks, config, "probe")
    before = last_scores(candidate, "probe")
    full, probe = ages_of(candidate, found.old), ages_of(candidate, before)
    ages = {name: min(age, probe[name]) for name, age in full.items()}
    rest = [task for task in candidate.tasks if task.name not in found.new]
    costs = {task.name: candidate.cost([task], "probe" if task.name in have else "step") for task in rest}
    small = Probe(config.suites.probe.queries, config.suites.probe.documents)
    quick = [task for task in rest if task.name in have or costs[task.name] <= 2 * texts_of(task, small)]
    chosen: set[str] = set()
    spent = 0
    quick.sort(key=lambda task: -ages[task.name])
    learned = [task for task in quick if candidate.roles[task.name] == "learned"]
    others = [task for task in quick if candidate.roles[task.name] != "learned"]
    turns = zip_longest(learned[::2], learned[1::2], others)
    for task in (task for turn in turns for task in turn if task is not None):
        if chosen and spent + costs[task.name] > (candidate.texts or 0):
            break
        chosen.add(task.name)
        spent += costs[task.name]
    whole = [task for task in quick if task.name in chosen and task.name not in have]
    found.new |= by_task(score_suite(scorer, registry, whole, config, "step"))
    probed = [task for task in candidate.tasks if task.name in have and task.name in {*chosen, *found.new}]
    found.new_probes |= by_task(score_suite(scorer, registry, probed, config, "probe"))
    _score_known(candidate, candidate.parent, [task for task in probed if task.name not in before], progress, "probe")
    found.old_probes = last_scores(candidate, "probe")
    return spent


def last_scores(candidate: Candidate, suite: SuiteName = "step") -> dict[str, Score]:
    """Return, by task, the score in a suite of the last version of the parent's lineage that has one.

    A score of a version that had not learned the domain yet says nothing about forgetting, and is left out for the
    tasks of learned domains.
    """
    registry = candidate.registry
    lineage = registry.ancestry(candidate.parent.id)
    settings = suite_settings(candidate.tasks, candidate.config, suite)
    found = registry.last_scores(settings, [version.id for version in lineage])
    registry.digests.check(*map(queries_of, found.values()))
    stale = {score.version for score in found.values()} - {candidate.parent.id}
    if stale:
        domain_of = {batch.id: batch.domain for batch in registry.batches()}
        learned = {
            version.id: {domain_of[batch] for batch in registry.learned(version)}
            for version in lineage
            if version.id in stale
        }
        for task in candidate.tasks:
            score = found.get(task.name)
            late = score is not None and score.version in stale and task.domain not in learned[score.version]
            if late and candidate.roles[task.name] == "learned":
                del found[task.name]
    return found


def ages_of(candidate: Candidate, scores: Mapping[str, Score]) -> dict[str, int]:
    """Return how many steps ago each task was scored, 1 if its score is the parent's; the most for one without."""
    lineage = [entry.id for entry in candidate.registry.ancestry(candidate.parent.id)]
    age = {name: place for place, name in enumerate(reversed(lineage), 1)}
    never = len(lineage) + 1
    return {task.name: age[scores[task.name].version] if task.name in scores else never for task in candidate.tasks}


def choose(candidate: Candidate, found: Scored, room: int) -> list[Task]:
    """Return which of the other tasks are scored in full.

    The task that was scored longest ago and the learned domain whose probe fell most surely take turns, until the texts
    are used up. OOD tasks are chosen by time alone: their mean would be biased if those that fell were. A task is
    always chosen if it was not scored in the last `eval.step_every` versions. So that not all wait for that, one may be
    chosen without room, if half of that time has passed.

    Args:
        room: Texts left.
    """
    rest = [task for task in candidate.tasks if task.name not in found.new]
    ages = ages_of(candidate, found.old)
    decision = judge(found.pairs(), candidate.roles, candidate.registry.root, candidate.config, candidate.parent.id)
    oldest = sorted(rest, key=lambda task: -ages[task.name])
    fallen = sorted(
        (task for task in rest if candidate.roles[task.name] == "learned" and decision.fell(task.name)),
        key=lambda task: decision.tasks[task.name].p or 0.0,
    )
    chosen = {task.name: task for task in oldest if ages[task.name] >= candidate.config.eval.step_every}
    room -= candidate.cost(chosen.values())
    turns = [task for both in zip_longest(oldest, fallen) for task in both if task is not None]
    for task in turns:
        waited = not chosen and 2 * ages[task.name] >= candidate.config.eval.step_every
        limit = max(room, (candidate.texts or 0) // 2) if waited else room
        if task.name not in chosen and candidate.cost([task]) <= limit:
            chosen[task.name] = task
            room -= candidate.cost([task])
    return [task for task in rest if task.name in chosen]


def _doubts(candidate: Candidate, found: Scored, decision: Decision, probes: Decision) -> list[Task]:
    """Return the tasks of limits that are or might be broken, and that were not scored in full with the parent.

    A score in full may be compared with a version that was worse than the parent; then only the probe shows a fall.

    Args:
        probes: The decision on probes alone.
    """
    limits = candidate.config.gate
    unsure = {
        task
        for finding in decision.findings
        if finding.broken or ((finding.beyond or _near(finding, limits)) and (finding.p is None or finding.p <= DOUBT))
        for task in finding.tasks
    }
    settled = {name for name in found.new if name in found.old and found.old[name].version == candidate.parent.id}
    near = -NEAR * limits.max_forgetting
    unsure |= {
        name
        for name, change in probes.tasks.items()
        if name not in settled and change.role == "learned" and change.difference < near
        if change.p is None or change.p / 2 <= DOUBT
    }
    return [task for task in candidate.tasks if task.name in unsure - settled]


def _near(finding: Finding, limits: GateConfig) -> bool:
    """Return whether the mean of the OOD tasks fell by more than half of its limit."""
    return finding.limit == "max_ood_loss" and finding.change.difference < -NEAR * limits.max_ood_loss
