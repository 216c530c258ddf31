"""The gate's decision on a version, as it is stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from continual.errors import SchemaError

SCHEMA = 1

Role = Literal["new", "learned", "again", "OOD", "leaked"]
"""What a task is to a step. Its domain was learned in this step (new), before it (learned), or both (again), or in
neither (OOD). A leaked task belongs to no learned domain, but the lineage trained on rows that are in it, before the
task was known."""


@dataclass(frozen=True)
class Change:
    """A difference against the parent, in points.

    Attributes:
        difference: The new version's score minus the parent's.
        low: Lower end of its interval; None without scores per query.
        high: Upper end.
        adjusted: The one-sided p-value that decides, adjusted for all comparisons of the verdict; None if the gate
            does not test it.
    """

    difference: float
    low: float | None = None
    high: float | None = None
    adjusted: float | None = None


@dataclass(frozen=True)
class TaskChange(Change):
    """The change on one task.

    Attributes:
        role: What the task is to the step.
        new: The new version's score, in points.
        old: The parent's.
        p: Two-sided p-value of the permutation test.
    """

    role: Role = "OOD"
    new: float = 0.0
    old: float = 0.0
    p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The gate's decision.

    Attributes:
        passed: Whether the version may become the current version.
        reasons: One sentence per limit: those that were broken if any was, otherwise those that held.
        gain: Mean change over the tasks of the domains just learned; None without such a task.
        worst: The task learned before that fell most, or rose least; None without such a task.
        ood: Mean change over the OOD tasks; None without such a task.
        limits: The limits by name, in points (`false_alarms` is a share).
        confidence: Level of the intervals.
        comparisons: How many p-values were adjusted together.
        tasks: The change on every compared task.
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
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Return the verdict that `to_json`, or a version of `continual` before there was a schema number, wrote.

        Raises:
            SchemaError: A newer `continual` wrote it, or it is not a verdict.
        """
        schema = data.get("schema", 0)
        if not isinstance(schema, int) or schema > SCHEMA:
            raise SchemaError(
                f"The verdict on a version has schema {schema}, and this continual reads up to {SCHEMA}. Install the "
                "newer continual that wrote it."
            )
        try:
            return _adapter().validate_python(data if schema else _upgraded(data))
        except (ValidationError, KeyError, TypeError) as error:
            raise SchemaError(
                f"The verdict on a version is damaged: {error}. Restore the catalog from a backup."
            ) from None


def _upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict from before there was a schema number in today's form."""
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
