"""Scores as mteb keeps them on disk: `results/MODEL/REVISION/TASK.json`, beside a `model_meta.json`.

A task of ours is no task of mteb's, even where it has the name of one, so it is called `continual_NAME` here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mteb import ResultCache
from mteb.models import ModelMeta
from mteb.results import TaskResult

from continual.registry import (
    Registry,
    Score,
    Task,
    Version,
)
from continual.storage.files import publish

META = "model_meta.json"
PREFIX = "continual_"

SPLIT, SUBSET, LANGUAGES = "test", "default", ["und-Zyyy"]


def write_results(registry: Registry, versions: Iterable[Version], folder: Path) -> list[Path]:
    """Write the scores of versions, those of one version as a whole.

    Args:
        registry: The workspace's registry.
        versions: Whose scores; one without any is passed over.
        folder: `mteb.ResultCache(folder).load_results()` reads it. What it has of these versions is replaced, and
            other models are left alone.

    Returns:
        The folders that were written, one a version.
    """
    tasks, scores = registry.tasks(), registry.scores()
    cache = ResultCache(folder)
    written = []
    for version in versions:
        results = [
            _result(version, task, scores[version.id, task.name]) for task in tasks if (version.id, task.name) in scores
        ]
        if not results:
            continue
        meta = ModelMeta.create_empty(overwrites={"name": f"continual/{version.id}", "revision": version.sha256})
        place = Path(cache.get_task_result_path("any", meta)).parent
        with publish(place) as partial:
            partial.mkdir()
            (partial / META).write_text(json.dumps(meta.to_dict(), default=str, indent=2) + "\n", encoding="utf-8")
            for result in results:
                result.to_disk(partial / f"{result.task_name}.json")
        written.append(place)
    return written


def _result(version: Version, task: Task, score: Score) -> Any:
    """Return a score of ours, points, as mteb's result of a task, 0 to 1."""
    values = {score.metric: score.score, "main_score": score.score, **score.details}
    known = version.provenance.libraries.get("mteb", "unknown")
    return TaskResult(
        dataset_revision=task.sha256,
        task_name=f"{PREFIX}{task.name}",
        mteb_version=None if known == "unknown" else known,
        scores={
            SPLIT: [
                {name: value / 100 for name, value in values.items()} | {"hf_subset": SUBSET, "languages": LANGUAGES}
            ]
        },
        evaluation_time=None,
        date=version.created_at,
    )
