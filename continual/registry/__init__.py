"""The registry: what was learned, from what, and which version is in service. Imports no torch."""

from continual.registry.records import (
    GIVEN_ONLY,
    INSTRUCTED,
    KINDS,
    RETRIEVAL,
    Alias,
    Batch,
    Domain,
    Leak,
    Run,
    Score,
    Task,
    Version,
)
from continual.registry.registry import Registry

__all__ = [
    "GIVEN_ONLY",
    "INSTRUCTED",
    "KINDS",
    "RETRIEVAL",
    "Alias",
    "Batch",
    "Domain",
    "Leak",
    "Registry",
    "Run",
    "Score",
    "Task",
    "Version",
]
