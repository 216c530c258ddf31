"""Search with the queries of one model in the index of another; mteb searches and scores as it does for one model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.types import PromptType

from continual.config import EvalConfig
from continual.eval.encoder import OnceEncoder, Vectors
from continual.eval.mteb_evaluate import evaluate_task
from continual.eval.mteb_tasks import (
    cut_to_sample,
    open_task,
    unload_task_data,
)
from continual.eval.run import own_randomness, quiet
from continual.eval.suites import (
    RANKED,
    WHOLE,
    Sample,
    instruction_of,
    trec_eval_measure,
)
from continual.eval.tasks import load_task
from continual.index.result import IndexedTask, overlap
from continual.progress import SILENT, Progress
from continual.registry.names import check_name
from continual.registry.records import Task

VectorMap = Callable[[Vectors], Vectors]
"""A map of query vectors, [queries, dimensions], to vectors of the same shape."""


@dataclass(frozen=True)
class Side:
    """A model that is compared.

    Attributes:
        version: Id of the version.
        sha256: Digest of its weights.
        folder: Its sentence-transformers folder.
        kept: File in which an evaluation may have left its vectors.
    """

    version: str
    sha256: str
    folder: Path
    kept: Path | None = None

    def encoder(
        self,
        config: EvalConfig,
        *,
        trust_remote_code: bool = False,
        instructed: Collection[str] = (),
        progress: Progress = SILENT,
    ) -> OnceEncoder:
        """Return its encoder."""
        with quiet():
            return OnceEncoder(
                self.folder,
                self.version,
                self.sha256,
                batch_size=config.batch_size,
                max_length=config.max_length,
                precision=config.precision,
                trust_remote_code=trust_remote_code,
                progress=progress,
                kept=self.kept,
                instructed=instructed,
            )


class Crossed:
    """Two models that mteb sees as one: the first encodes queries, the second documents.

    Args:
        queries: The model for queries.
        documents: The model for documents.
        query_map: Applied to query vectors, if given.
    """

    def __init__(self, queries: OnceEncoder, documents: OnceEncoder, query_map: VectorMap | None = None) -> None:
        self.queries, self.documents, self.query_map = queries, documents, query_map
        revisions = [encoder.mteb_model_meta.revision or "" for encoder in (queries, documents)]
        name = f"continual/{queries.version}-on-{documents.version}{'-mapped' if query_map else ''}"
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": name, "revision": "-".join(revisions)})

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **more: Any) -> Vectors:
        """Return the vectors of mteb's batches, float32, of shape [texts, dimensions]."""
        options = {"task_metadata": task_metadata, "prompt_type": prompt_type, **more}
        if prompt_type == PromptType.document:
            return self.documents.encode(inputs, **options)
        vectors = self.queries.encode(inputs, **options)
        return vectors if self.query_map is None else self.query_map(vectors)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the similarity of every pair by the index's model, [first, second]."""
        return self.documents.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the similarity row by row by the index's model, [rows]."""
        return self.documents.similarity_pairwise(embeddings1, embeddings2)


class _Watched(Crossed):
    """New queries on the old index; also records the cosine of each text's embeddings under both models."""

    def __init__(self, queries: OnceEncoder, documents: OnceEncoder) -> None:
        super().__init__(queries, documents)
        self.cosines: list[float] = []

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **more: Any) -> Vectors:
        """Encode under both models, and return the vectors that `Crossed` would."""
        options = {"task_metadata": task_metadata, "prompt_type": prompt_type, **more}
        batches = list(inputs)
        new, old = self.queries.encode(batches, **options), self.documents.encode(batches, **options)
        self.cosines += cosines(new, old).tolist()
        return old if prompt_type == PromptType.document else new


def cosines(first: Vectors, second: Vectors) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the cosine of every row of one matrix with the same row of another, [rows]."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = np.einsum("ij,ij->i", one, other)
    found: np.ndarray[Any, np.dtype[np.float64]] = products / np.where(norms > 0, norms, 1.0)
    return found


def comparable(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks that search an index: they rank documents, and their main score is a mean over queries."""
    return [task for task in tasks if task.task_type in RANKED and trec_eval_measure(task.metric) is not None]


def compare_indexes(
    old: OnceEncoder,
    new: OnceEncoder,
    tasks: Sequence[Task],
    registry_root: Path,
    *,
    samples: Mapping[str, Sample] | None = None,
    query_map: VectorMap | None = None,
    progress: Progress = SILENT,
) -> list[IndexedTask]:
    """Search every task with both models in the indexes of both.

    Args:
        old: The model that filled the index.
        new: The model whose queries search it.
        tasks: From `comparable`.
        registry_root: The `.continual` folder.
        samples: How much of each task is searched, by its name; others are searched whole.
        query_map: A map of new query vectors into the old space; its queries search too, if given.

    Raises:
        DataError: A task cannot be read.
        ModelError: A model gives numbers that are not finite.
    """
    found = []
    progress.start(
        f"comparing the indexes of {old.version} and {new.version}", None, "texts"
    )  # counted by the encoders
    for record in tasks:
        sample = (samples or {}).get(record.name, WHOLE)
        with quiet(), own_randomness():
            if record.mteb is None:
                task = load_task(check_name(record.name, "task"), registry_root / record.path, sample)
            else:
                task = open_task(record)
                cut_to_sample(task, sample)
            for encoder in (old, new):
                encoder.instruct(task.metadata, instruction_of(record))
            if record.mteb is None:
                _learn(task, old, new)
            found.append(_compare(old, new, task, record, query_map))
            if record.mteb is not None:
                unload_task_data(task)
    progress.finish()
    return found


def _learn(task: Any, *encoders: OnceEncoder) -> None:
    """Encode all texts of a local task at once, so that few batches are half full."""
    for encoder in encoders:
        for role, texts in task.texts.items():
            encoder.learn(role, texts, task.metadata)


def _compare(old: OnceEncoder, new: OnceEncoder, task: Any, record: Task, query_map: VectorMap | None) -> IndexedTask:
    watched = _Watched(new, old)
    new_on_old, _, _ = _search(watched, task, record)
    old_on_old, before, queries = _search(old, task, record)
    new_on_new, after, _ = _search(new, task, record)
    return IndexedTask(
        task=record.name,
        domain=record.domain,
        metric=record.metric,
        queries=queries,
        canary=float(np.mean(watched.cosines)),
        overlap=overlap(before, after),
        old_on_old=old_on_old,
        new_on_new=new_on_new,
        new_on_old=new_on_old,
        old_on_new=_search(Crossed(old, new), task, record)[0],
        mapped_on_old=None if query_map is None else _search(Crossed(new, old, query_map), task, record)[0],
    )


def _search(model: Any, task: Any, record: Task) -> tuple[float, dict[Any, list[str]], int]:
    """Return the main score in points, the first documents of every query, and the number of queries."""
    name = trec_eval_measure(record.metric)
    assert name is not None, record
    _, per_query = evaluate_task(model, task, 64)
    # As the main score of an evaluation: the mean over the subsets and splits of the mean over their queries.
    parts = [[query[name] for query in part.scores.values()] for part in per_query.values()]
    rankings = {(*place, query): first for place, part in per_query.items() for query, first in part.first.items()}
    return 100.0 * float(np.mean([np.mean(part) for part in parts])), rankings, sum(map(len, parts))
