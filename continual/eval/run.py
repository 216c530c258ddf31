"""Score one version on tasks: encode every text once, let mteb search and score, and store the per-query scores."""

from __future__ import annotations

import io
import logging
import math
import random
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers.utils import logging as transformers_logging

from continual.config import EvalConfig
from continual.errors import DataError
from continual.eval.encoder import OnceEncoder
from continual.eval.mteb_evaluate import evaluate_task
from continual.eval.mteb_tasks import (
    cut_to_sample,
    open_task,
    unload_task_data,
)
from continual.eval.suites import (
    MEASURES,
    TOP,
    WHOLE,
    Sample,
    instruction_of,
    score_path,
    score_settings,
    trec_eval_measure,
)
from continual.eval.tasks import FolderTask, load_task
from continual.progress import SILENT, Progress
from continual.registry.names import check_name
from continual.registry.records import Score, Task
from continual.storage.files import publish

_logger = logging.getLogger(__name__)

FAMILIES = {theirs: ours for ours, theirs in MEASURES.items() if theirs != "P"}
"""mteb's names of trec_eval's measure families."""


class Scorer:
    """Scores one version on tasks; a context manager that loads the model once, when it is first needed.

    Each distinct text of all tasks is encoded once per prompt. If a task's main score is a mean over the queries of one
    subset and split, its per-query scores are written below `.continual/scores/VERSION/` as Parquet: query_id (string),
    score (double, 0 to 1, of the main score) and documents (list of string: ids of the first ones, best first).
    Otherwise the score has no path.

    Args:
        model_path: A sentence-transformers folder.
        version: Id of the version, such as "v3".
        sha256: Digest of the model's weights; mteb uses it as the revision.
        registry_root: The `.continual` folder.
        config: Batch size and token limit.
        keep: A file to read vectors from, and to write them to at the end, see `OnceEncoder.save`; None keeps none.
        instructed: Domains whose names may be prompt names in the folder, see `OnceEncoder`.
        trust_remote_code: Whether to run code that the model folder brings.
        progress: One bar over the texts of all local tasks of a call, and one per task of mteb.
    """

    def __init__(
        self,
        model_path: Path,
        version: str,
        sha256: str,
        registry_root: Path,
        config: EvalConfig,
        *,
        keep: Path | None = None,
        instructed: Collection[str] = (),
        progress: Progress = SILENT,
        trust_remote_code: bool = False,
    ) -> None:
        self.version, self.root, self.config, self.progress = (
            check_name(version, "version"),
            registry_root,
            config,
            progress,
        )
        self._keep = keep

        def load() -> OnceEncoder:
            return OnceEncoder(
                model_path,
                version,
                sha256,
                batch_size=config.batch_size,
                max_length=config.max_length,
                precision=config.precision,
                trust_remote_code=trust_remote_code,
                progress=progress,
                kept=keep,
                instructed=instructed,
            )

        self._load = load
        self._encoder: OnceEncoder | None = None

    def __enter__(self) -> Scorer:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the vectors to `keep`, and warn of texts that were cut, unless an error ended the work."""
        if kind is not None or self._encoder is None:
            return
        if self._keep is not None:
            self._encoder.save(self._keep)
        self.progress.finish()
        if self._encoder.cut:
            self._warn(self._encoder)

    def score(
        self,
        tasks: Sequence[Task],
        samples: Mapping[str, Sample] | None = None,
        on_score: Callable[[Score], None] | None = None,
        first: int = TOP,
    ) -> list[Score]:
        """Score tasks.

        Args:
            tasks: The tasks; their paths are relative to `registry_root`.
            samples: How much of each task to score, by task name; tasks without an entry are scored as a whole.
            on_score: Called with each score as soon as it is computed, so that it is kept if a later task fails.
            first: Number of documents kept from each query's ranking.

        Returns:
            One score per task, in the order of `tasks`: mteb's main score in points (0 to 100, or -100 to 100 for
            scores that can be negative), with mteb's other metrics, also in points, in `details`. Means over queries
            are not rounded.

        Raises:
            DataError: A task can't be read or has nothing to score, or its score is not a number.
            ModelError: The model returns numbers that are not finite.
        """
        if not tasks:
            return []
        sample_of = {task.name: (samples or {}).get(task.name, WHOLE) for task in tasks}
        scores: dict[str, Score] = {}

        def score(task: Any, record: Task) -> None:
            settings = score_settings(self.config, sample_of[record.name], instruction_of(record))
            encoder.instruct(task.metadata, instruction_of(record))
            scores[record.name] = _score(encoder, task, record, settings, self.version, self.root, first)
            if on_score is not None:
                on_score(scores[record.name])

        with quiet(), own_randomness():
            local = {
                task.name: load_task(check_name(task.name, "task"), self.root / task.path, sample_of[task.name])
                for task in tasks
                if task.mteb is None
            }
            encoder = self._encoder = self._encoder or self._load()
            if local:
                _encode(
                    encoder, [(record, local[record.name]) for record in tasks if record.mteb is None], self.progress
                )
            for record in tasks:
                if record.mteb is None:
                    score(local.pop(record.name), record)
            for record in tasks:
                if record.mteb is not None:
                    self.progress.start(f"evaluating {self.version} on {record.name}", None, "texts")
                    task = open_task(record)
                    cut_to_sample(task, sample_of[record.name])
                    score(task, record)
                    unload_task_data(task)
        return [scores[record.name] for record in tasks]

    def _warn(self, encoder: OnceEncoder) -> None:
        own = self.config.max_length is None or encoder.limit != self.config.max_length
        _logger.warning(
            "Evaluation of %s: %s of %s texts (%.3g%%) were cut at %s tokens (%s).",
            self.version,
            f"{encoder.cut:,}",
            f"{encoder.counted:,}",
            100 * encoder.cut / encoder.counted,
            encoder.limit,
            "the limit of the model" if own else "eval.max_length",
        )


def score_tasks(
    model_path: Path,
    version: str,
    sha256: str,
    tasks: Sequence[Task],
    registry_root: Path,
    config: EvalConfig,
    **options: Any,
) -> list[Score]:
    """Score a version on whole tasks; see `Scorer` for the arguments, and `Scorer.score` for the result."""
    with Scorer(model_path, version, sha256, registry_root, config, **options) as scorer:
        return scorer.score(tasks)


def _encode(encoder: OnceEncoder, tasks: Sequence[tuple[Task, FolderTask]], progress: Progress) -> None:
    """Encode the texts of all local tasks, with one progress bar over them."""
    groups = _groups(tasks)
    for task, instruction, *_ in groups:
        encoder.instruct(task.metadata, instruction)
    total = len({key for task, _, role, texts in groups for key in encoder.missing(role, texts, task.metadata)})
    progress.start(f"evaluating {encoder.version}", total, "texts")
    for task, _, role, texts in groups:
        encoder.learn(role, texts, task.metadata)


def _groups(tasks: Sequence[tuple[Task, FolderTask]]) -> list[tuple[FolderTask, str | None, str, list[str]]]:
    """Group the texts of local tasks by prompt.

    Local tasks all have the same type, and no prompt has one of their names. So only the instruction makes a
    difference, and only for queries.

    Returns:
        For each group, its first task, the instruction, the role and the texts.
    """
    queries: dict[str | None, tuple[FolderTask, list[str]]] = {}
    for record, task in tasks:
        queries.setdefault(instruction_of(record), (task, []))[1].extend(task.texts["query"])
    groups = [(task, instruction, "query", texts) for instruction, (task, texts) in queries.items()]
    record, first = tasks[0]
    documents = [text for _, task in tasks for text in task.texts["document"]]
    return [*groups, (first, instruction_of(record), "document", documents)]


def _score(
    encoder: OnceEncoder, task: Any, record: Task, settings: str, version: str, registry_root: Path, first: int
) -> Score:
    result, per_query = evaluate_task(encoder, task, encoder.batch_size, first)
    rows = [row for split in result.scores.values() for row in split]
    main = float(result.get_score(getter=lambda row: row[record.metric]))
    if not math.isfinite(main):
        raise DataError(
            f"mteb found no data to compute {record.metric} of {version} on {record.name}, so the score is not a "
            "number. Leave the task out of suites.step and suites.release in continual.toml."
        )
    details = _means(rows, record.metric)
    name, values, path = trec_eval_measure(record.metric), {}, None
    if name is not None and per_query:
        own = float(np.mean([np.mean([query[name] for query in part.scores.values()]) for part in per_query.values()]))
        # mteb rounds to five digits; a larger difference means that the values are from another run.
        assert abs(own - main) < 1e-5, (record.name, own, main)
        main = own
        if len(per_query) == 1:
            (split,) = per_query.values()
            values = {query: split.scores[query][name] for query in sorted(split.scores)}
            details = _unrounded(split.scores, rows[0], record.metric)
            path = _write(values, split.first, registry_root, score_path(version, record.name, settings))
    details = {name: 100.0 * value for name, value in details.items()}
    queries = len(values) or record.queries
    return Score(version, record.name, record.metric, 100.0 * main, queries, path, details, settings)


def _write(values: Mapping[str, float], first: Mapping[str, Sequence[str]], registry_root: Path, path: Path) -> str:
    columns = {
        "query_id": pa.array(values, pa.string()),
        "score": pa.array(values.values(), pa.float64()),
        "documents": pa.array((first[query] for query in values), pa.list_(pa.string())),
    }
    with publish(registry_root / path) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")
    return path.as_posix()


def _unrounded(per_query: Mapping[str, dict[str, float]], row: dict[str, Any], metric: str) -> dict[str, float]:
    """Return the other metrics, 0 to 1, by mteb's names: means of the per-query values, and mteb's own MRR."""
    details = {}
    for name in sorted(next(iter(per_query.values()))):
        family, _, cut_off = name.rpartition("_")
        if family in FAMILIES and f"{FAMILIES[family]}_{cut_off}" != metric:
            details[f"{FAMILIES[family]}_{cut_off}"] = float(np.mean([query[name] for query in per_query.values()]))
    return details | {name: float(row[name]) for name in sorted(row) if name.startswith("mrr_at_")}


def _means(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Return the other metrics: the mean of each over the subsets and splits where it is a finite number."""
    means = {}
    for name in sorted(set().union(*rows) - {metric, "main_score"}):
        values = [row[name] for row in rows if isinstance(row.get(name), (int, float)) and math.isfinite(row[name])]
        if values and not name.startswith("nauc_"):  # if mteb computed them after all
            means[name] = float(np.mean(values))
    return means


@contextmanager
def quiet() -> Iterator[None]:
    """Keep mteb and its dependencies from writing to the terminal, where our own progress is shown."""
    loggers = {name: logging.getLogger(name) for name in ("mteb", "sentence_transformers", "datasets", "transformers")}
    levels = {name: logger.level for name, logger in loggers.items()}
    bars = not datasets.are_progress_bars_disabled(), transformers_logging.is_progress_bar_enabled()
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    try:
        # No setting turns off some of mteb's bars. Ours still works, because it opened its stream earlier.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        if bars[0]:
            datasets.enable_progress_bars()
        if bars[1]:
            transformers_logging.enable_progress_bar()


@contextmanager
def own_randomness() -> Iterator[None]:
    """Restore the global random states afterwards, because mteb seeds all of them when it creates a task."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
