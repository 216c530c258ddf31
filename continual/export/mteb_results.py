"""Write scores in mteb's format: `results/MODEL/REVISION/TASK.json`, beside a `model_meta.json`.

A task of the workspace is named `continual_NAME` there, so that it isn't confused with a task of mteb.
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
    """Write the scores of versions; a version's results appear all at once.

    Args:
        versions: Versions without scores are skipped.
        folder: A folder for `mteb.ResultCache(folder).load_results()`. Earlier results of these versions are replaced;
            other models' results stay.

    Returns:
        One folder per written version.
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
        target = Path(cache.get_task_result_path("any", meta)).parent
        with publish(target) as partial:
            partial.mkdir()
            (partial / META).write_text(json.dumps(meta.to_dict(), default=str, indent=2) + "\n", encoding="utf-8")
            for result in results:
                result.to_disk(partial / f"{result.task_name}.json")
        written.append(target)
    return written


def _result(version: Version, task: Task, score: Score) -> Any:
    """Return a score, in points, as mteb's task result, 0 to 1."""
    values = {score.metric: score.score, "main_score": score.score, **score.details}
    mteb_version = version.provenance.libraries.get("mteb", "unknown")
    return TaskResult(
        dataset_revision=task.sha256,
        task_name=f"{PREFIX}{task.name}",
        mteb_version=None if mteb_version == "unknown" else mteb_version,
        scores={
            SPLIT: [
                {name: value / 100 for name, value in values.items()} | {"hf_subset": SUBSET, "languages": LANGUAGES}
            ]
        },
        evaluation_time=None,
        date=version.created_at,
    )
