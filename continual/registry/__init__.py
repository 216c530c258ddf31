"""The registry: the records of domains, batches, tasks, versions, scores and aliases. It does not import torch."""

from continual.registry.provenance import Cost, Cuts, Provenance, TrainResult, Window
from continual.registry.records import (
    CURRENT,
    GIVEN_ONLY,
    GRADED,
    INSTRUCTED,
    KINDS,
    MTEB,
    RETRIEVAL,
    ROOT,
    Alias,
    Batch,
    Domain,
    Leak,
    Run,
    Score,
    Task,
    Version,
    VersionEntry,
)
from continual.registry.registry import Registry
from continual.registry.spec import Spec
from continual.registry.verdict import Change, Role, TaskChange, Verdict

__all__ = [
    "CURRENT",
    "GIVEN_ONLY",
    "GRADED",
    "INSTRUCTED",
    "KINDS",
    "MTEB",
    "RETRIEVAL",
    "ROOT",
    "Alias",
    "Batch",
    "Change",
    "Cost",
    "Cuts",
    "Domain",
    "Leak",
    "Provenance",
    "Registry",
    "Role",
    "Run",
    "Score",
    "Spec",
    "Task",
    "TaskChange",
    "TrainResult",
    "Verdict",
    "Version",
    "VersionEntry",
    "Window",
]
