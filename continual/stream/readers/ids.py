"""Rows that name their texts by id, such as MS MARCO's triples, joined with the files that hold the texts.

The texts are written to one temporary file, and DuckDB joins only ids and places in that file. So memory stays flat
whatever the size of the corpus; the disk needs about its size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from continual.errors import DataError
from continual.stream.database import count, database
from continual.stream.readers.base import PIECE_BYTES, Piece, Source, schema_of
from continual.stream.readers.shapes import check_third, places
from continual.stream.readers.texts import MAX_ABSENT, READ_ROWS, TEXT_COLUMNS, ids_in, insert, load_texts
from continual.stream.readers.watched import WatchedSource
from continual.stream.schema import Columns, id_column, id_columns
from continual.stream.schema import Mapping as ColumnMapping

MAX_NEGATIVES = 32
"""Most negatives of a pair that has them in rows of their own; the first by hash."""


@dataclass(frozen=True, slots=True)
class TextFiles:
    """The files with the texts that rows name by id; None if the rows hold these texts themselves."""

    corpus: Path | None = None
    queries: Path | None = None

    def __bool__(self) -> bool:
        return self.corpus is not None or self.queries is not None


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of a file of rows: those with ids, and the others by the names that they get.

    A role without columns is not read by id. `guessed`: only its place says that a column holds ids of negatives.
    """

    query: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    others: Mapping[str, str] | None = None
    guessed: bool = False

    @property
    def by_id(self) -> dict[str, list[str]]:
        """Return the columns with ids by role."""
        roles = {"query": self.query, "positive": self.positive, "negatives": self.negatives}
        return {role: list(names) for role, names in roles.items() if names}

    @property
    def joined(self) -> list[str]:
        """Return the columns that the join makes."""
        return [*self.by_id, *(["doc_id"] if self.positive else [])]


def find_roles(source: Source, texts: TextFiles, wanted: Columns, bare: Sequence[str] = ()) -> Roles:
    """Find the columns with ids, by request or by their common names; see `continual.stream.schema.ID_NAMES`.

    Args:
        source: The file of rows.
        texts: The files with the texts.
        wanted: The columns that the caller asks for.
        bare: The first line of a file without a header line, whose columns are known by their places.

    Raises:
        DataError: A column is missing, or the file has ids and texts for one role.
    """
    names = source.columns
    known: dict[str, str] = {}
    if bare and ((texts.queries and not wanted.query) or (texts.corpus and not wanted.positive)):
        known = places(source.name, bare)
        wanted = replace(wanted, query=wanted.query or known["query"], positive=wanted.positive or known["positive"])
    guessed = bool(texts.corpus) and "negatives" in known and not wanted.negatives and not wanted.score
    if guessed:
        wanted = replace(wanted, negatives=known["negatives"])
    query = (id_column("query", wanted.query, names, source.name),) if texts.queries else ()
    positive: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    if texts.corpus:
        positive = (id_column("positive", wanted.positive, names, source.name),)
        negatives = id_columns(wanted.negatives, names, source.name)
    roles = Roles(query, positive, negatives, guessed=guessed)
    used = {*query, *positive, *negatives}
    others = {name: name for name in names if name not in used}
    if "score" in known and wanted.score in (None, "score") and known["score"] in others:
        others["score"] = others.pop(known["score"])
    if both := sorted(set(roles.joined) & others.keys()):
        raise DataError(
            f"{source.name} has a column {both[0]!r} besides the ids in {', '.join(map(repr, sorted(used)))}. Rename "
            "it, or leave out --corpus and --queries if the file holds the texts itself."
        )
    return replace(roles, others=others)


def text_columns(columns: Columns, texts: TextFiles) -> Columns:
    """Return how to read the columns after the join: those that are read by id have the common names."""
    if texts.queries is not None:
        columns = replace(columns, query=None)
    return columns if texts.corpus is None else replace(columns, positive=None, negatives=None)


class IdSource:
    """Rows of ids, with the texts of `corpus` and `queries` in the columns query, positive and negatives.

    Rows with the same query and positive are one row with the negatives of all, unless other columns are read. An
    absent query or positive is a bad row; an absent negative is left out and counted.
    """

    def __init__(
        self, rows: Source, corpus: Source | None, queries: Source | None, roles: Roles, notes: Sequence[str] = ()
    ) -> None:
        self.name, self.stem, self.rows = rows.name, rows.stem, rows.rows
        self.columns = [*roles.joined, *(roles.others or {})]
        self.dialect: dict[str, Any] = rows.dialect | {"ids": roles.by_id}
        self._notes = list(notes)
        self.warnings: list[str] = list(notes)
        self._rows, self._corpus, self._queries, self._roles = WatchedSource(rows), corpus, queries, roles

    @property
    def schema(self) -> Any:
        """Return the Arrow types of the columns that are not joined; None if their values have none."""
        schema = schema_of(self._rows)
        if schema is None:
            return None
        return pa.schema([schema.field(name).with_name(own) for own, name in (self._roles.others or {}).items()])

    def suspects(self) -> dict[str, str]:
        """Return the unread columns of the file of rows that may be labels or scores, with some of their values."""
        return self._rows.suspects()

    def sha256(self) -> str:
        """Return a SHA-256 of the contents of all files."""
        sources = [source for source in (self._corpus, self._queries, self._rows) if source is not None]
        return hashlib.sha256("\n".join(source.sha256() for source in sources).encode()).hexdigest()

    def check(self, mapping: ColumnMapping) -> None:
        """Do nothing: every value is checked when it is read."""

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows.

        Raises:
            DataError: A file of texts has no ids or repeats one, or too many negatives have no text.
        """
        others = [name for name in columns if name not in self._roles.joined]
        self.warnings = list(self._notes)
        with (
            TemporaryDirectory(prefix="continual-") as folder,
            database(Path(folder) / "spill") as connection,
            (Path(folder) / "texts").open("w+b") as file,
        ):
            for table, source in (("corpus", self._corpus), ("queries", self._queries)):
                if source is None:
                    connection.execute(f"CREATE TABLE {table} {TEXT_COLUMNS}")
                else:
                    self.warnings += load_texts(connection, table, source, file)
            yield from self._load_rows(connection, columns, others)
            self.warnings += self._rows.warnings
            if self._roles.guessed:
                check_third(connection, self._rows.name)
            self._join(connection, grouped=bool(self._roles.negatives) and not others)
            for found in _found(connection, min(batch_rows, READ_ROWS)):
                yield self._piece(found, columns, file)

    def _load_rows(
        self, connection: duckdb.DuckDBPyConnection, columns: Sequence[str], others: Sequence[str]
    ) -> Iterator[Piece]:
        """Create `pairs`, a row for each positive, and `given`, a row for each negative. Yield the faulty rows."""
        connection.execute(
            "CREATE TABLE pairs (seq BIGINT, row BIGINT, number BIGINT, file VARCHAR, query VARCHAR, positive VARCHAR, "
            "others VARCHAR)"
        )
        connection.execute("CREATE TABLE given (row BIGINT, place BIGINT, id VARCHAR)")
        roles, names = self._roles, self._roles.others or {}
        role_columns = roles.query, roles.positive
        used = [*roles.query, *roles.positive, *roles.negatives, *(names[name] for name in others)]
        row = seq = 0
        for piece in self._rows.read(list(dict.fromkeys(used)), READ_ROWS):
            asked, answers, lists = (self._cells(piece, columns) for columns in (*role_columns, roles.negatives))
            rest = [piece.columns[names[name]] for name in others]
            pairs: list[tuple[Any, ...]] = []
            given: list[tuple[Any, ...]] = []
            for index, number in enumerate(piece.numbers):
                if index in piece.faults:
                    continue
                values = json.dumps([column[index] for column in rest], default=lambda _: None) if rest else None
                for positive in answers[index] or [""]:
                    query = asked[index][0] if asked[index] else ""
                    pairs.append((seq, row, number, piece.file, query, positive, values))
                    seq += 1
                given += [(row, place, name) for place, name in enumerate(lists[index])]
                row += 1
            insert(connection, "pairs", ("seq", "row", "number", "file", "query", "positive", "others"), pairs)
            insert(connection, "given", ("row", "place", "id"), given)
            if piece.faults:
                places = sorted(piece.faults)
                empty = {name: [None] * len(places) for name in columns}
                faults = {place: piece.faults[index] for place, index in enumerate(places)}
                yield Piece([piece.numbers[index] for index in places], empty, faults, piece.file)

    @staticmethod
    def _cells(piece: Piece, columns: Sequence[str]) -> list[list[str]]:
        """Return the ids in these columns of each row."""
        found: list[list[str]] = [[] for _ in piece.numbers]
        for name in columns:
            for own, value in zip(found, piece.columns[name], strict=True):
                own += ids_in(value)
        return found

    def _join(self, connection: duckdb.DuckDBPyConnection, *, grouped: bool) -> None:
        """Create `chosen`, the pairs to yield, and `negatives`, the places of the texts of their negatives.

        Raises:
            DataError: Too many negatives have no text.
        """
        key = "query, positive" if grouped else "seq"
        connection.execute(f"CREATE TABLE chosen AS SELECT {key}, min(seq) AS first FROM pairs GROUP BY ALL")
        rows, kept = (count(connection, f"SELECT count(*) FROM {table}") for table in ("pairs", "chosen"))
        if kept < rows:
            self.warnings.append(
                f"{rows:,} rows have {kept:,} different pairs of a query and a positive. Each pair is one row with at "
                f"most {MAX_NEGATIVES} of its negatives."
            )
        negatives = count(connection, "SELECT count(*) FROM given")
        absent = count(connection, "SELECT count(*) FROM given ANTI JOIN corpus USING (id)") if negatives else 0
        if absent:
            assert self._corpus is not None
            told = f"{absent:,} of {negatives:,} negatives have an id without a text in {self._corpus.name}"
            if absent > MAX_ABSENT * negatives:
                raise DataError(f"{self.name}: {told}. Give the corpus that the ids belong to with --corpus.")
            self.warnings.append(f"{told}. They are left out.")
        connection.execute(
            f"""
            CREATE TABLE negatives AS
            WITH own AS (
                SELECT first, id, min(place) AS place FROM given JOIN pairs USING (row) JOIN chosen USING ({key})
                GROUP BY ALL
            )
            SELECT first, place, md5_number_lower(id) AS rank, start, size FROM own JOIN corpus USING (id)
            QUALIFY row_number() OVER (PARTITION BY first ORDER BY place, rank)
                <= greatest({MAX_NEGATIVES}, (SELECT max(place) + 1 FROM given))
            """
        )

    def _piece(self, found: Sequence[_Found], columns: Sequence[str], file: BinaryIO) -> Piece:
        """Return rows with their texts; a row without one has its ids and a fault."""
        faults: dict[int, str] = {}
        values: dict[str, list[Any]] = {name: [] for name in columns}
        others = [name for name in columns if name not in self._roles.joined]
        for index, row in enumerate(found):
            cells: dict[str, Any] = dict(zip(others, json.loads(row.others) if row.others else (), strict=True))
            for role, name, text in (("query", row.query_id, row.query), ("positive", row.positive_id, row.positive)):
                if not getattr(self._roles, role):
                    continue
                cells[role] = name if text is None else _text(file, text)
                if text is None:
                    faults.setdefault(index, f"{role}: no text with this id")
            cells |= {"doc_id": row.positive_id} if "doc_id" in self._roles.joined else {}
            cells["negatives"] = [_text(file, text) for text in row.negatives]
            for name in columns:
                values[name].append(cells[name])
        return Piece([row.number for row in found], values, faults, found[0].file)


_Place = tuple[int, int]
"""Start and size of a text in the file of texts, in bytes."""


@dataclass(slots=True)
class _Found:
    """A row, with the places of its texts; None for a text that is absent."""

    number: int
    file: str | None
    query_id: str | None
    positive_id: str | None
    others: str | None
    query: _Place | None
    positive: _Place | None
    negatives: list[_Place]

    @property
    def size(self) -> int:
        """Return the bytes of all texts."""
        return sum(size for _, size in (self.query or (0, 0), self.positive or (0, 0), *self.negatives))


def _found(connection: duckdb.DuckDBPyConnection, batch_rows: int) -> Iterator[list[_Found]]:
    """Yield the chosen rows in order, in lists of bounded size whose rows come from one file."""
    rows = connection.cursor().execute(
        """
        SELECT pairs.seq, number, file, pairs.query, pairs.positive, others,
            queries.start, queries.size, corpus.start, corpus.size
        FROM pairs SEMI JOIN (SELECT first FROM chosen) AS firsts ON pairs.seq = firsts.first
        LEFT JOIN queries ON queries.id = pairs.query LEFT JOIN corpus ON corpus.id = pairs.positive
        ORDER BY pairs.seq
        """
    )
    places = _rows(connection.cursor().execute("SELECT first, start, size FROM negatives ORDER BY first, place, rank"))
    waiting = next(places, None)
    piece: list[_Found] = []
    size = 0
    for seq, number, file, query, positive, others, *spots in _rows(rows):
        negatives: list[_Place] = []
        while waiting is not None and waiting[0] == seq:
            negatives.append((waiting[1], waiting[2]))
            waiting = next(places, None)
        asked, answer = ((start, size) if start is not None else None for start, size in (spots[:2], spots[2:]))
        if piece and (len(piece) >= batch_rows or size >= PIECE_BYTES or piece[-1].file != file):
            yield piece
            piece, size = [], 0
        piece.append(_Found(number, file, query, positive, others, asked, answer, negatives))
        size += piece[-1].size
    if piece:
        yield piece


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(READ_ROWS):
        yield from rows


def _text(file: BinaryIO, place: _Place) -> str:
    file.seek(place[0])
    return file.read(place[1]).decode("utf-8", "surrogatepass")
