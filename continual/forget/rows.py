"""Stored rows and reject files without the rows that are forgotten."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from continual.forget.scan import LEAST_BYTES, TEXT_COLUMNS
from continual.forget.select import READ_ROWS, Selection
from continual.registry import Batch
from continual.registry.text import clean, hash_text
from continual.stream.cells import shown
from continual.stream.ordered import FORMAT, GROUP_ROWS


@dataclass
class Removed:
    """What is removed of the stored rows.

    Attributes:
        hashes: Hashes of removed rows, by id of the batch; only batches that lose rows.
        texts: Their queries, positives and negatives. Ids of documents are not searched for: `17` is in any file.
    """

    hashes: dict[str, list[str]] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)


def find_rows(batch: Batch, file: Path, selection: Selection, removed: Removed) -> None:
    """Add the rows of a batch that the selection takes."""
    hashes: list[str] = []
    if selection.domain is not None and batch.domain != selection.domain:
        return
    with pq.ParquetFile(file) as opened:
        for piece in opened.iter_batches(READ_ROWS, use_threads=False):
            taken = piece.filter(_taken(batch, piece, selection))
            if not taken.num_rows:
                continue
            columns = taken.to_pydict()
            hashes += columns["row_hash"]
            removed.texts.update(columns["query"], columns["positive"], *columns["negatives"])
    if hashes:
        removed.hashes[batch.id] = hashes


def write_without(batch: Batch, file: Path, selection: Selection, target: Path) -> None:
    """Write the rows of a batch that stay, in their order."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetFile(file) as opened, pq.ParquetWriter(target, opened.schema_arrow, **FORMAT) as writer:
        for group in range(opened.num_row_groups):
            table = opened.read_row_group(group, use_threads=False)
            stays = [not taken for taken in _taken(batch, table, selection).to_pylist()]
            if any(stays):
                writer.write_table(table.filter(pa.array(stays, pa.bool_())), row_group_size=GROUP_ROWS)


def _taken(batch: Batch, rows: Any, selection: Selection) -> Any:
    keys = zip(rows["row_hash"].to_pylist(), rows["query_hash"].to_pylist(), strict=True)
    return pa.array([selection.takes(batch.domain, *each) for each in keys], pa.bool_())


def write_rejects(
    file: Path, selection: Selection, texts: Collection[str], columns: Collection[str] | None, target: Path
) -> tuple[int, int]:
    """Write the lines of a reject file that stay; return how many stay, and how many do not.

    Args:
        texts: Removed texts; a row with one of them is removed.
        columns: Columns that were read as texts: short texts are compared with these alone; None if that is unknown.
    """
    short = {str(shown(text)) for text in texts}
    kept = removed = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as output:
        for line in lines:
            data = json.loads(line).get("data")
            if _taken_reject(data, selection, short, columns):
                removed += 1
            else:
                kept += 1
                output.write(line)
    return kept, removed


def _taken_reject(data: Any, selection: Selection, texts: Collection[str], columns: Collection[str] | None) -> bool:
    if json.dumps(data, sort_keys=True) in selection.rejects:
        return True
    cells = data.items() if isinstance(data, dict) else [("", data)]
    return any(
        text in texts or clean(text) in texts or hash_text(_encodable(text)) == selection.query_hash
        for column, cell in cells
        for text in _strings(cell)
        if columns is None or column in columns or len(_encodable(text).encode()) >= LEAST_BYTES
    )


def text_columns(batch: Batch) -> set[str]:
    """Return the columns of a batch's file that were read as texts."""
    return {name for role in TEXT_COLUMNS for name in _strings(batch.columns.get(role) or [])}


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
