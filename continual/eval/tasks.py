"""A stored task folder as an mteb retrieval task.

mteb does the search and the scoring; only the loading is ours, because its loaders ask the Hub and ours must not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from continual.errors import DataError

MAIN_SCORE = "ndcg_at_10"
MAIN_MEASURE = "ndcg_cut_10"
"""The main score as trec_eval names it, query by query."""

SPLIT = "test"


class FolderTask(AbsTaskRetrieval):  # type: ignore[misc]
    """A retrieval task whose corpus, queries and judgements lie in memory, and which keeps its per-query values.

    Args:
        name: The task's name in the workspace.
        corpus: Text by document id.
        queries: Text by query id.
        qrels: Judgements by query id and document id; above 0 is relevant.
    """

    # The main score needs ten documents; mteb's default of a thousand costs more than encoding on a small corpus.
    k_values = (1, 3, 5, 10, 20, 100)

    data_loaded: bool = False

    def __init__(
        self, name: str, corpus: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]]
    ) -> None:
        # mteb looks prompts up by task name before it looks them up by role: a task that somebody called "query"
        # would put the query prompt in front of its documents. The prefix rules that out.
        self.metadata = TaskMetadata(
            name=f"continual:{name}",
            dataset={"path": "local", "revision": "local"},
            description="A task stored in a continual workspace.",
            type="Retrieval",
            category="t2t",
            eval_splits=[SPLIT],
            eval_langs=["und-Zyyy"],
            main_score=MAIN_SCORE,
        )
        super().__init__()
        self.title = name
        self.per_query: dict[str, dict[str, float]] = {}
        self._corpus, self._queries, self._qrels = corpus, queries, qrels
        # mteb unloads what it has loaded itself, and would throw our metadata away with it.
        self.load_data()

    @property
    def texts(self) -> dict[str, list[str]]:
        """The texts as mteb hands them to the encoder, by role: "query" and "document"."""
        # mteb strips documents, and drops queries that have no judgements.
        return {
            "query": [text for query, text in self._queries.items() if query in self._qrels],
            "document": [text.strip() for text in self._corpus.values()],
        }

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        """Put the texts where mteb looks for them."""
        del num_proc
        if self.data_loaded:
            return
        columns = {
            "corpus": {"id": list(self._corpus), "text": list(self._corpus.values())},
            "queries": {"id": list(self._queries), "text": list(self._queries.values())},
        }
        data = {name: datasets.Dataset.from_dict(column) for name, column in columns.items()}
        self.dataset = {"default": {SPLIT: {**data, "relevant_docs": dict(self._qrels), "top_ranked": None}}}
        self.data_loaded = True

    def task_specific_scores(
        self, scores: dict[str, dict[str, float]], qrels: Any, results: Any, hf_split: str, hf_subset: str
    ) -> dict[str, float]:
        """Keep what trec_eval said of each query; mteb itself keeps only means, rounded to five digits."""
        del qrels, results, hf_split, hf_subset
        self.per_query = scores
        return {}


def load_task(name: str, folder: Path) -> FolderTask:
    """Return the mteb task of a stored folder.

    Args:
        name: The task's name in the workspace.
        folder: Holds corpus.parquet (doc_id, text), queries.parquet (query_id, text) and
            qrels.parquet (query_id, doc_id, score >= 0).

    Returns:
        A task with main score nDCG@10, ready for `mteb.evaluate`; nothing is fetched from anywhere.

    Raises:
        DataError: A file is missing or unreadable, or no query has a relevant document.
    """
    try:
        corpus = _pairs(folder / "corpus.parquet", "doc_id")
        queries = _pairs(folder / "queries.parquet", "query_id")
        judgements = pq.read_table(folder / "qrels.parquet", columns=["query_id", "doc_id", "score"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"The task {name!r} cannot be read from {folder}: {error}. Remove the damaged file, and put it back with "
            "`continual task add` or from a backup."
        ) from None
    qrels: dict[str, dict[str, int]] = {}
    for query, document, score in zip(*(column.to_pylist() for column in judgements.columns), strict=True):
        if query in queries:
            qrels.setdefault(query, {})[document] = score
    if not any(score > 0 for judged in qrels.values() for score in judged.values()):
        raise DataError(f"The task {name!r} in {folder} has no query with a relevant document, so nothing to score.")
    return FolderTask(name, corpus, queries, qrels)


def _pairs(path: Path, key: str) -> dict[str, str]:
    table = pq.read_table(path, columns=[key, "text"])
    return dict(zip(table[key].to_pylist(), table["text"].to_pylist(), strict=True))
