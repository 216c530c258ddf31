"""Empty registries, and records for them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from continual.registry import Batch, Provenance, Registry, Verdict, Version
from continual.registry.catalog import Catalog, now


def empty_registry(folder: Path, **options: float) -> Registry:
    """Make a registry with nothing in it; the options are those of `Registry`."""
    registry = Registry(folder / ".continual", **options)
    registry.root.mkdir(parents=True)
    registry.catalog.path.write_bytes(_empty_catalog())
    return registry


@cache
def _empty_catalog() -> bytes:
    """Return an empty catalog's bytes: applying all migrations takes a hundred times longer than writing them."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(Path(folder) / "catalog.duckdb")
        catalog.create()
        return catalog.path.read_bytes()


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
