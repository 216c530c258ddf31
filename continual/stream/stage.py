"""The first pass: check every row. Good rows go to a staging file with their hashes, bad ones to a reject file."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from continual.config import IngestConfig
from continual.progress import Progress
from continual.registry.text import (
    SEPARATOR,
    clean,
    fault,
    hash_normalised,
    normalise,
)
from continual.stream.readers.base import Piece, Source
from continual.stream.schema import Mapping

# Columns of a stored training row.
BATCH_SCHEMA = pa.schema(
    [
        pa.field("row_hash", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("positive", pa.string(), nullable=False),
        pa.field("negatives", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("query_hash", pa.string(), nullable=False),
        pa.field("positive_hash", pa.string(), nullable=False),
    ]
)
# A staged row also has its position in the file, the document that it is held out with, and its rank among equal pairs.
STAGED_SCHEMA = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        *BATCH_SCHEMA,
        pa.field("document_hash", pa.string(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
    ]
)
SHOWN_CHARS = 200
SHOWN_ITEMS = 5


@dataclass(frozen=True, slots=True)
class Staged:
    """The result of the first pass: `rows_in = good + rejected`, and the number of rejected rows by reason."""

    rows_in: int
    good: int
    reasons: dict[str, int]

    @property
    def rejected(self) -> int:
        """Return the number of bad rows."""
        return self.rows_in - self.good


class BadRow(Exception):
    """A row cannot be stored; the message is the reason."""


def stage(
    source: Source, mapping: Mapping, config: IngestConfig, rows: Path, rejects: Path, progress: Progress
) -> Staged:
    """Read a source once, in bounded memory, and sort its rows into good and bad ones.

    Args:
        source: The source to read.
        mapping: Columns of the source.
        config: Limits.
        rows: Parquet file to write the good rows to, in the order of the source, with `STAGED_SCHEMA`.
        rejects: JSON Lines file to write the bad rows to: `row` (number in the source), `reason`, and `data`, the
            row's values with long ones shortened.
        progress: Reports rows checked.

    Raises:
        DataError: The source is damaged.
    """
    rows_in = good = 0
    reasons: Counter[str] = Counter()
    progress.start("checking rows", source.rows, "rows")
    with (
        pq.ParquetWriter(
            rows, STAGED_SCHEMA, compression="lz4", use_dictionary=False, write_statistics=False
        ) as writer,
        rejects.open("w", encoding="ascii") as rejected,
    ):
        for piece in source.read(mapping.names, config.batch_rows):
            batch, bad = _check(piece, mapping, config.max_chars, source.text_only, good)
            if batch.num_rows:
                writer.write_batch(batch)
            for index, reason in sorted(bad.items()):
                data = {name: _shown(values[index]) for name, values in piece.columns.items()}
                record = {"row": piece.numbers[index], "reason": reason, "data": data}
                rejected.write(json.dumps(record, default=repr) + "\n")
            reasons.update(bad.values())
            good += batch.num_rows
            rows_in += len(piece.numbers)
            progress.advance(len(piece.numbers))
    progress.finish()
    return Staged(rows_in, good, dict(sorted(reasons.items())))


def _check(piece: Piece, mapping: Mapping, max_chars: int, text_only: bool, first: int) -> tuple[Any, dict[int, str]]:
    """Return the good rows as a record batch numbered from `first`, and the reasons of the bad rows by position."""
    bad = dict(piece.faults)
    count = len(piece.numbers)
    queries, positives = piece.columns[mapping.query], piece.columns[mapping.positive]
    negatives = [piece.columns[name] for name in mapping.negatives]
    doc_ids = piece.columns[mapping.doc_id] if mapping.doc_id is not None else [None] * count
    columns: list[list[Any]] = [[] for _ in STAGED_SCHEMA]
    appends = [column.append for column in columns]
    for index in range(count):
        if index in bad:
            continue
        try:
            query, query_key = _text("query", queries[index], max_chars)
            positive, positive_key = _text("positive", positives[index], max_chars)
            given = [text for column in negatives for text in _negatives(column[index], max_chars, text_only)]
            doc_id = _doc_id(doc_ids[index], max_chars)
        except BadRow as error:
            bad[index] = str(error)
            continue
        positive_hash = hash_normalised(positive_key)
        row = (
            first,
            hash_normalised(query_key + SEPARATOR + positive_key),
            query,
            positive,
            given,
            doc_id,
            hash_normalised(query_key),
            positive_hash,
            positive_hash if doc_id is None else hash_normalised(doc_id),
            _rank(query, positive, given, doc_id),
        )
        for append, value in zip(appends, row, strict=True):
            append(value)
        first += 1
    arrays = [pa.array(column, field.type) for column, field in zip(columns, STAGED_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=STAGED_SCHEMA), bad


def _rank(query: str, positive: str, negatives: list[str], doc_id: str | None) -> int:
    """Return a number that is lowest for the row to keep among rows with equal pairs.

    Rows are ordered by most negatives, then by having a document id, then by a hash of the content, so the position in
    the file has no influence.
    """
    content = SEPARATOR.join((query, positive, doc_id or "", *negatives)).encode()
    fewer = 255 - min(len(negatives), 255)
    return fewer << 55 | (doc_id is None) << 54 | int.from_bytes(blake2b(content, digest_size=6).digest(), "big")


def _text(role: str, value: object, max_chars: int) -> tuple[str, str]:
    """Return a text as it is stored and as it is compared."""
    if not isinstance(value, str):
        raise BadRow(f"{role}: {_not_text(value)}")
    text = clean(value)
    reason = fault(text, max_chars)
    if reason:
        raise BadRow(f"{role}: {reason}")
    return text, normalise(text)


def _negatives(value: object, max_chars: int, text_only: bool) -> list[str]:
    """Return the texts of a negatives cell, which holds a list, one text or nothing; empty items are left out."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        value = _json_list(value) if text_only else [value]
    if not isinstance(value, list):
        raise BadRow(f"negatives: {_not_text(value)}")
    texts = []
    for item in value:
        if item is None or item == "":
            continue
        if not isinstance(item, str):
            raise BadRow(f"negatives: {_not_text(item)}")
        text = clean(item)
        reason = fault(text, max_chars)
        if reason and reason != "empty":
            raise BadRow(f"negatives: {reason}")
        if text:
            texts.append(text)
    return texts


def _json_list(cell: str) -> list[Any]:
    """Return the list if a CSV cell holds one as JSON; otherwise return the cell as the only text."""
    if cell.lstrip().startswith("["):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return [cell]
        if isinstance(value, list):
            return value
    return [cell]


def _doc_id(value: object, max_chars: int) -> str | None:
    """Return a document id as text, with whole numbers written as integers; None if it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRow(f"doc_id: not an id but {_type_name(value)}")
    text = clean(str(value))
    reason = fault(text, max_chars)
    if reason and reason != "empty":
        raise BadRow(f"doc_id: {reason}")
    return text or None


def _not_text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "missing"
    if isinstance(value, bytes):
        return "not valid UTF-8"
    return f"not text but {_type_name(value)}"


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else type(value).__name__


def _shown(value: object) -> object:
    """Return a value shortened for a reject file, so that it is valid JSON."""
    if isinstance(value, str):
        return value if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]}... ({len(value)} characters)"
    if isinstance(value, list):
        more = [f"... ({len(value)} items)"] if len(value) > SHOWN_ITEMS else []
        return [_shown(item) for item in value[:SHOWN_ITEMS]] + more
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
