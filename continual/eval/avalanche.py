"""Our retrieval scores as Avalanche metrics, so that its forgetting and backward transfer are measured in nDCG@10.

Requires the extra `avalanche`; see docs/avalanche.md.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

# Must come first: it declares what Avalanche's imports need.
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
from continual.registry import Registry
from continual.train.pairs import PairEncoder


class RetrievalScores(PluginMetric[float]):  # type: ignore[misc]
    """Score a strategy's model on every task of the test stream, the way `continual update` scores a version.

    Each call of `strategy.eval` adds a row to the R matrix. Evaluate the whole test stream before the first experience
    and after each one: row 0 is the untrained model, as in our reports.

    Args:
        benchmark: The benchmark whose test stream is evaluated.
        config: Batch size and token limit, such as `workspace.config.eval`.
    """

    def __init__(self, benchmark: WorkspaceBenchmark, config: EvalConfig | None = None) -> None:
        super().__init__()
        self._registry: Registry = benchmark.registry
        self._config = config or EvalConfig()
        self._experiences = {
            task.name: experience.current_experience
            for experience in benchmark.test_stream
            for task in experience.tasks
        }
        self._steps = len(benchmark.train_stream)
        self._rows: list[dict[str, float]] = []

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the matrix's columns."""
        return list(self._experiences)

    @property
    def matrix(self) -> Matrix:
        """R so far: points, of shape [evaluations, tasks]; NaN where a task was not evaluated."""
        return np.array([[row.get(task, np.nan) for task in self.tasks] for row in self._rows], dtype=np.float64)

    @property
    def learned(self) -> Learned:
        """Row of the matrix after the experience that first learned each task's domain; None if out of domain."""
        return [number + 1 if number < self._steps else None for number in self._experiences.values()]

    def metrics(self) -> dict[str, float]:
        """Return our metrics (ACC, BWT, FWT, forgetting, retained) after the last evaluation; see docs/metrics.md."""
        return {name: metric(self.matrix, self.learned) for name, metric in METRICS.items()}

    def score(self, strategy: Any) -> float:
        """Return the mean points over the tasks of the experience under evaluation.

        Raises:
            InputError: The model is not a `PairEncoder` or has adapters, or the experience is not from a
                `WorkspaceBenchmark`.
        """
        experience, row = strategy.experience, self._rows[-1]
        if not isinstance(experience, TaskExperience) or not isinstance(strategy.model, PairEncoder):
            raise InputError(
                "Retrieval scores need a PairEncoder and an experience of a WorkspaceBenchmark's test_stream, not a "
                f"{type(strategy.model).__name__} and a {type(experience).__name__}. Wrap the model in PairEncoder and "
                "pass benchmark.test_stream to strategy.eval."
            )
        if any(type(module).__module__.startswith("peft.") for module in strategy.model.modules()):
            raise InputError(
                "The model has PEFT adapters on its layers, so its weights would be saved under names that "
                "sentence-transformers can't load. Train the weights directly, or merge the adapters before evaluation."
            )
        if any(task.name not in row for task in experience.tasks):
            with TemporaryDirectory() as name:
                folder = Path(name)
                strategy.model.model.save_pretrained(str(folder / "model"), create_model_card=False)
                # Absolute task paths: the per-query scores are written below the temporary folder and dropped with it.
                tasks = [
                    dataclasses.replace(task, path=str(self._registry.path(task.path).resolve()))
                    for task in experience.tasks
                ]
                scores = score_tasks(folder / "model", "strategy", "unrecorded", tasks, folder, self._config)
            row |= {score.task: score.score for score in scores}
        return float(np.mean([row[task.name] for task in experience.tasks]))

    def before_eval(self, strategy: Any) -> None:
        """Start a new row of the matrix."""
        super().before_eval(strategy)
        self._rows.append({})

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        """Return the score of the experience as Avalanche's metric value."""
        super().after_eval_exp(strategy)
        name = get_metric_name(self, strategy, add_experience=True)
        return [MetricValue(self, name, self.score(strategy), strategy.clock.train_iterations)]

    def result(self) -> float:
        """Return the mean of the current row."""
        return float(np.mean(list(self._rows[-1].values()))) if self._rows and self._rows[-1] else float("nan")

    def reset(self) -> None:
        """Do nothing: the matrix keeps all rows."""

    def __str__(self) -> str:
        return "Points"


class RetrievalForgetting(GenericStreamForgetting):  # type: ignore[misc]
    """Avalanche's forgetting of these scores: right after learning minus now, as a mean over the experiences."""

    def __init__(self, scores: RetrievalScores) -> None:
        super().__init__(scores)

    def metric_update(self, strategy: Any) -> None:
        """Do nothing: a ranking is scored once per experience, not batch by batch."""

    def metric_result(self, strategy: Any) -> float:
        """Return the points on the evaluated experience."""
        return float(self._current_metric.score(strategy))

    def __str__(self) -> str:
        return "StreamForgetting_Points"


class RetrievalBWT(RetrievalForgetting):
    """Avalanche's backward transfer of these scores: the negative of its forgetting."""

    def exp_result(self, k: int) -> float | None:
        """Return the backward transfer of an experience, or None before its second evaluation."""
        forgetting = super().exp_result(k)
        return None if forgetting is None else -forgetting

    def __str__(self) -> str:
        return "StreamBWT_Points"


def retrieval_metrics(
    benchmark: WorkspaceBenchmark, config: EvalConfig | None = None
) -> tuple[RetrievalScores, RetrievalForgetting, RetrievalBWT]:
    """Return the metrics for an `EvaluationPlugin`. They share their scores, so the model is scored only once.

    Args:
        benchmark: The benchmark whose test stream is evaluated.
        config: Batch size and token limit, such as `workspace.config.eval`.
    """
    scores = RetrievalScores(benchmark, config)
    return scores, RetrievalForgetting(scores), RetrievalBWT(scores)
