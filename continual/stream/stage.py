"""The first pass: check every row. Good rows go to a staging file with their hashes, bad ones to a reject file.

`cells` turns the cells of a row into texts. Rows with a low score go to a file of their own; see `graded`.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.config import IngestConfig
from continual.progress import Progress
from continual.registry.text import SEPARATOR, hash_normalised, normalise
from continual.stream.ahead import ahead
from continual.stream.bulk import GoodRows, find_good
from continual.stream.cells import (
    BadRow,
    check_grade,
    read_id,
    read_negatives,
    read_positives,
    read_query,
    read_score,
    shown,
)
from continual.stream.hashers import Hashers, Hashes, hash_column
from continual.stream.readers.arrays import some_rows
from continual.stream.readers.base import Piece, Source, schema_of
from continual.stream.schema import Columns, Mapping, resolve
from continual.stream.sweep import NEGATIVES, REJECTS, ROWS

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
# A stored row of a graded domain.
GRADED_SCHEMA = BATCH_SCHEMA.append(pa.field("score", pa.float64(), nullable=False))
HASH = pa.binary(16)
# A staged row has its hashes as bytes, which take less time than hex digits. It also has its number, the document that
# it is held out with, if it is graded its score as in the file, and the hashes of its negatives.
STAGED_SCHEMA = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        *(field.with_type(HASH) if field.name.endswith("_hash") else field for field in BATCH_SCHEMA),
        pa.field("document_hash", HASH, nullable=False),
        pa.field("score", pa.float64()),
        pa.field("negative_hashes", pa.list_(pa.field("element", HASH, nullable=False)), nullable=False),
    ]
)
STAGED_FORMAT: dict[str, Any] = {
    "compression": dict.fromkeys(["query", "positive", "negatives.list.element", "doc_id"], "lz4"),
    "use_dictionary": False,
    "write_statistics": False,
}
"""Options of the Parquet writer of staged rows; hashes can't be compressed."""
# A negative of a query, from a row with a low score.
NEGATIVES_SCHEMA = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("query_hash", pa.string(), nullable=False),
        pa.field("text_hash", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
    ]
)


@dataclass(slots=True)
class Staged:
    """The result of the first pass: `rows_in = good + rejected + not_positive`.

    Attributes:
        rows_in: Pairs in the file: its rows, with a row of several positives counted once for each.
        good: Rows in the staging file.
        reasons: Number of rejected rows by reason.
        several: Rows with several positives.
        low: Rows whose score makes them negatives.
        between: Rows that are left out, because their score is neither that of a positive nor that of a negative.
        negatives: Rows of the file of negatives.
        given: Good rows of the source with negatives of their own.
        scores: Smallest and largest score; None without a score column.
        numbers: Good rows whose query and positive are numbers.
    """

    good: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    several: int = 0
    low: int = 0
    between: int = 0
    negatives: int = 0
    given: int = 0
    scores: tuple[float, float] | None = None
    numbers: int = 0

    @property
    def rows_in(self) -> int:
        """Return the number of pairs."""
        return self.good + self.rejected + self.not_positive

    @property
    def rejected(self) -> int:
        """Return the number of bad rows."""
        return self.reasons.total()

    @property
    def not_positive(self) -> int:
        """Return the number of pairs whose score is not that of a positive."""
        return self.low + self.between


def stage_all(
    source: Source, mapping: Mapping, wanted: Columns, config: IngestConfig, folder: Path, progress: Progress
) -> tuple[Staged, Mapping]:
    """Read a source as `stage` does, and again if it turns out to have further columns that change the mapping.

    Args:
        wanted: The columns that the caller asks for.
        folder: Where `ROWS`, `NEGATIVES` and `REJECTS` are written.

    Returns:
        The counts, and the mapping that the rows were read with.

    Raises:
        DataError: The source is damaged.
    """
    while True:
        staged = stage(source, mapping, config, folder / ROWS, folder / NEGATIVES, folder / REJECTS, progress)
        found = resolve(wanted, source.columns, source.name, graded=mapping.grades is not None)
        if found == mapping:
            return staged, mapping
        mapping = found


def stage(
    source: Source,
    mapping: Mapping,
    config: IngestConfig,
    rows: Path,
    negatives: Path,
    rejects: Path,
    progress: Progress,
) -> Staged:
    """Read a source once, in bounded memory, and sort its rows into good and bad ones.

    Args:
        source: The source to read.
        mapping: Columns of the source.
        config: Limits.
        rows: Parquet file to write the good rows to, in the order of the source, with `STAGED_SCHEMA`.
        negatives: Parquet file to write the texts of rows with a low score to, with `NEGATIVES_SCHEMA`.
        rejects: JSON Lines file to write the bad rows to: `row` (number in the source), `reason`, and `data`, the
            row's values with long ones shortened; `file` if the source has several.
        progress: Reports rows checked.

    Raises:
        DataError: The source is damaged.
    """
    staged = Staged()
    mapping = _as_stored(source, mapping)
    plain = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
    progress.start("checking rows", source.rows, "rows")
    with (
        pq.ParquetWriter(rows, STAGED_SCHEMA, **STAGED_FORMAT) as good_writer,
        pq.ParquetWriter(negatives, NEGATIVES_SCHEMA, **plain) as negatives_writer,
        rejects.open("w", encoding="ascii") as rejected,
        Hashers() as hashers,
    ):
        hashed: deque[tuple[GoodRows, Future[Hashes]]] = deque()
        for piece in ahead(source.read(mapping.names, config.batch_rows)):
            good = find_good(piece, mapping, config.max_chars)
            if good is not None:
                texts = pa.concat_arrays([good.doc_ids.drop_null(), good.negative_texts.keys])
                hashed.append((good, hashers.submit(good.queries.keys, good.positives.keys, texts)))
            others = _others(piece, good)
            if others is not None:
                columns, low, bad = _check(others, mapping, config.max_chars, staged)
                _write(good_writer, columns, STAGED_SCHEMA)
                _write(negatives_writer, low, NEGATIVES_SCHEMA)
                _write_rejects(rejected, others, bad)
                staged.reasons.update(bad.values())
            while len(hashed) > hashers.waiting:
                good_writer.write_batch(_good_rows(*hashed.popleft(), staged))
            progress.advance(len(piece.numbers))
        while hashed:
            good_writer.write_batch(_good_rows(*hashed.popleft(), staged))
    progress.finish()
    return staged


def _others(piece: Piece, good: GoodRows | None) -> Piece | None:
    """Return the rows of a piece that are not known to be good; None if all are."""
    if good is None:
        return piece
    if len(good.places) == len(piece.numbers):
        return None
    return some_rows(piece, np.delete(np.arange(len(piece.numbers)), good.places).tolist())


def _write(writer: Any, columns: list[list[Any]], schema: Any) -> None:
    if columns[0]:
        arrays = [pa.array(column, each.type) for column, each in zip(columns, schema, strict=True)]
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _write_rejects(file: TextIO, piece: Piece, bad: dict[int, str]) -> None:
    for index, reason in sorted(bad.items()):
        data = {name: shown(values[index]) for name, values in piece.columns.items()}
        place = {"row": piece.numbers[index]} | ({} if piece.file is None else {"file": piece.file})
        file.write(json.dumps(place | {"reason": reason, "data": data}, default=repr) + "\n")


def _good_rows(good: GoodRows, future: Future[Hashes], staged: Staged) -> Any:
    """Return rows that were found good as a batch with `STAGED_SCHEMA`, and count them."""
    hashes, rows = future.result(), len(good.places)
    texts = hash_column(hashes.texts)
    ids = rows - good.doc_ids.null_count
    positives = documents = hash_column(hashes.positives)
    if ids:
        named = good.doc_ids.is_valid()
        documents = texts.slice(0, ids) if ids == rows else pc.replace_with_mask(positives, named, texts.slice(0, ids))
    lists = STAGED_SCHEMA.field("negative_hashes").type
    arrays = {
        "seq": pa.array(np.arange(staged.good, staged.good + rows)),
        "row_hash": hash_column(hashes.rows),
        "query": good.queries.stored,
        "positive": good.positives.stored,
        "negatives": good.negatives,
        "doc_id": good.doc_ids,
        "query_hash": hash_column(hashes.queries),
        "positive_hash": positives,
        "document_hash": documents,
        "score": pa.nulls(rows, pa.float64()),
        "negative_hashes": pa.ListArray.from_arrays(good.negatives.offsets, texts.slice(ids), type=lists),
    }
    staged.good += rows
    staged.given += rows - pc.list_value_length(good.negatives).to_numpy().tolist().count(0)
    staged.numbers += _numbers(good.queries.stored, good.positives.stored)
    return pa.RecordBatch.from_arrays([arrays[name] for name in STAGED_SCHEMA.names], schema=STAGED_SCHEMA)


def _numbers(queries: Any, positives: Any) -> int:
    """Return how many rows have a number as their query and as their positive."""
    digits = pc.utf8_is_decimal(queries)
    return int(pc.and_(digits, pc.utf8_is_decimal(positives)).true_count) if digits.true_count else 0


def _as_stored(source: Source, mapping: Mapping) -> Mapping:
    """Return a mapping whose limits are numbers of the type of its scores: a float32 0.7 is at least 0.7."""
    schema, name = schema_of(source), mapping.score_name
    if schema is None or name is None:
        return mapping
    kind = schema.field(name).type
    if kind not in (pa.float16(), pa.float32()):
        return mapping
    return mapping.rounded(lambda limit: float(np.array(limit, kind.to_pandas_dtype())))


def _check(
    piece: Piece, mapping: Mapping, max_chars: int, staged: Staged
) -> tuple[list[list[Any]], list[list[Any]], dict[int, str]]:
    """Return the columns of the good rows and of the negatives, and the reasons of the bad rows by position.

    Args:
        piece: Rows of the source.
        mapping: Columns of the source.
        max_chars: Most characters of a text.
        staged: The counts, which are brought up to date, except for `reasons`.
    """
    bad = dict(piece.faults)
    count = len(piece.numbers)
    queries, positives = piece.columns[mapping.query], piece.columns[mapping.positive]
    negatives = [piece.columns[name] for name in mapping.negatives]
    doc_ids = piece.columns[mapping.doc_id] if mapping.doc_id is not None else [None] * count
    scores = piece.columns[mapping.score_name] if mapping.score_name is not None else [None] * count
    good: list[list[Any]] = [[] for _ in STAGED_SCHEMA]
    low: list[list[Any]] = [[] for _ in NEGATIVES_SCHEMA]
    for index in range(count):
        if index in bad:
            continue
        try:
            query, query_key = read_query(queries[index], max_chars)
            texts = read_positives(positives[index], max_chars)
            given = [text for column in negatives for text in read_negatives(column[index], max_chars)]
            doc_id = read_id(doc_ids[index], max_chars)
            score = None if mapping.score_name is None else read_score(scores[index])
            if score is not None and mapping.grades is not None:
                check_grade(score, mapping.grades.range)
        except BadRow as error:
            bad[index] = str(error)
            continue
        staged.several += len(texts) > 1
        if score is not None:
            least, largest = staged.scores or (score, score)
            staged.scores = min(least, score), max(largest, score)
        if score is not None and mapping.score is not None and score < mapping.score.positive_at:
            if mapping.score.negative_at is None or score > mapping.score.negative_at:
                staged.between += len(texts)
                continue
            staged.low += len(texts)
            _add_negatives(low, staged, query_key, [*texts, *((text, normalise(text)) for text in given)])
            continue
        hashes = [_hash(normalise(text)) for text in given]
        staged.given += bool(given)
        for positive, positive_key in texts:
            grade = None if mapping.grades is None else score
            _add_row(good, staged, (query, query_key), (positive, positive_key), given, hashes, doc_id, grade)
    return good, low, bad


def _add_row(
    columns: list[list[Any]],
    staged: Staged,
    query: tuple[str, str],
    positive: tuple[str, str],
    given: list[str],
    hashes: list[bytes],
    doc_id: str | None,
    grade: float | None,
) -> None:
    """Add a row to the columns of the good rows; texts come as they are stored and as they are compared."""
    positive_hash = _hash(positive[1])
    row = (
        staged.good,
        _hash(query[1] + SEPARATOR + positive[1]),
        query[0],
        positive[0],
        given,
        doc_id,
        _hash(query[1]),
        positive_hash,
        positive_hash if doc_id is None else _hash(doc_id),
        grade,
        hashes,
    )
    for column, value in zip(columns, row, strict=True):
        column.append(value)
    staged.good += 1
    staged.numbers += query[0].isdecimal() and positive[0].isdecimal()


def _hash(normalised: str) -> bytes:
    """Return the hash of a normalised text as it is staged."""
    return bytes.fromhex(hash_normalised(normalised))


def _add_negatives(columns: list[list[Any]], staged: Staged, query_key: str, texts: list[tuple[str, str]]) -> None:
    """Add texts to the columns of the negatives of a query."""
    query_hash = hash_normalised(query_key)
    for text, key in texts:
        rank = int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big")
        row = (staged.negatives, query_hash, hash_normalised(key), text, rank)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
        staged.negatives += 1
