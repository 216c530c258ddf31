"""mteb's evaluation of one task, with what mteb does not keep: the scores and rankings of single queries."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mteb
from mteb._evaluators import retrieval_metrics
from mteb.abstasks import AbsTaskRetrieval

from continual.eval.mteb_tasks import unreadable
from continual.eval.suites import TOP


@dataclass(frozen=True)
class PerQuery:
    """Scores and rankings of the queries of one split and subset.

    Attributes:
        scores: trec_eval's measures, 0 to 1, by query id and name of the measure.
        first: Ids of the first documents, best first, by query id.
    """

    scores: dict[str, dict[str, float]]
    first: dict[str, list[str]]


def evaluate_task(
    model: Any, task: Any, batch_size: int, first: int = TOP
) -> tuple[Any, dict[tuple[str, str], PerQuery]]:
    """Evaluate a model on a loaded task with mteb.

    Args:
        model: An encoder or a search model in mteb's sense.
        task: A loaded mteb task.
        batch_size: Texts per batch, passed on to the model.
        first: Number of documents kept from each query's ranking.

    Returns:
        mteb's result of the task, without the metrics `nauc_*`, and the scores and rankings of single queries by split
        and subset. mteb itself keeps only means, rounded to five digits. The dict is empty for tasks that don't rank
        documents.

    Raises:
        DataError: The task needs more data and can't load them.
    """
    with _per_query_scores(task, first) as per_query, _without_abstention():
        results = mteb.evaluate(
            model,
            task,
            cache=None,
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs={"batch_size": batch_size, "show_progress_bar": False},
        )
    return results.task_results[0], per_query


@contextmanager
def _per_query_scores(task: Any, first: int) -> Iterator[dict[tuple[str, str], PerQuery]]:
    """Yield a dict that mteb's evaluation of the task fills."""
    per_query: dict[tuple[str, str], PerQuery] = {}
    if not isinstance(task, AbsTaskRetrieval):
        yield per_query
        return
    original = task.task_specific_scores

    def keep(
        scores: dict[str, dict[str, float]], qrels: Any, results: Any, hf_split: str, hf_subset: str
    ) -> dict[str, float]:
        ranked = {query: _first(results.get(query, {}), first) for query in scores}
        per_query[hf_split, hf_subset] = PerQuery(scores, ranked)
        try:
            own: dict[str, float] = original(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)
        except (OSError, ValueError) as error:  # FollowIR's tasks read more of their dataset here
            raise unreadable(task, error) from error
        return own

    task.task_specific_scores = keep
    try:
        yield per_query
    finally:
        task.task_specific_scores = original


@contextmanager
def _without_abstention() -> Iterator[None]:
    """Keep mteb from computing `nauc_*`: how well a model's similarities tell which queries it should not answer.

    Nothing here uses these metrics. They cost 0.2 s per search however small it is: half of a small step. No setting of
    mteb turns them off; a release whose function has another name computes them and gives the same scores.
    """
    original = getattr(retrieval_metrics, "evaluate_abstention", None)
    if original is None:
        yield
        return
    retrieval_metrics.evaluate_abstention = lambda *_, **__: {}
    try:
        yield
    finally:
        retrieval_metrics.evaluate_abstention = original


def _first(similarity: Mapping[str, float], count: int) -> list[str]:
    """Return the first documents in trec_eval's order: by score, ties by id in descending order."""
    return [name for _, name in heapq.nlargest(count, ((value, name) for name, value in similarity.items()))]
