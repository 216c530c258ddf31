"""Score one version on tasks: encode every text once, let mteb search and score, keep the per-query values."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from continual.eval.encoder import OnceEncoder
from continual.eval.tasks import MAIN_MEASURE, MAIN_SCORE, FolderTask, load_task
from continual.progress import SILENT, Progress
from continual.registry.names import check_name
from continual.registry.records import Score, Task
from continual.registry.store import publish

MEASURES = {"ndcg_cut": "ndcg_at", "map_cut": "map_at", "recall": "recall_at"}
"""trec_eval's families of measures, and mteb's names for them."""

SCORES = "scores"
"""The folder below `.continual/` that holds per-query values."""


def evaluate(
    model_path: Path,
    version: str,
    sha256: str,
    tasks: Sequence[Task],
    registry_root: Path,
    config: EvalConfig,
    *,
    progress: Progress = SILENT,
    trust_remote_code: bool = False,
) -> list[Score]:
    """Score a version on tasks.

    Each distinct text of all tasks is encoded once. Per-query values are written to
    `.continual/scores/VERSION/TASK.parquet` (query_id string, score double in 0..1 of nDCG@10).

    Args:
        model_path: A sentence-transformers folder.
        version: Id of the version, such as "v3".
        sha256: Digest of its weights, the revision that mteb sees.
        tasks: Records of the tasks; their paths are relative to `registry_root`.
        registry_root: The `.continual` folder.
        config: Batch size and token limit.
        progress: Counts the texts.
        trust_remote_code: Run code that the model brings with it.

    Returns:
        One score a task, in the order of `tasks`: nDCG@10 in points (0-100) as the main score, and nDCG, MAP,
        recall and MRR at 1, 3, 5, 10, 20 and 100 in `details`, in points. None of them is rounded.

    Raises:
        DataError: A task cannot be read or has nothing to score.
        ModelError: The model gives numbers that are not finite.
    """
    check_name(version, "version")
    if not tasks:
        return []
    with quiet(), own_randomness():
        loaded = [load_task(check_name(task.name, "task"), registry_root / task.path) for task in tasks]
        encoder = OnceEncoder(
            model_path,
            version,
            sha256,
            batch_size=config.batch_size,
            max_length=config.max_length,
            trust_remote_code=trust_remote_code,
            progress=progress,
        )
        texts = {role: [text for task in loaded for text in task.texts[role]] for role in ("query", "document")}
        total = len({pair for role in texts for pair in encoder.missing(role, texts[role])})
        progress.start(f"evaluating {version}", total, "texts")
        for role in texts:
            encoder.learn(role, texts[role], loaded[0].metadata)
        scores = [_score(encoder, task, version, registry_root) for task in loaded]
    progress.finish()
    return scores


def _score(encoder: OnceEncoder, task: FolderTask, version: str, registry_root: Path) -> Score:
    result = mteb.evaluate(
        encoder,
        task,
        cache=None,
        co2_tracker=False,
        show_progress_bar=False,
        encode_kwargs={"batch_size": encoder.batch_size, "show_progress_bar": False},
    )
    (row,) = result.task_results[0].scores["test"]
    queries = sorted(task.per_query)
    values = {name: [task.per_query[query][name] for query in queries] for name in task.per_query[queries[0]]}
    score = float(np.mean(values[MAIN_MEASURE]))
    # mteb rounds to five digits; further apart than that, the values are not those of this run.
    assert abs(score - row["main_score"]) < 1e-5, (task.title, score, row["main_score"])
    details = {name: 100.0 * value for name, value in _details(values, row).items()}
    path = Path(SCORES) / version / f"{task.title}.parquet"
    table = pa.table(
        {"query_id": pa.array(queries, pa.string()), "score": pa.array(values[MAIN_MEASURE], pa.float64())}
    )
    with publish(registry_root / path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return Score(version, task.title, MAIN_SCORE, 100.0 * score, len(queries), path.as_posix(), details)


def _details(values: dict[str, list[float]], row: dict[str, Any]) -> dict[str, float]:
    """Return the other metrics by mteb's names, 0 to 1: means of the per-query values, and mteb's own MRR."""
    details = {}
    for name, column in sorted(values.items()):
        family, _, cut = name.rpartition("_")
        if family in MEASURES and name != MAIN_MEASURE:
            details[f"{MEASURES[family]}_{cut}"] = float(np.mean(column))
    return details | {name: float(row[name]) for name in sorted(row) if name.startswith("mrr_at_")}


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
        with warnings.catch_warnings():
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
