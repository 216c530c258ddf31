"""Score one version on tasks: encode every text once, let mteb search and score, keep the per-query values."""

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
import mteb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers.utils import logging as transformers_logging

from continual.config import EvalConfig
from continual.errors import DataError
from continual.eval.encoder import OnceEncoder
from continual.eval.mteb_tasks import (
    cut_to_sample,
    keep_per_query,
    open_task,
    unload_task_data,
)
from continual.eval.suites import (
    MEASURES,
    WHOLE,
    Sample,
    instruction_of,
    score_path,
    score_settings,
    trec_eval_measure,
)
from continual.eval.tasks import load_task
from continual.progress import SILENT, Progress
from continual.registry.names import check_name
from continual.registry.records import Score, Task
from continual.storage.files import publish

FAMILIES = {theirs: ours for ours, theirs in MEASURES.items() if theirs != "P"}
"""trec_eval's families of measures, and mteb's names for them."""


def score_tasks(
    model_path: Path,
    version: str,
    sha256: str,
    tasks: Sequence[Task],
    registry_root: Path,
    config: EvalConfig,
    *,
    samples: Mapping[str, Sample] | None = None,
    on_score: Callable[[Score], None] | None = None,
    keep: Path | None = None,
    instructed: Collection[str] = (),
    progress: Progress = SILENT,
    trust_remote_code: bool = False,
) -> list[Score]:
    """Score a version on tasks.

    Each distinct text of all tasks is encoded once per prompt. Per-query values are written below
    `.continual/scores/VERSION/` (query_id string, score double in 0..1 of the main score, documents list of string: the
    ids of the first ten, the best first) where the main score is a mean over the queries of one set; otherwise a score
    has no path.

    Args:
        model_path: A sentence-transformers folder.
        version: Id of the version, such as "v3".
        sha256: Digest of its weights, the revision that mteb sees.
        tasks: Records of the tasks; their paths are relative to `registry_root`.
        registry_root: The `.continual` folder.
        config: Batch size and token limit.
        samples: How much of each task to score, by its name; one that is not named is scored whole.
        on_score: Called with each score as soon as it is made, so that it can be kept whatever fails later.
        keep: A file to read vectors from and write them to, see `OnceEncoder.save`; None: they are forgotten.
        instructed: Domains whose prompts the folder may have, see `OnceEncoder`.
        progress: Counts the texts.
        trust_remote_code: Run code that the model brings with it.

    Returns:
        One score a task, in the order of `tasks`: mteb's main score in points (0-100, or -100 to 100 for those below
        zero), and mteb's other metrics in `details`, in points. Means over queries are not rounded.

    Raises:
        DataError: A task cannot be read or has nothing to score, or its score is not a number.
        ModelError: The model gives numbers that are not finite.
    """
    check_name(version, "version")
    if not tasks:
        return []
    sample_of = {task.name: (samples or {}).get(task.name, WHOLE) for task in tasks}
    scores: dict[str, Score] = {}

    def score(task: Any, record: Task) -> None:
        settings = score_settings(config, sample_of[record.name], instruction_of(record))
        encoder.instruct(task.metadata, instruction_of(record))
        scores[record.name] = _score(encoder, task, record, settings, version, registry_root)
        if on_score is not None:
            on_score(scores[record.name])

    with quiet(), own_randomness():
        local = {
            task.name: load_task(check_name(task.name, "task"), registry_root / task.path, sample_of[task.name])
            for task in tasks
            if task.mteb is None
        }
        encoder = OnceEncoder(
            model_path,
            version,
            sha256,
            batch_size=config.batch_size,
            max_length=config.max_length,
            trust_remote_code=trust_remote_code,
            progress=progress,
            kept=keep,
            instructed=instructed,
        )
        if local:
            groups = _groups([(record, local[record.name]) for record in tasks if record.mteb is None])
            for task, instruction, *_ in groups:
                encoder.instruct(task.metadata, instruction)
            total = len({key for task, _, role, texts in groups for key in encoder.missing(role, texts, task.metadata)})
            progress.start(f"evaluating {version}", total, "texts")
            for task, _, role, texts in groups:
                encoder.learn(role, texts, task.metadata)
        for record in tasks:
            if record.mteb is None:
                score(local.pop(record.name), record)
        for record in tasks:
            if record.mteb is not None:
                progress.start(f"evaluating {version} on {record.name}", None, "texts")
                task = open_task(record)
                cut_to_sample(task, sample_of[record.name])
                score(task, record)
                unload_task_data(task)
        if keep is not None:
            encoder.save(keep)
    progress.finish()
    return [scores[record.name] for record in tasks]


def _groups(tasks: Sequence[tuple[Task, Any]]) -> list[tuple[Any, str | None, str, list[str]]]:
    """Return the texts of local tasks that are encoded alike: the first such task, its instruction, role and texts.

    Local tasks are of one type, and have names that no prompt has: only an instruction tells their queries apart.
    """
    queries: dict[str | None, tuple[Any, list[str]]] = {}
    for record, task in tasks:
        queries.setdefault(instruction_of(record), (task, []))[1].extend(task.texts["query"])
    found = [(task, instruction, "query", texts) for instruction, (task, texts) in queries.items()]
    record, first = tasks[0]
    documents = [text for _, task in tasks for text in task.texts["document"]]
    return [*found, (first, instruction_of(record), "document", documents)]


def _score(encoder: OnceEncoder, task: Any, record: Task, settings: str, version: str, registry_root: Path) -> Score:
    per_query = keep_per_query(task)
    result = mteb.evaluate(
        encoder,
        task,
        cache=None,
        co2_tracker=False,
        show_progress_bar=False,
        encode_kwargs={"batch_size": encoder.batch_size, "show_progress_bar": False},
    ).task_results[0]
    rows = [row for split in result.scores.values() for row in split]
    main = float(result.get_score(getter=lambda row: row[record.metric]))
    if not math.isfinite(main):
        raise DataError(
            f"{record.metric} of {version} on {record.name} is not a number: mteb has nothing to compute it from. "
            "Leave the task out of suites.step and suites.release in continual.toml."
        )
    details = _means(rows, record.metric)
    name, values, path = trec_eval_measure(record.metric), {}, None
    if name is not None and per_query:
        own = float(np.mean([np.mean([query[name] for query in part.scores.values()]) for part in per_query.values()]))
        # mteb rounds to five digits; further apart than that, the values are not those of this run.
        assert abs(own - main) < 1e-5, (record.name, own, main)
        main = own
        if len(per_query) == 1:
            (found,) = per_query.values()
            values = {query: found.scores[query][name] for query in sorted(found.scores)}
            details = _unrounded(found.scores, rows[0], record.metric)
            path = _write(values, found.first, registry_root, score_path(version, record.name, settings))
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


def _unrounded(found: Mapping[str, dict[str, float]], row: dict[str, Any], metric: str) -> dict[str, float]:
    """Return the other metrics by mteb's names, 0 to 1: means of the per-query values, and mteb's own MRR."""
    details = {}
    for name in sorted(next(iter(found.values()))):
        family, _, cut_off = name.rpartition("_")
        if family in FAMILIES and f"{FAMILIES[family]}_{cut_off}" != metric:
            details[f"{FAMILIES[family]}_{cut_off}"] = float(np.mean([query[name] for query in found.values()]))
    return details | {name: float(row[name]) for name in sorted(row) if name.startswith("mrr_at_")}


def _means(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Return the other metrics, each the mean over the subsets and splits that have it as a finite number."""
    means = {}
    for name in sorted(set().union(*rows) - {metric, "main_score"}):
        found = [row[name] for row in rows if isinstance(row.get(name), (int, float)) and math.isfinite(row[name])]
        if found and not name.startswith("nauc_"):
            means[name] = float(np.mean(found))
    return means


@contextmanager
def quiet() -> Iterator[None]:
    """Keep mteb and what it uses from writing to the terminal, where our own progress is shown."""
    loggers = {name: logging.getLogger(name) for name in ("mteb", "sentence_transformers", "datasets", "transformers")}
    levels = {name: logger.level for name, logger in loggers.items()}
    bars = not datasets.are_progress_bars_disabled(), transformers_logging.is_progress_bar_enabled()
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    try:
        # mteb has bars that no setting turns off; ours goes on, because it has its stream from before.
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
    """Put the global random states back: mteb seeds them all when a task is made, and training goes on after us."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
