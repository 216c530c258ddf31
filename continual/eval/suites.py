"""Suites: which tasks are scored when, how much of each, and what a score depends on. Imports no mteb."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from continual.config import Config, EvalConfig, SuiteConfig
from continual.errors import NotFoundError, did_you_mean
from continual.registry.records import Task

SuiteName = Literal["step", "release"]

RANKED = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}
"""mteb's types of tasks that rank documents for queries."""

MEASURES = {"ndcg_at": "ndcg_cut", "map_at": "map_cut", "recall_at": "recall", "precision_at": "P"}
"""mteb's families of metrics that are means over queries, and trec_eval's names for them."""

SCORES = "scores"
"""The folder below `.continual/` that holds per-query values."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of a task is scored; None: all of it.

    Attributes:
        queries: Queries, at most.
        documents: Documents in the corpus, at most; the ones that the queries are judged on are kept in any case.
    """

    queries: int | None = None
    documents: int | None = None


WHOLE = Sample()


def trec_eval_measure(metric: str) -> str | None:
    """Return trec_eval's name of a metric of mteb, or None if it is no mean over queries that trec_eval computes."""
    family, _, cut = metric.rpartition("_")
    return f"{MEASURES[family]}_{cut}" if family in MEASURES and cut.isdecimal() else None


def sample_of(task: Task, suite: SuiteConfig) -> Sample:
    """Return how much of a task a suite scores.

    Only what ranks documents, with a main score that is a mean over queries, is sampled: other metrics need all items
    or pairs of queries. A task that is no larger than the sample is scored whole, and its score is that of the whole.
    """
    if task.task_type not in RANKED or trec_eval_measure(task.metric) is None:
        return WHOLE
    queries = suite.queries if suite.queries is not None and suite.queries < task.queries else None
    documents = suite.documents if suite.documents is not None and suite.documents < task.documents else None
    return Sample(queries, documents)


def instruction_of(task: Task) -> str | None:
    """Return what is put before the queries of a task; None where they have the model's own prompt."""
    return task.instruction if task.task_type in RANKED else None


def score_settings(config: EvalConfig, sample: Sample = WHOLE, instruction: str | None = None) -> str:
    """Return what a score depends on besides model and task: scores of other settings cannot be compared.

    An instruction is named by the start of its sha256.
    """
    settings = f"max_length={config.max_length or 'model'}"
    if sample != WHOLE:
        settings += f", queries={sample.queries or 'all'}, documents={sample.documents or 'all'}"
    if instruction is not None:
        settings += f", instruction={hashlib.sha256(instruction.encode()).hexdigest()[:8]}"
    return settings


def suite_settings(tasks: Iterable[Task], config: Config, suite: SuiteName) -> dict[str, str]:
    """Return the settings of each task's score in a suite, by task."""
    chosen: SuiteConfig = getattr(config.suites, suite)
    return {task.name: score_settings(config.eval, sample_of(task, chosen), instruction_of(task)) for task in tasks}


def suite_tasks(tasks: Sequence[Task], config: Config, suite: SuiteName) -> list[Task]:
    """Return the tasks of a suite in the order of their registration.

    Raises:
        NotFoundError: The suite names a task that is not registered; a pattern may match nothing.
    """
    chosen: SuiteConfig = getattr(config.suites, suite)
    names = [task.name for task in tasks]
    for pattern in chosen.tasks:
        if pattern not in names and not any(mark in pattern for mark in "*?["):
            raise NotFoundError(
                f"The suite suites.{suite} in continual.toml names the task {pattern!r}, and there is none."
                f"{did_you_mean(pattern, names)} `continual task list` shows them."
            )
    return [task for task in tasks if any(_matches(task.name, pattern) for pattern in chosen.tasks)]


def first_by_hash(ids: Iterable[str], count: int) -> list[str]:
    """Return the `count` ids whose sha256 is smallest: a sample that is the same on every machine and in any order."""
    return sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def score_path(version: str, task: str, settings: str) -> Path:
    """Return where per-query values are, relative to `.continual/`: a place of its own for each settings."""
    folder = Path(SCORES) / version
    if settings != DEFAULT_SETTINGS:
        folder /= hashlib.sha256(settings.encode()).hexdigest()[:8]
    return folder / f"{task}.parquet"


DEFAULT_SETTINGS = score_settings(EvalConfig())


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)
