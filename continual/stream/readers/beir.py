"""A folder in the layout of BEIR as training rows: the judgements of `qrels/train`, joined with their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from continual.errors import DataError
from continual.stream.database import count, database
from continual.stream.readers.base import PIECE_BYTES, Piece, Source
from continual.stream.schema import Mapping

IDS = ("_id", "id", "doc_id", "corpus_id", "corpus-id", "query_id", "query-id")
ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
QRELS = ("qrels/train.tsv", "qrels/train.parquet", "qrels/train.jsonl")
COLUMNS = ("query", "positive", "doc_id", "score")
READ_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class BeirFiles:
    """The files of a BEIR folder that training rows come from."""

    corpus: Path
    queries: Path
    qrels: Path


def find_beir(folder: Path) -> BeirFiles | None:
    """Return the files of a folder in the layout of BEIR; None if it has another layout.

    Raises:
        DataError: The folder has a corpus and queries, but no judgements to train on.
    """
    found = [
        next((path for ending in ENDINGS if (path := folder / f"{part}{ending}").is_file()), None)
        for part in ("corpus", "queries")
    ]
    if found[0] is None or found[1] is None:
        return None
    qrels = next((path for name in QRELS if (path := folder / name).is_file()), None)
    if qrels is None:
        raise DataError(
            f"{folder} has a corpus and queries, but no {QRELS[0]} with judgements to train on. If it is an evaluation "
            f"task, use `continual task add NAME {folder}`."
        )
    return BeirFiles(found[0], found[1], qrels)


class BeirSource:
    """Judgements as rows with the columns `COLUMNS`; a document is its title and its text."""

    def __init__(self, name: str, files: BeirFiles, open_file: Callable[[Path], Source]) -> None:
        self.name = name
        self.stem = Path(name).resolve().name
        self.columns = list(COLUMNS)
        self.rows: int | None = None
        self.dialect: dict[str, Any] = {}
        self.warnings: list[str] = []
        self._corpus, self._queries, self._qrels = map(open_file, (files.corpus, files.queries, files.qrels))
        if len(self._qrels.columns) < 3:
            raise DataError(
                f"{files.qrels} has the columns {', '.join(self._qrels.columns)}, but three are expected below a "
                "header line: query id, document id, score."
            )

    def sha256(self) -> str:
        """Return a SHA-256 of the contents of the three files."""
        digests = [source.sha256() for source in (self._corpus, self._queries, self._qrels)]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def check(self, mapping: Mapping) -> None:
        """Do nothing: every value is checked when it is read."""

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all judgements, in any order; texts of unknown ids are missing."""
        with TemporaryDirectory(prefix="continual-") as spill, database(Path(spill)) as connection:
            _load_texts(connection, "corpus", self._corpus)
            _load_texts(connection, "queries", self._queries)
            _load_judgements(connection, self._qrels)
            joined = connection.sql(
                """
                SELECT number, queries.text AS query, corpus.text AS positive, document AS doc_id, score
                FROM qrels LEFT JOIN queries ON queries.id = qrels.query LEFT JOIN corpus ON corpus.id = document
                """
            )
            for batch in joined.to_arrow_reader(min(batch_rows, READ_ROWS)):
                for first in range(0, batch.num_rows, step := _step(batch)):
                    part = batch.slice(first, step).to_pydict()
                    yield Piece(part["number"], {name: part[name] for name in columns})


def _step(batch: Any) -> int:
    """Return how many rows of a batch make a piece."""
    rows, size = int(batch.num_rows), int(batch.nbytes)
    return max(1, min(rows, rows * PIECE_BYTES // max(1, size)))


def _load_texts(connection: duckdb.DuckDBPyConnection, table: str, source: Source) -> None:
    """Create a table of texts by id; a title comes before the text.

    Raises:
        DataError: The file lacks a column, or repeats an id.
    """
    identity = next((name for name in IDS if name in source.columns), None)
    if identity is None or "text" not in source.columns:
        raise DataError(
            f"{source.name} has the columns {', '.join(source.columns)}, but an id ({IDS[0]}) and a text are expected."
        )
    title = ["title"] if table == "corpus" and "title" in source.columns else []
    connection.execute(f"CREATE TABLE {table} (id VARCHAR, text VARCHAR)")
    for piece in source.read([identity, "text", *title], READ_ROWS):
        parts = zip(*(piece.columns[name] for name in (*title, "text")), strict=True)
        texts = [" ".join(part for part in row if isinstance(part, str) and part) for row in parts]
        _insert(connection, table, {"id": _ids(piece.columns[identity]), "text": texts})
    repeated = count(connection, f"SELECT count(*) - count(DISTINCT id) FROM {table}")
    if repeated:
        raise DataError(f"{source.name} has {repeated:,} rows without an id of their own. Ids must be unique.")


def _load_judgements(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    query, document, score = source.columns[:3]
    connection.execute("CREATE TABLE qrels (number BIGINT, query VARCHAR, document VARCHAR, score VARCHAR)")
    for piece in source.read([query, document, score], READ_ROWS):
        if piece.faults:
            place, reason = next(iter(sorted(piece.faults.items())))
            raise DataError(f"{source.name}, line {piece.numbers[place]}: {reason}. Fix the line.")
        columns = {"query": _ids(piece.columns[query]), "document": _ids(piece.columns[document])}
        scores = [None if value is None else str(value) for value in piece.columns[score]]
        _insert(connection, "qrels", {"number": list(piece.numbers), **columns, "score": scores})


def _ids(values: Sequence[Any]) -> list[str | None]:
    """Return ids as text; one that is neither text nor a whole number is missing."""
    return [str(value).strip() if isinstance(value, (str, int)) else None for value in values]


def _insert(connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, list[Any]]) -> None:
    types = {"number": pa.int64()}
    arrays = {name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()}
    connection.register("piece", pa.table(arrays))
    connection.execute(f"INSERT INTO {table} SELECT * FROM piece")
    connection.unregister("piece")
