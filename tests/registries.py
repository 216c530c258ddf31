"""Records for registries."""

from __future__ import annotations

from continual.registry import Batch, Provenance, Verdict, Version
from continual.registry.catalog import now


def version(name: str, parent: str | None = None, batches: list[str] | None = None) -> Version:
    return Version(
        id=name,
        parent=parent,
        status="accepted" if parent else "root",
        path=f"versions/{name}",
        adapter=None,
        sha256="0" * 64,
        batches=batches or [],
        pairs_trained=10,
        tokens_trained=100,
        seconds=1.5,
        joint_pairs=20,
        provenance=Provenance(merge="interpolate"),
        verdict=Verdict(passed=True, reasons=[]) if parent else None,
        created_at=now(),
    )


def batch(domain: str, name: str = "b1") -> Batch:
    return Batch(name, domain, "f", "s", "data/x", 10, 8, 1, 0, 0, 1, None, {}, now())
