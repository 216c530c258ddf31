"""Files of rows, and what an ingest makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from continual.config import IngestConfig
from continual.registry import Registry
from continual.stream import IngestReport
from tests.registries import empty_registry

CONFIG = IngestConfig()


def new_registry(folder: Path) -> Registry:
    return empty_registry(folder, busy_seconds=0.0)


def write_rows(path: Path, rows: list[dict[str, object]], **options: object) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, **options)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def stored(registry: Registry, batch: str | None) -> list[dict[str, object]]:
    record = next(each for each in registry.batches() if each.id == batch)
    return pq.read_table(registry.path(record.path)).to_pylist()


def task_rows(registry: Registry, name: str) -> dict[str, list[dict[str, object]]]:
    folder = registry.path(f"tasks/{name}")
    return {
        part: pq.read_table(folder / f"{part}.parquet").to_pylist() for part in ("corpus", "queries", "qrels", "keys")
    }


def balanced(report: IngestReport) -> bool:
    return report.rows_in == report.kept + report.duplicates + report.leaked + report.rejected + report.held_out


def state(registry: Registry) -> tuple[object, ...]:
    """Everything that an ingest could change: the catalog's records, and the files below `.continual`."""
    files = {str(path): path.stat().st_size for path in registry.root.rglob("*") if path.is_file()}
    lasting = {
        path: size
        for path, size in files.items()
        if not any(name in path for name in ("catalog", "lock", "checked.json"))
    }
    return registry.domains(), registry.batches(), registry.tasks(), lasting
