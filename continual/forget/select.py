"""Which rows are meant: a whole domain, the rows of a file, or the rows with a query."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from continual.config import IngestConfig
from continual.errors import InputError
from continual.forget.request import Request
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.text import clean, hash_row, hash_text
from continual.stream.readers import Dialect, open_source
from continual.stream.schema import NO_SCORE, Columns, resolve
from continual.stream.stage import stage_all
from continual.stream.sweep import REJECTS, ROWS

READ_ROWS = 10_000


@dataclass(frozen=True)
class Selection:
    """The rows to forget. Rows are compared as `ingest` compares them, by the hash of their normalised texts.

    Attributes:
        by: "domain", "rows" or "query".
        value: What identifies the selection: the name, the hashes of the rows, or the query's hash. It is only hashed.
        domain: The domain; None for the other two.
        hashes: Hashes of rows.
        query_hash: Hash of a query; None for the other two.
        texts: The texts that the caller gave, as they would be stored; they are searched for even if no row has them.
        rejects: Bad rows of the file, as JSON of their shown cells: the reject files of the workspace may have them.
        asked: Number of rows in the file.
    """

    by: str
    value: str
    domain: str | None = None
    hashes: frozenset[str] = frozenset()
    query_hash: str | None = None
    texts: frozenset[str] = frozenset()
    rejects: frozenset[str] = frozenset()
    asked: int = 0

    def takes(self, domain: str, row_hash: str, query_hash: str) -> bool:
        """Return whether a row of a domain is to be forgotten."""
        if self.domain is not None:
            return domain == self.domain
        return query_hash == self.query_hash or row_hash in self.hashes

    def takes_pair(self, query: str, document: str) -> bool:
        """Return whether a judgement is to be forgotten, by the texts of its query and its document."""
        return hash_text(query) == self.query_hash or (bool(self.hashes) and hash_row(query, document) in self.hashes)


def select(
    registry: Registry, config: IngestConfig, request: Request, folder: Path, progress: Progress = SILENT
) -> Selection:
    """Return the rows that a request means.

    Args:
        folder: Where to write intermediate results.

    Raises:
        NotFoundError: There is no such domain.
        DataError: The file can't be read, or lacks columns.
        InputError: The query is empty.
    """
    if request.domain is not None:
        registry.domain_names([request.domain])
        return Selection("domain", request.domain, domain=request.domain)
    if request.query is not None:
        text = clean(request.query)
        if not text:
            raise InputError("--query takes the text of a query, not an empty text.")
        key = hash_text(text)
        return Selection("query", key, query_hash=key, texts=frozenset([text]))
    assert request.rows is not None, "a request is checked"
    return _read_file(request.rows, config, folder, progress)


def _read_file(file: Path, config: IngestConfig, folder: Path, progress: Progress) -> Selection:
    """Read the rows of a file as `ingest` does; a column of scores makes no difference here."""
    wanted = Columns(score=NO_SCORE)
    opened = open_source(str(file), Dialect())
    mapping = resolve(wanted, opened.columns, str(file))
    opened.check(mapping)
    staged, _ = stage_all(opened, mapping, wanted, config, folder, progress)
    hashes, texts = set[str](), set[str]()
    with pq.ParquetFile(folder / ROWS) as rows:
        for batch in rows.iter_batches(READ_ROWS, columns=["row_hash", "query", "positive", "negatives"]):
            columns = batch.to_pydict()
            hashes.update(digest.hex() for digest in columns["row_hash"])
            texts.update(columns["query"], columns["positive"], *columns["negatives"])
    bad = {json.dumps(row["data"], sort_keys=True) for row in _lines(folder / REJECTS)}
    value = "\n".join([*sorted(hashes), *sorted(bad)])
    return Selection(
        "rows",
        value,
        hashes=frozenset(hashes),
        texts=frozenset(texts),
        rejects=frozenset(bad),
        asked=staged.rows_in,
    )


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as opened:
        for line in opened:
            yield json.loads(line)
