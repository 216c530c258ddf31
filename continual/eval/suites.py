"""Suites: which tasks to score, how much of each, and the settings a score depends on. Doesn't import mteb."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from continual.config import Config, EvalConfig, SuitesConfig
from continual.errors import NotFoundError, did_you_mean
from continual.registry.records import PROBE, Task

SuiteName = Literal["step", "release", "probe", "corpus"]
"""A suite of the settings, or the tasks of the suite "step" in other samples: "probe", a small one each, or "corpus",
without pools."""

RANKED = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}
"""mteb's task types that rank documents for queries."""

MEASURES = {"ndcg_at": "ndcg_cut", "map_at": "map_cut", "recall_at": "recall", "precision_at": "P"}
"""trec_eval's names of mteb's metric families that are means over queries."""

TOP = 10
"""Number of documents kept from each query's ranking; of the root base's, more are kept where a pool needs them."""

SCORES = "scores"
"""The folder below `.continual/` for per-query scores."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of a task to score.

    Attributes:
        queries: Maximum number of queries; None means all.
        documents: Maximum number of documents; None means all. Documents that a kept query has judgements on always
            stay.
    """

    queries: int | None = None
    documents: int | None = None


WHOLE = Sample()


@dataclass(frozen=True, slots=True)
class HardSample(Sample):
    """A sample whose documents are hard ones. Those of all its queries are one corpus.

    Attributes:
        documents: Number of documents per query: the first that the root base finds, and those with judgements.
        hard: What the root base finds for each query, best first; the documents that it takes are the first of these.
    """

    hard: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True, slots=True)
class Probe(HardSample):
    """A small sample in which an update looks for falls.

    Attributes:
        corpus: Number of documents that the root base ranked, if the suite "step" limits them; None: all.
    """

    corpus: int | None = None


@dataclass(frozen=True, slots=True)
class Pool(HardSample):
    """The part of a large corpus that can be among the first documents of a version near the root base."""


def trec_eval_measure(metric: str) -> str | None:
    """Return trec_eval's name of an mteb metric, or None if trec_eval doesn't compute it as a mean over queries."""
    family, _, cut = metric.rpartition("_")
    return f"{MEASURES[family]}_{cut}" if family in MEASURES and cut.isdecimal() else None


def _cut_off(metric: str) -> int:
    return int(metric.rpartition("_")[2])


def sample_of(task: Task, suites: SuitesConfig, suite: SuiteName) -> Sample:
    """Return how much of a task a suite scores.

    Only tasks that rank documents and whose main score is a mean over queries are sampled; other metrics need all items
    or pairs of queries. A task that isn't larger than the sample is scored as a whole.

    The suite "step" scores a pool if it has at most half the texts of the whole corpus, but not of mteb's tasks: their
    queries may have few candidates each, or several subsets no common ranking. A probe has at most half the texts that
    the suite "step" scores; else it is what that scores. Probe and pool have no hard documents yet; see
    `continual.eval.samples.samples_of`.
    """
    if task.task_type not in RANKED or trec_eval_measure(task.metric) is None:
        return WHOLE
    chosen = suites.release if suite == "release" else suites.step
    step = Sample(_below(chosen.queries, task.queries), _below(chosen.documents, task.documents))
    if suite in ("release", "corpus"):
        return step
    depth = suites.step.pool
    if depth != "off" and task.mteb is None and step.documents is None and _cut_off(task.metric) <= depth:
        pool = Pool(step.queries, depth)
        step = pool if 2 * texts_of(task, pool) <= texts_of(task, step) else step
    if suite == "step":
        return step
    queries = _below(suites.probe.queries, step.queries or task.queries) or step.queries
    ranked = None if isinstance(step, Pool) else step.documents
    probe = Probe(queries, suites.probe.documents, corpus=ranked)
    return probe if 2 * texts_of(task, probe) <= texts_of(task, step) else step


def _below(limit: int | None, count: int) -> int | None:
    return limit if limit is not None and limit < count else None


def texts_of(task: Task, sample: Sample) -> int:
    """Return how many texts of a task are in a sample, about: judged documents above the limit are not counted."""
    queries, documents = min(task.queries, sample.queries or task.queries), sample.documents or task.documents
    if isinstance(sample, HardSample):
        documents = round(queries * (documents + task.judgements / max(1, task.queries)))
    return queries + min(task.documents, documents)


def instruction_of(task: Task) -> str | None:
    """Return the instruction for a task's queries; None if they use the model's own prompt."""
    return task.instruction if task.task_type in RANKED else None


def score_settings(config: EvalConfig, sample: Sample = WHOLE, instruction: str | None = None) -> str:
    """Return the settings a score depends on, besides model and task; only scores with equal settings are comparable.

    An instruction is represented by the first eight digits of its sha256.
    """
    settings = f"max_length={config.max_length or 'model'}"
    if config.precision != "fp32":
        settings += f", precision={config.precision}"
    if sample != WHOLE:
        kind = PROBE if isinstance(sample, Probe) else ", pool" if isinstance(sample, Pool) else ""
        settings += f"{kind}, queries={sample.queries or 'all'}, documents={sample.documents or 'all'}"
        if isinstance(sample, Probe) and sample.corpus is not None:
            settings += f" of {sample.corpus}"
    if instruction is not None:
        settings += f", instruction={hashlib.sha256(instruction.encode()).hexdigest()[:8]}"
    return settings


def suite_settings(tasks: Iterable[Task], config: Config, suite: SuiteName) -> dict[str, str]:
    """Return the settings of each task's score in a suite, by task name."""
    return {
        task.name: score_settings(config.eval, sample_of(task, config.suites, suite), instruction_of(task))
        for task in tasks
    }


def suite_tasks(tasks: Sequence[Task], config: Config, suite: SuiteName) -> list[Task]:
    """Return the tasks of a suite, in the order of registration.

    Raises:
        NotFoundError: The suite names a task that is not registered. A pattern may match no task.
    """
    chosen = config.suites.release if suite == "release" else config.suites.step
    names = [task.name for task in tasks]
    for pattern in chosen.tasks:
        if pattern not in names and not any(mark in pattern for mark in "*?["):
            raise NotFoundError(
                f"suites.{suite} in continual.toml names the task {pattern!r}, which is not registered."
                f"{did_you_mean(pattern, names)} `continual task list` shows the registered tasks."
            )
    return [task for task in tasks if any(_matches(task.name, pattern) for pattern in chosen.tasks)]


def first_by_hash(ids: Iterable[str], count: int) -> list[str]:
    """Return the `count` ids with the smallest sha256: a sample that doesn't depend on machine or order."""
    return sorted(ids, key=lambda item: hashlib.sha256(item.encode()).digest())[:count]


def score_path(version: str, task: str, settings: str) -> Path:
    """Return the file of per-query scores, relative to `.continual/`; each settings string has its own file."""
    folder = Path(SCORES) / version
    if settings != DEFAULT_SETTINGS:
        folder /= hashlib.sha256(settings.encode()).hexdigest()[:8]
    return folder / f"{task}.parquet"


DEFAULT_SETTINGS = score_settings(EvalConfig())


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)
