"""Missing scores of a version. A task is never scored twice with the same settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from continual.config import Config
from continual.errors import InputError, NotFoundError, NothingToDoError, did_you_mean
from continual.eval.ood import flags_of
from continual.eval.samples import samples_of, unranked_corpora
from continual.eval.suites import TOP, SuiteName, suite_settings, suite_tasks
from continual.progress import SILENT, Progress
from continual.registry import ROOT, Registry, Score, Task, Version
from continual.registry.artifacts import queries_of
from continual.storage.locks import UPDATE_LOCK
from continual.versions.build import materialise, prove

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from continual.eval.run import Scorer

SUITES: tuple[SuiteName, ...] = ("step", "release")


@dataclass(frozen=True)
class TaskScore:
    """Score of a version on a task.

    Attributes:
        task: Name of the task.
        domain: Domain that the task tests; None if it tests no domain of the workspace.
        task_type: mteb's name of the task's type, such as "STS".
        metric: mteb's name of the main score, such as "ndcg_at_10".
        score: Main score, in points.
        queries: Number of queries, or of items of a task without queries.
        settings: Settings that the score depends on, such as the maximum length and the sample.
        details: The other metrics, in points.
        new: Whether the score was computed by this call.
        flag: Why the score is not a score on unseen texts; None if it is. See `continual.eval.ood`.
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
        scores: One score per task, in the order the tasks were registered.
    """

    version: str
    suite: str
    scores: list[TaskScore]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as plain data."""
        return asdict(self)


def unscored(
    registry: Registry, version: Version, tasks: Sequence[Task], config: Config, suite: SuiteName = "step"
) -> list[Task]:
    """Return the tasks that a version has no score on with the settings of a suite."""
    scores = registry.scores(suite_settings(tasks, config, suite), version.id)
    return [task for task in tasks if (version.id, task.name) not in scores]


def score_missing(
    registry: Registry,
    version: Version,
    tasks: Sequence[Task],
    config: Config,
    progress: Progress,
    suite: SuiteName = "step",
    keep: Path | None = None,
) -> None:
    """Score a recorded version on the tasks it has no score on, and record each score as soon as it is computed.

    Args:
        keep: Cache file to read embeddings of texts from, and to write them to.
    """
    missing = unscored(registry, version, tasks, config, suite)
    # Also of tasks that the version has scores on: another version is about to be scored on their pools.
    corpora = unranked_corpora(registry, tasks, config) if suite == "step" else []
    if corpora and version.id != ROOT:
        root = registry.version(ROOT)
        behind = unscored(registry, root, corpora, config)
        _score_recorded(registry, root, behind, config, progress, suite, corpora=corpora)
        corpora = []
    _score_recorded(registry, version, missing, config, progress, suite, keep, corpora)


def rank_missing(
    registry: Registry,
    version: Version,
    tasks: Sequence[Task],
    config: Config,
    progress: Progress,
    suite: SuiteName = "step",
) -> list[str]:
    """Score a version again on the tasks it has scores but no rankings of; return the names of these tasks.

    Older versions of `continual` did not keep rankings. A ranking needs the embeddings of the whole corpus, as a score
    does.
    """
    missing = unranked(registry, version, tasks, config, suite)
    _score_recorded(registry, version, missing, config, progress, suite)
    return [task.name for task in missing]


def _score_recorded(
    registry: Registry,
    version: Version,
    tasks: Sequence[Task],
    config: Config,
    progress: Progress,
    suite: SuiteName,
    keep: Path | None = None,
    corpora: Sequence[Task] = (),
) -> None:
    """Score a recorded version on tasks, and record each score as soon as it is computed.

    Args:
        corpora: Tasks whose whole corpora are ranked first, because their pools are made of what is found. What is in
            a pool is encoded once for both.
    """
    if tasks or corpora:
        folder = materialise(registry, version, progress)
        prove(registry, version)

        def record(score: Score) -> None:
            registry.add_scores([score])

        with scorer_of(registry, version.id, folder, version.sha256, config, progress, keep) as scorer:
            score_suite(scorer, registry, corpora, config, "corpus", record)
            score_suite(scorer, registry, tasks, config, suite, record)


def unranked(
    registry: Registry, version: Version, tasks: Sequence[Task], config: Config, suite: SuiteName = "step"
) -> list[Task]:
    """Return the tasks that a version has scores per query on, with the settings of a suite, but no rankings."""
    from continual.eval.regressions import has_rankings

    scores = registry.scores(suite_settings(tasks, config, suite), version.id)
    known = [scores[version.id, task.name] for task in tasks if (version.id, task.name) in scores]
    registry.digests.check(*map(queries_of, known))
    paths = {score.task: score.path for score in known}
    return [
        task for task in tasks if (path := paths.get(task.name)) is not None and not has_rankings(registry.path(path))
    ]


def scorer_of(
    registry: Registry,
    version: str,
    snapshot: Path,
    sha256: str,
    config: Config,
    progress: Progress,
    keep: Path | None = None,
) -> Scorer:
    """Return what scores a model folder; see `continual.eval.run.Scorer`.

    Args:
        version: Id of the version that the scores belong to; it need not be recorded yet.
        snapshot: Folder of the model.
        sha256: sha256 of its weights.
        keep: Cache file to read embeddings of texts from, and to write them to.
    """
    from continual.eval.run import Scorer

    return Scorer(
        snapshot,
        version,
        sha256,
        registry.root,
        config.eval,
        keep=keep,
        instructed=registry.instructions(),
        progress=progress,
        trust_remote_code=config.trust_remote_code,
    )


def score_suite(
    scorer: Scorer,
    registry: Registry,
    tasks: Sequence[Task],
    config: Config,
    suite: SuiteName,
    on_score: Callable[[Score], None] | None = None,
) -> list[Score]:
    """Score a model on tasks, with the samples of a suite, after a check of the tasks' files.

    For the suite "probe", all tasks have a probe. For "step", the root base has ranked the corpora that pools are of.
    """
    registry.task_folders([task for task in tasks if task.mteb is None])
    pool = config.suites.step.pool
    first = max(TOP, pool if pool != "off" else 0) if suite == "corpus" else TOP
    return scorer.score(tasks, samples_of(registry, tasks, config, suite), on_score, first)


def evaluate_version(
    registry: Registry,
    config: Config,
    name: str,
    suite: str,
    tasks: Sequence[str] | None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Return the scores of a version in a suite; compute those that are missing.

    Args:
        name: Id or alias of the version.
        suite: "step" or "release".
        tasks: Names of tasks to score instead of the suite's tasks; the suite's sample sizes apply to them too.

    Raises:
        InputError: There is no such suite.
        NotFoundError: There is no such version or task.
        NothingToDoError: There is no task to score the version on.
        WorkspaceBusy: A score is missing, and another command is changing the workspace.
    """
    version = registry.version(name)
    suite_name = next((known for known in SUITES if known == suite), None)
    if suite_name is None:
        raise InputError(f"--suite takes step or release, not {suite!r}.{did_you_mean(suite, SUITES)}")
    chosen = choose_tasks(registry, config, tasks, suite_name)
    missing = {task.name for task in unscored(registry, version, chosen, config, suite_name)}
    if missing:
        with registry.lock(UPDATE_LOCK, "eval"):  # an update scores versions too
            score_missing(registry, version, chosen, config, progress, suite_name)
    scores = registry.scores(suite_settings(chosen, config, suite_name), version.id)
    flagged = flags_of(registry, version.id)
    task_scores = []
    for task in chosen:
        score = scores[version.id, task.name]
        task_scores.append(
            TaskScore(
                task=task.name,
                domain=task.domain,
                task_type=task.task_type,
                metric=score.metric,
                score=score.score,
                queries=score.queries,
                settings=score.settings,
                details=score.details,
                new=task.name in missing,
                flag=flagged[task.name].why if task.name in flagged else None,
            )
        )
    return Evaluation(version.id, suite_name, task_scores)


def choose_tasks(
    registry: Registry, config: Config, names: Sequence[str] | None, suite: SuiteName = "step"
) -> list[Task]:
    """Return the tasks with these names, or the tasks of a suite if there are no names.

    Raises:
        NotFoundError: There is no task of a name.
        NothingToDoError: The workspace, or the suite, has no task.
    """
    tasks = registry.tasks()
    chosen = _named(tasks, names) if names else suite_tasks(tasks, config, suite)
    if not chosen:
        raise NothingToDoError("There is no evaluation task to score a version on. Add one with `continual task add`.")
    return chosen


def query_embedder(
    registry: Registry, config: Config, progress: Progress
) -> Callable[[list[str]], NDArray[np.float32]]:
    """Return a function that embeds queries with the root base.

    Every version's queries are clustered with the same model, so that clusters can be compared.
    """
    models: list[SentenceTransformer] = []

    def embed(texts: list[str]) -> NDArray[np.float32]:
        from continual.models.encode import TOKENS, encode
        from continual.models.encoder import encoding_prompts, load_encoder
        from continual.models.tokens import Tokens

        if not models:
            root = registry.version(ROOT)
            folder = materialise(registry, root, progress)
            prove(registry, root, full=False)
            models.append(load_encoder(folder, trust_remote_code=config.trust_remote_code))
        model, (prompt, _) = models[0], encoding_prompts(models[0])
        tokens = Tokens(model)
        tokens.add(texts, prompt, "query")
        progress.start("embedding queries", len(texts), "texts")
        vectors = encode(model, tokens, max_tokens=config.eval.batch_size * TOKENS, task="query", progress=progress)
        progress.finish()
        return vectors

    return embed


def _named(tasks: Sequence[Task], names: Sequence[str]) -> list[Task]:
    existing = [task.name for task in tasks]
    for name in names:
        if name not in existing:
            raise NotFoundError(
                f"There is no task {name!r}.{did_you_mean(name, existing)} List the tasks with `continual task list`."
            )
    return [task for task in tasks if task.name in names]
