"""A sample of the texts of a file, for what needs texts and no pairs, such as a merge that keeps what models do."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from continual.errors import DataError
from continual.models.activations import Texts
from continual.registry.text import clean, fault
from continual.stream.labels import plain_name
from continual.stream.readers import open_source
from continual.stream.readers.content import check_content, check_regular
from continual.stream.schema import EITHER, NAMES

MOST = 2_000
"""Texts that a sample has at most."""

BATCH = 10_000
LINES = ".txt"
_IDS = ("_id", "id", "doc_id", "document_id", "docid", "passage_id", "chunk_id")
_QUERIES = NAMES["query"]
_DOCUMENTS = (*NAMES["positive"], "contents", "body", "chunk", "content")


@dataclass(frozen=True, slots=True)
class TextSample:
    """Texts drawn from a file.

    Attributes:
        texts: The texts, in the order of their hashes.
        found: Number of different texts in the file.
        unused: Number of values that are no text, or an empty one.
        columns: The columns that were read; empty for a file of lines.
        unread: The other columns.
    """

    texts: Texts
    found: int
    unused: int
    columns: tuple[str, ...]
    unread: tuple[str, ...]


def read_sample(source: str, most: int = MOST) -> TextSample:
    """Draw texts from a file. The same texts give the same sample, in whatever order they are.

    Args:
        source: A file or folder as `continual ingest` reads it, with a column of queries, of documents, or of both, by
            their usual names; or a .txt file with a document per line.
        most: Most texts to draw.

    Raises:
        DataError: The file cannot be read, has no column of texts or several for one role, or holds no text.
    """
    values, columns, unread = _values(source)
    drawn = _Draw(most)
    for role, value in values:
        drawn.add(role, value)
    if not drawn.kept:
        raise DataError(f"{source} holds no text. Give a file with queries, documents, or a text per line.")
    chosen = [(role, text) for _, role, text in sorted(drawn.kept, key=lambda entry: -entry[0])]
    texts = Texts(*([text for role, text in chosen if role == wanted] for wanted in ("query", "document")))
    return TextSample(texts, drawn.found, drawn.unused, tuple(columns), tuple(unread))


def documents_of(source: str) -> Iterator[str]:
    """Yield the documents of a file, as `read_sample` finds them, in their order and with repetitions.

    Raises:
        DataError: The file cannot be read, or has no column of documents or several.
    """
    values, columns, _ = _values(source)
    if columns and "document" not in columns.values():
        raise DataError(f"{source} has no column of documents. Name one `document` or `text`.")
    for role, value in values:
        text = _text(value) if role == "document" else None
        if text is not None:
            yield text


def identified_documents_of(source: str) -> Iterator[tuple[str | None, str]]:
    """Yield the documents of a file with their ids, in their order; the id is None if the file has none.

    Raises:
        DataError: As `documents_of`; or a document has no id although the file has a column of them.
    """
    if Path(source).suffix.lower() == LINES:
        yield from ((None, text) for text in documents_of(source))
        return
    opened = open_source(source)
    columns, _ = _roles(source, opened.columns)
    documents = [name for name, role in columns.items() if role == "document"]
    if not documents:
        raise DataError(f"{source} has no column of documents. Name one `document` or `text`.")
    identity = next((name for name in opened.columns if plain_name(name) in _IDS), None)
    wanted = [*documents, *([identity] if identity is not None else [])]
    for piece in opened.read(wanted, BATCH):
        for place, value in enumerate(piece.columns[documents[0]]):
            text = _text(value)
            if text is None:
                continue
            name = piece.columns[identity][place] if identity is not None else None
            if identity is not None and (name is None or str(name) == ""):
                raise DataError(f"{source}, row {piece.numbers[place]}, has no {identity}. Give every text an id.")
            yield None if name is None else str(name), text


def _values(source: str) -> tuple[Iterator[tuple[str, object]], dict[str, str], list[str]]:
    """Return the roles and values of a file, the role of each column that is read, and the other columns."""
    if Path(source).suffix.lower() == LINES:
        return _lines(Path(source)), {}, []
    opened = open_source(source)
    columns, unread = _roles(source, opened.columns)
    values = (
        (columns[name], text)
        for piece in opened.read(list(columns), BATCH)
        for name in columns
        for value in piece.columns[name]
        for text in (value if isinstance(value, list | tuple) else [value])
    )
    return values, columns, unread


def _text(value: object) -> str | None:
    """Return a value as text that can be stored; None if it is none."""
    text = clean(value) if isinstance(value, str) else ""
    return None if not text or fault(text) else text


class _Draw:
    """The texts with the smallest hashes of all that were added."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: list[tuple[int, str, str]] = []  # a heap: -hash, role, text
        self.unused = 0
        self._seen: set[int] = set()

    @property
    def found(self) -> int:
        return len(self._seen)

    def add(self, role: str, value: object) -> None:
        text = _text(value)
        if text is None:
            self.unused += 1
            return
        number = int.from_bytes(hashlib.blake2b(f"{role}\0{text}".encode(), digest_size=8).digest())
        if number in self._seen:
            return
        self._seen.add(number)
        if len(self.kept) < self.most:
            heapq.heappush(self.kept, (-number, role, text))
        elif -number > self.kept[0][0]:
            heapq.heapreplace(self.kept, (-number, role, text))


def _lines(path: Path) -> Iterator[tuple[str, object]]:
    try:
        check_regular(path)
        check_content(path)
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                yield "document", line.strip()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text. Convert it, for example with `iconv -t utf-8`.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _roles(source: str, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the role of each column with texts, and the other columns."""
    roles: dict[str, str] = {}
    for role, known in (("query", _QUERIES), ("document", _DOCUMENTS)):
        found = [name for name in names if plain_name(name) in known]
        first = [name for name in found if plain_name(name) == known[0]]
        if len(found) > 1 and len(first) != 1:
            raise DataError(
                f"{source} has the columns {', '.join(found)}, and it is unclear which one holds the "
                f"{'queries' if role == 'query' else 'documents'}. Rename the others."
            )
        roles |= dict.fromkeys(first or found, role)
    either = [name for name in names if plain_name(name) == EITHER]
    if len(either) == 1 and len(set(roles.values())) < 2:
        roles[either[0]] = "query" if "document" in roles.values() else "document"
    if not roles:
        raise DataError(
            f"{source} has the columns {', '.join(names)}, and none holds texts. Name one `query`, `document` or "
            "`text`."
        )
    return roles, [name for name in names if name not in roles]
