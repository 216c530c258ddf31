"""Which scores a version lacks, and how it gets them: nothing is scored twice under the same settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from continual.config import Config
from continual.errors import (
    InputError,
    NotFoundError,
    NothingToDoError,
    did_you_mean,
)
from continual.eval.ood import flags_of
from continual.eval.suites import (
    SuiteName,
    sample_of,
    suite_settings,
    suite_tasks,
)
from continual.progress import SILENT, Progress
from continual.registry import (
    Registry,
    Score,
    Task,
    Version,
)
from continual.registry.registry import ROOT
from continual.storage.locks import UPDATE_LOCK, exclusive
from continual.versions.build import materialise, prove

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SUITES: tuple[SuiteName, ...] = ("step", "release")


@dataclass(frozen=True)
class TaskScore:
    """One version's score on one task.

    Attributes:
        task: Its name.
        domain: The domain it tests; None: out of domain.
        task_type: mteb's name of its type, such as "STS".
        metric: The main score, by mteb's name.
        score: In points.
        queries: How many queries or items it is over.
        settings: What it depends on besides model and task; it names the sample, if only one was scored.
        details: The other metrics, in points.
        new: Whether it was computed just now; else it was there.
        flag: Why it is no score on texts that the version never saw, if so it is; see `continual.eval.ood`.
    """

    task: str
    domain: str | None
    task_type: str
    metric: str
    score: float
    queries: int
    settings: str
    details: dict[str, float]
    new: bool
    flag: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The scores of a version in a suite.

    Attributes:
        version: Id of the version.
        suite: "step" or "release".
        scores: One a task, in the order of their registration.
    """

    version: str
    suite: str
    scores: list[TaskScore]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def unscored(
    registry: Registry, version: Version, tasks: Sequence[Task], config: Config, suite: SuiteName = "step"
) -> list[Task]:
    """Return the tasks that a version has no score on with the settings of a suite."""
    known = registry.scores(suite_settings(tasks, config, suite))
    return [task for task in tasks if (version.id, task.name) not in known]


def score_missing(
    registry: Registry,
    version: Version,
    tasks: Sequence[Task],
    config: Config,
    progress: Progress,
    suite: SuiteName = "step",
    keep: Path | None = None,
) -> None:
    """Score a known version on the tasks that it lacks; each score is kept as soon as it is made, and vectors too."""
    _score_known(registry, version, unscored(registry, version, tasks, config, suite), config, progress, suite, keep)


def rank_missing(
    registry: Registry,
    version: Version,
    tasks: Sequence[Task],
    config: Config,
    progress: Progress,
    suite: SuiteName = "step",
) -> list[str]:
    """Score a version once more on tasks whose rankings were not kept when it was scored, and return their names.

    Versions that were scored before rankings were kept have scores without; a ranking needs the whole corpus anyway.
    """
    missing = unranked(registry, version, tasks, config, suite)
    _score_known(registry, version, missing, config, progress, suite)
    return [task.name for task in missing]


def _score_known(
    registry: Registry,
    version: Version,
    tasks: Sequence[Task],
    config: Config,
    progress: Progress,
    suite: SuiteName,
    keep: Path | None = None,
) -> None:
    """Score a recorded version on some tasks, and record each score as soon as it is made."""
    if tasks:
        folder = materialise(registry, version, progress)
        prove(version, folder)
        record: Callable[[Score], None] = lambda score: registry.add_scores([score])  # noqa: E731
        score(registry, version.id, folder, version.sha256, tasks, config, progress, suite, record, keep)


def unranked(
    registry: Registry, version: Version, tasks: Sequence[Task], config: Config, suite: SuiteName = "step"
) -> list[Task]:
    """Return the tasks that a version has scores per query on, with the settings of a suite, but no rankings."""
    from continual.eval.regressions import has_rankings

    known = registry.scores(suite_settings(tasks, config, suite))
    paths = {task.name: known[version.id, task.name].path for task in tasks if (version.id, task.name) in known}
    return [
        task for task in tasks if (path := paths.get(task.name)) is not None and not has_rankings(registry.path(path))
    ]


def score(
    registry: Registry,
    version: str,
    snapshot: Path,
    sha256: str,
    tasks: Sequence[Task],
    config: Config,
    progress: Progress,
    suite: SuiteName = "step",
    on_score: Callable[[Score], None] | None = None,
    keep: Path | None = None,
) -> list[Score]:
    """Score a model folder on tasks as a suite says; see `continual.eval.run.score_tasks`."""
    from continual.eval.run import score_tasks

    return score_tasks(
        snapshot,
        version,
        sha256,
        tasks,
        registry.root,
        config.eval,
        samples={task.name: sample_of(task, getattr(config.suites, suite)) for task in tasks},
        on_score=on_score,
        keep=keep,
        instructed=registry.instructions(),
        progress=progress,
        trust_remote_code=config.trust_remote_code,
    )


def evaluate_version(
    registry: Registry,
    config: Config,
    name: str,
    suite: str,
    tasks: Sequence[str] | None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Return a version's scores in a suite, computing those that are not there.

    Args:
        registry: The workspace's registry.
        config: Its settings.
        name: A version's id or an alias.
        suite: "step" or "release".
        tasks: Names of tasks to score instead of the suite's, as the suite samples them.
        progress: Shows how far it is.

    Raises:
        InputError: There is no such suite.
        NotFoundError: There is no such version or task.
        NothingToDoError: There is no task to score it on.
        WorkspaceBusy: A score is missing, and an update is running.
    """
    version = registry.version(name)
    chosen = next((each for each in SUITES if each == suite), None)
    if chosen is None:
        raise InputError(f"--suite takes step or release, not {suite!r}.{did_you_mean(suite, SUITES)}")
    wanted = choose(registry, config, tasks, chosen)
    missing = {task.name for task in unscored(registry, version, wanted, config, chosen)}
    if missing:
        with exclusive(registry.root / UPDATE_LOCK, "eval"):  # an update scores versions too
            score_missing(registry, version, wanted, config, progress, chosen)
    scores = registry.scores(suite_settings(wanted, config, chosen))
    flagged = flags_of(registry, version.id)
    rows = []
    for task in wanted:
        found = scores[version.id, task.name]
        rows.append(
            TaskScore(
                task=task.name,
                domain=task.domain,
                task_type=task.task_type,
                metric=found.metric,
                score=found.score,
                queries=found.queries,
                settings=found.settings,
                details=found.details,
                new=task.name in missing,
                flag=flagged[task.name].why if task.name in flagged else None,
            )
        )
    return Evaluation(version.id, chosen, rows)


def choose(registry: Registry, config: Config, names: Sequence[str] | None, suite: SuiteName = "step") -> list[Task]:
    """Return the tasks of these names, or those of a suite.

    Raises:
        NotFoundError: There is no such task.
        NothingToDoError: There is none.
    """
    known = registry.tasks()
    wanted = _named(known, names) if names else suite_tasks(known, config, suite)
    if not wanted:
        raise NothingToDoError("There is no evaluation task to score on. Add one with `continual task add`.")
    return wanted


def query_embedder(
    registry: Registry, config: Config, progress: Progress
) -> Callable[[list[str]], NDArray[np.float32]]:
    """Return a function that embeds queries with the root base, which is there always: so clusters stay the same."""
    models: list[SentenceTransformer] = []

    def embed(texts: list[str]) -> NDArray[np.float32]:
        from continual.models.encoder import load_encoder

        if not models:
            folder = materialise(registry, registry.version(ROOT), progress)
            models.append(load_encoder(folder, trust_remote_code=config.trust_remote_code))
        progress.start("embedding queries", len(texts), "texts")
        vectors = models[0].encode_query(texts, batch_size=config.eval.batch_size, show_progress_bar=False)
        progress.advance(len(texts))
        progress.finish()
        return np.asarray(vectors, np.float32)

    return embed


def _named(tasks: Sequence[Task], names: Sequence[str]) -> list[Task]:
    known = [task.name for task in tasks]
    for name in names:
        if name not in known:
            raise NotFoundError(
                f"There is no task {name!r}.{did_you_mean(name, known)} `continual task list` shows them."
            )
    return [task for task in tasks if task.name in names]
