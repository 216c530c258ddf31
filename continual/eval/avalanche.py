"""Our scores inside Avalanche's evaluation, so that its forgetting and backward transfer are of nDCG@10.

Needs the extra `avalanche`; see docs/avalanche.md.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

# First: it declares what Avalanche's imports need.
from continual.stream.avalanche import TaskExperience, WorkspaceBenchmark

# isort: split
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from avalanche.evaluation.metrics import GenericStreamForgetting

from continual.config import EvalConfig
from continual.errors import InputError
from continual.eval.metrics import METRICS, Learned, Matrix
from continual.eval.run import score_tasks
from continual.registry.registry import Registry
from continual.train.pairs import PairEncoder


class RetrievalScores(PluginMetric[float]):  # type: ignore[misc]
    """Points of a strategy's model on every task of the test stream, as `continual update` scores a version.

    Each call of `strategy.eval` is a row of the R matrix, so evaluate the whole test stream before the first
    experience and after each: row 0 is the model before it learned anything, as in our reports.

    Args:
        benchmark: Whose test stream is evaluated.
        config: Batch size and token limit: `workspace.config.eval`.
    """

    def __init__(self, benchmark: WorkspaceBenchmark, config: EvalConfig | None = None) -> None:
        super().__init__()
        self._registry: Registry = benchmark.registry
        self._config = config or EvalConfig()
        self._places = {
            task.name: experience.current_experience
            for experience in benchmark.test_stream
            for task in experience.tasks
        }
        self._steps = len(benchmark.train_stream)
        self._rows: list[dict[str, float]] = []

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks: the columns of the matrix."""
        return list(self._places)

    @property
    def matrix(self) -> Matrix:
        """R so far, in points, of shape [evaluations, tasks]; NaN where a task was not evaluated."""
        return np.array([[row.get(task, np.nan) for task in self.tasks] for row in self._rows], dtype=np.float64)

    @property
    def learned(self) -> Learned:
        """Row of the matrix after the experience that first learned each task's domain; None: out of domain."""
        return [place + 1 if place < self._steps else None for place in self._places.values()]

    def metrics(self) -> dict[str, float]:
        """Return our ACC, BWT, FWT and forgetting after the last evaluation; see docs/metrics.md."""
        return {name: metric(self.matrix, self.learned) for name, metric in METRICS.items()}

    def score(self, strategy: Any) -> float:
        """Return the mean points of the current row over the tasks of the experience that is evaluated.

        Raises:
            InputError: The strategy trains no `PairEncoder`, or one with adapters, or evaluates another benchmark's
                experience.
        """
        experience, row = strategy.experience, self._rows[-1]
        if not isinstance(experience, TaskExperience) or not isinstance(strategy.model, PairEncoder):
            raise InputError(
                "Retrieval is scored for a PairEncoder on experiences of a WorkspaceBenchmark's test_stream; this is a "
                f"{type(strategy.model).__name__} on a {type(experience).__name__}."
            )
        if any(type(module).__module__.startswith("peft.") for module in strategy.model.modules()):
            raise InputError(
                "The model has adapters on its layers, and would be saved under names that nothing loads. Train the "
                "weights themselves, or merge the adapters in before an evaluation."
            )
        if any(task.name not in row for task in experience.tasks):
            with TemporaryDirectory() as name:
                folder = Path(name)
                strategy.model.model.save_pretrained(str(folder / "model"), create_model_card=False)
                # The tasks' own folders, though the per-query values go with the temporary one.
                tasks = [
                    dataclasses.replace(task, path=str(self._registry.path(task.path).resolve()))
                    for task in experience.tasks
                ]
                found = score_tasks(folder / "model", "strategy", "unrecorded", tasks, folder, self._config)
            row |= {score.task: score.score for score in found}
        return float(np.mean([row[task.name] for task in experience.tasks]))

    def before_eval(self, strategy: Any) -> None:
        """Begin a row."""
        super().before_eval(strategy)
        self._rows.append({})

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        """Score the tasks of an experience."""
        super().after_eval_exp(strategy)
        name = get_metric_name(self, strategy, add_experience=True)
        return [MetricValue(self, name, self.score(strategy), strategy.clock.train_iterations)]

    def result(self) -> float:
        """Return the mean of the current row."""
        return float(np.mean(list(self._rows[-1].values()))) if self._rows and self._rows[-1] else float("nan")

    def reset(self) -> None:
        """Do nothing: Avalanche's metrics reset a current value, and this one keeps all rows."""

    def __str__(self) -> str:
        return "Points"


class RetrievalForgetting(GenericStreamForgetting):  # type: ignore[misc]
    """Avalanche's forgetting of these scores: right after learning, minus now; its mean over the experiences."""

    def __init__(self, scores: RetrievalScores) -> None:
        super().__init__(scores)

    def metric_update(self, strategy: Any) -> None:
        """Do nothing: a ranking is scored once an experience, not batch by batch."""

    def metric_result(self, strategy: Any) -> float:
        """Return the points on the experience that was evaluated."""
        return float(self._current_metric.score(strategy))

    def __str__(self) -> str:
        return "StreamForgetting_Points"


class RetrievalBWT(RetrievalForgetting):
    """Avalanche's backward transfer of these scores: its forgetting with the other sign."""

    def exp_result(self, k: int) -> float | None:
        """Return the backward transfer of an experience, or None before it was evaluated again."""
        forgetting = super().exp_result(k)
        return None if forgetting is None else -forgetting

    def __str__(self) -> str:
        return "StreamBWT_Points"


def retrieval_metrics(
    benchmark: WorkspaceBenchmark, config: EvalConfig | None = None
) -> tuple[RetrievalScores, RetrievalForgetting, RetrievalBWT]:
    """Return the metrics for an `EvaluationPlugin`, which score a model once for all of them.

    Args:
        benchmark: Whose test stream is evaluated.
        config: Batch size and token limit: `workspace.config.eval`.
    """
    scores = RetrievalScores(benchmark, config)
    return scores, RetrievalForgetting(scores), RetrievalBWT(scores)
