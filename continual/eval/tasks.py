"""A stored task folder as an mteb retrieval task.

mteb does the search and the scoring. The loading is ours, because mteb's loaders query the Hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from continual.errors import DataError
from continual.eval.suites import WHOLE, HardSample, Sample, first_by_hash

MAIN_SCORE = "ndcg_at_10"
SPLIT = "test"


class FolderTask(AbsTaskRetrieval):  # type: ignore[misc]
    """A retrieval task whose corpus, queries and judgements are in memory.

    Args:
        name: The task's name in the workspace.
        corpus: Texts by document id.
        queries: Texts by query id.
        qrels: Judgements by query id and document id; values above 0 mean relevant.
    """

    # The main score needs ten documents. On a small corpus, mteb's default of a thousand costs more than encoding.
    k_values = (1, 3, 5, 10, 20, 100)

    data_loaded: bool = False

    def __init__(
        self, name: str, corpus: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]]
    ) -> None:
        self.metadata = local_metadata(name)
        super().__init__()
        self._corpus, self._queries, self._qrels = corpus, queries, qrels
        # Load here: mteb unloads a task that it loaded itself, and would drop our metadata with it.
        self.load_data()

    @property
    def texts(self) -> dict[str, list[str]]:
        """The texts as mteb passes them to the encoder, by role: "query" and "document"."""
        # mteb strips documents and drops queries without judgements.
        return {
            "query": [text for query, text in self._queries.items() if query in self._qrels],
            "document": [text.strip() for text in self._corpus.values()],
        }

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        """Fill `dataset` in mteb's layout."""
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


def local_metadata(name: str) -> TaskMetadata:
    """Return mteb's metadata of a local retrieval task, or of texts to encode like those of one."""
    # mteb looks prompts up by task name first, then by role. Without the prefix, a task named "query" would put the
    # query prompt in front of its documents.
    return TaskMetadata(
        name=f"continual:{name}",
        dataset={"path": "local", "revision": "local"},
        description="A task stored in a continual workspace.",
        type="Retrieval",
        category="t2t",
        eval_splits=[SPLIT],
        eval_langs=["und-Zyyy"],
        main_score=MAIN_SCORE,
    )


def load_task(name: str, folder: Path, sample: Sample = WHOLE) -> FolderTask:
    """Return the mteb task of a stored folder.

    Args:
        name: The task's name in the workspace.
        folder: Holds corpus.parquet (doc_id, text), queries.parquet (query_id, text) and
            qrels.parquet (query_id, doc_id, score >= 0).
        sample: How much of the task to keep, see `sampled_ids`.

    Returns:
        A task with main score nDCG@10, ready for `mteb.evaluate`; nothing is downloaded.

    Raises:
        DataError: A file is missing or can't be read, or no query has a relevant document.
    """
    try:
        corpus = _pairs(folder / "corpus.parquet", "doc_id")
        queries = _pairs(folder / "queries.parquet", "query_id")
        judgements = pq.read_table(folder / "qrels.parquet", columns=["query_id", "doc_id", "score"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"The task {name!r} cannot be read from {folder}: {error}. Remove the damaged file and restore it with "
            "`continual task add` or from a backup."
        ) from None
    qrels: dict[str, dict[str, int]] = {}
    for query, document, score in zip(*(column.to_pylist() for column in judgements.columns), strict=True):
        if query in queries:
            qrels.setdefault(query, {})[document] = score
    if not any(score > 0 for judged in qrels.values() for score in judged.values()):
        raise DataError(
            f"The task {name!r} in {folder} has no query with a relevant document, so it cannot be scored. Restore the "
            "folder from a backup, or leave the task out of suites.step and suites.release in continual.toml."
        )
    if sample != WHOLE:
        asked, kept = sampled_ids(corpus, [query for query in queries if query in qrels], qrels, sample)
        corpus = {name: text for name, text in corpus.items() if name in kept}
        queries = {name: text for name, text in queries.items() if name in asked}
        qrels = {name: judged for name, judged in qrels.items() if name in asked}
    return FolderTask(name, corpus, queries, qrels)


def sampled_ids(
    corpus: Iterable[str],
    queries: Iterable[str],
    qrels: Mapping[str, Mapping[str, int]],
    sample: Sample,
    ranked: Mapping[str, Iterable[str]] | None = None,
) -> tuple[set[str], set[str]]:
    """Return the ids of the queries and documents in a sample: those whose ids have the smallest hashes.

    Args:
        corpus: Ids of the documents.
        queries: Ids of the judged queries.
        qrels: Judgements by query id and document id.
        sample: How many to keep. All documents that a kept query has judgements on stay, even above the limit.
        ranked: The documents to rank in a reranking task, by query id; they are kept like judged ones.
    """
    queries = list(queries)
    asked = set(queries if sample.queries is None else first_by_hash(queries, sample.queries))
    corpus = set(corpus)
    given = {query: [*qrels[query], *(ranked or {}).get(query, ())] for query in asked}
    if isinstance(sample, HardSample):
        assert sample.hard is not None, "it is completed by `continual.eval.samples.samples_of`"
        hard = (document for query in asked for document in sample.hard.get(query, ())[: sample.documents])
        return asked, corpus & {*hard, *(document for documents in given.values() for document in documents)}
    if sample.documents is None:
        return asked, corpus
    kept = corpus & {document for documents in given.values() for document in documents}
    return asked, kept | set(first_by_hash(corpus - kept, max(0, sample.documents - len(kept))))


def _pairs(path: Path, key: str) -> dict[str, str]:
    table = pq.read_table(path, columns=[key, "text"])
    return dict(zip(table[key].to_pylist(), table["text"].to_pylist(), strict=True))
