"""The gate's decision on a version, as stored in the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from continual.registry.schema import read_record

SCHEMA = 1

Role = Literal["new", "learned", "again", "OOD", "leaked"]
"""Role of a task in a step. The lineage learns the domain of the task in this step (new), learned it before (learned),
does both (again), or neither (OOD). A leaked task is like an OOD task, but the lineage was trained on some of its texts
before the task was registered."""


@dataclass(frozen=True)
class Change:
    """Change of a score against the parent, in points.

    Attributes:
        difference: The new version's score minus the parent's.
        low: Lower end of the confidence interval; None without scores per query.
        high: Upper end of the confidence interval.
        adjusted: One-sided p-value, adjusted for all comparisons of the verdict, that the gate decides by; None if the
            gate does not test this change.
    """

    difference: float
    low: float | None = None
    high: float | None = None
    adjusted: float | None = None


@dataclass(frozen=True)
class TaskChange(Change):
    """Change of a task's score against the parent.

    Attributes:
        role: Role of the task in the step.
        new: Score of the new version, in points.
        old: Score of the parent, in points.
        p: Two-sided p-value of the permutation test.
        probe: Whether the scores are those of a probe, a small sample of the task.
        since: The version before the parent that `old` is the score of; None if it is the parent's.
    """

    role: Role = "OOD"
    new: float = 0.0
    old: float = 0.0
    p: float | None = None
    probe: bool = False
    since: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The gate's decision.

    Attributes:
        passed: Whether the version may become the current version.
        reasons: One sentence per broken limit; if no limit is broken, one per limit.
        gain: Mean change over the tasks of the new domains; None without such a task.
        worst: Task with the smallest change among those of the domains learned before; None without such a task.
        ood: Mean change over the OOD tasks; None without such a task.
        limits: Limits by name, in points (`false_alarms` is a share).
        confidence: Confidence level of the intervals.
        comparisons: Number of p-values that were adjusted together.
        tasks: Change on every compared task.
    """

    passed: bool
    reasons: list[str]
    gain: Change | None = None
    worst: str | None = None
    ood: Change | None = None
    limits: dict[str, float] = field(default_factory=dict)
    confidence: float = 0.95
    comparisons: int = 0
    tasks: dict[str, TaskChange] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data with its schema number."""
        return {"schema": SCHEMA} | asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> Verdict:
        """Return the verdict that `to_json` wrote, or that 0.1.0 wrote without a schema number.

        Raises:
            SchemaError: A newer `continual` wrote it, or it is damaged.
        """
        return read_record(_adapter(), data, "verdict", SCHEMA, _upgraded)


def _upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict without a schema number in the form of schema 1."""
    figures = dict(data.get("figures", {}))
    tasks = {
        name: {"role" if key == "kind" else key: value for key, value in task.items()}
        for name, task in figures.get("tasks", {}).items()
    }
    worst = figures.get("worst")
    return {
        **{key: value for key, value in figures.items() if key not in ("tasks", "worst")},
        "passed": data["passed"],
        "reasons": data["reasons"],
        "worst": None if worst is None else worst["task"],
        "tasks": tasks,
    }


@cache
def _adapter() -> TypeAdapter[Verdict]:
    return TypeAdapter(Verdict)
