"""Specification of a step, fixed before the step begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from continual.errors import SchemaError
from continual.registry.provenance import Provenance


@dataclass(frozen=True)
class Spec:
    """Everything that decides the result of a step.

    It is stored with the run, so that a killed step resumes to the same weights.

    Attributes:
        version: Id of the version that the step makes.
        parent: The version that was current when the step began.
        batches: Ids of the batches to learn.
        tasks: Names of the evaluation tasks of the suite `step`, which the gate compares.
        joint_pairs: Training pairs of one training on all batches of the lineage.
        provenance: The part of the version's provenance that is decided before the training.
    """

    version: str
    parent: str
    batches: list[str]
    tasks: list[str]
    joint_pairs: int
    provenance: Provenance

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain data."""
        return {
            "version": self.version,
            "parent": self.parent,
            "batches": self.batches,
            "tasks": self.tasks,
            "joint_pairs": self.joint_pairs,
            "provenance": self.provenance.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the spec from what `to_json` returns, or from the flat form of `continual` 0.1.0.

        Raises:
            SchemaError: A newer `continual` wrote the provenance, or it is damaged.
        """
        try:
            return cls(
                version=data["version"],
                parent=data["parent"],
                batches=list(data["batches"]),
                tasks=list(data["tasks"]),
                joint_pairs=data["joint_pairs"],
                provenance=Provenance.from_json(data.get("provenance", data)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise SchemaError(
                f"The spec of an update is damaged: {type(error).__name__}: {error}. Restore the catalog from a backup."
            ) from None
