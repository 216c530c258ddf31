"""What a step will do, fixed before it does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from continual.registry.provenance import Provenance


@dataclass(frozen=True)
class Spec:
    """Everything that decides a step. It is stored with the run, so that a killed step continues to the same weights.

    Attributes:
        version: Id that the step's version will have.
        parent: The version that was current when the step began.
        batches: Ids of the batches that are learned.
        tasks: Names of the evaluation tasks of the suite `step`; the gate judges the step on these.
        joint_pairs: Pairs that retraining on the whole lineage would train.
        provenance: How the version will be made, as far as it is decided before the training.
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
        """Return the spec that `to_json` wrote, or that 0.1.0 wrote with all keys on one level.

        Raises:
            SchemaError: A newer `continual` wrote its provenance, or it is damaged.
        """
        return cls(
            version=data["version"],
            parent=data["parent"],
            batches=list(data["batches"]),
            tasks=list(data["tasks"]),
            joint_pairs=data["joint_pairs"],
            provenance=Provenance.from_json(data.get("provenance", data)),
        )
