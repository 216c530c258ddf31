"""Search for removed texts in every byte of a workspace: raw files, decoded Parquet cells, and cells of the catalog.

A text is searched for in UTF-8 and in the two ways in which JSON escapes it. Texts that would be found by chance are
compared only with whole cells of the columns that hold texts of rows and tasks: short ones, and those that are also a
part of the base model's files or of other texts. An id or a status is no text, whatever it looks like.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.forget.walk import chunks, walk
from continual.progress import SILENT, Progress
from continual.registry.catalog import Catalog
from continual.stream.cells import SHOWN_CHARS

LEAST_BYTES = 12
"""Shorter texts are compared only with whole cells: a single word also occurs in settings and vocabularies."""

MOST_BYTES = 1024
"""Bytes of a text that are compared."""

TEXT_COLUMNS = ("query", "positive", "negatives", "text")
"""Columns of Parquet files that hold texts of rows and tasks."""

Hit = Literal["text", "short"]
"""What a file holds: a removed text, or only a whole cell that equals one of less than `LEAST_BYTES`."""

CHUNK_BYTES = 8 << 20
READ_ROWS = 10_000

_KEY = 8
_BITS = np.uint64(20)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Found:
    """The result of a search. Paths are relative to the folder.

    Attributes:
        files: Number of files that were read.
        bytes: Their size.
        hits: Files that hold a removed text.
        short: Files in which only a whole cell equals a short removed text, perhaps by chance.
        unread: Files and folders that can't be read.
        links: Links that lead out of the folder and were not followed.
    """

    files: int
    bytes: int
    hits: list[str]
    short: list[str]
    unread: list[str]
    links: list[str]


class Searcher:
    """Search for many byte strings at once.

    Args:
        forms: The strings, each of `LEAST_BYTES` or more.
    """

    def __init__(self, forms: Iterable[bytes]) -> None:
        self.forms = sorted(set(forms))
        self.longest = max(map(len, self.forms), default=0)
        self._by_key: dict[int, list[int]] = {}
        for place, form in enumerate(self.forms):
            self._by_key.setdefault(int.from_bytes(form[:_KEY], "little"), []).append(place)
        self._keys = np.array(sorted(self._by_key), np.uint64)
        self._table = np.zeros(1 << int(_BITS), bool)
        self._table[_hashed(self._keys)] = True

    def find(self, data: bytes | memoryview) -> set[bytes]:
        """Return the strings that occur in data."""
        found: set[bytes] = set()
        data = bytes(data)
        for shift in range(_KEY if self.forms else 0):
            count = (len(data) - shift) // _KEY
            if count <= 0:
                break
            keys = np.frombuffer(data, "<u8", count, shift)
            places = np.flatnonzero(self._table[_hashed(keys)])
            if not places.size:  # as nearly always
                continue
            places = places[np.isin(keys[places], self._keys)]
            for place in places.tolist():
                start = shift + _KEY * place
                for form in self._by_key[int(keys[place])]:
                    if data.startswith(self.forms[form], start):
                        found.add(self.forms[form])
        return found


def _hashed(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (keys * _MIX) >> (np.uint64(64) - _BITS)


def forms_of(text: str) -> set[bytes]:
    """Return the byte strings by which a text is found, without those that are too short."""
    forms: set[str] = set()
    for shown in (text, text[:SHOWN_CHARS]):  # reject files shorten long texts
        forms |= {shown, json.dumps(shown)[1:-1], json.dumps(shown, ensure_ascii=False)[1:-1]}
    return {form.encode()[:MOST_BYTES] for form in forms if len(form.encode()) >= LEAST_BYTES}


def texts_in(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the texts of a column of any type as arrays of strings."""
    if isinstance(array, pa.ChunkedArray):
        for chunk in array.chunks:
            yield from texts_in(chunk)
    elif pa.types.is_dictionary(array.type):
        yield from texts_in(array.dictionary)
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        yield array
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield from texts_in(array.flatten())
    elif pa.types.is_struct(array.type):
        for field in array.flatten():
            yield from texts_in(field)


def parquet_cells(file: Path) -> Iterator[tuple[str, pa.Array]]:
    """Yield the names of the columns of a Parquet file with arrays of their texts.

    Raises:
        ArrowException: It can't be read as Parquet.
    """
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(READ_ROWS, use_threads=False):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for array in texts_in(column):
                    yield name, array


def joined(array: pa.Array) -> bytes:
    """Return the texts of an array as bytes, with a byte between them that no text has."""
    return "\0".join(text for text in array.to_pylist() if text is not None).encode()


class Search:
    """The search for removed texts.

    Args:
        texts: The texts.
        apart: Forms that are also a part of other files or texts, so that only whole cells are compared with them.
    """

    def __init__(self, texts: Sequence[str], apart: set[bytes] = frozenset()) -> None:  # type: ignore[assignment]
        self.texts = sorted(set(texts))
        self.apart = apart
        forms = {text: forms_of(text) for text in self.texts}
        self.searcher = Searcher({form for own in forms.values() for form in own} - apart)
        self.whole_only = sum(not own - apart for own in forms.values())
        self._cells = pa.array(self.texts, pa.string())

    def in_file(self, file: Path) -> Hit | None:
        """Return what of the removed texts a file holds.

        Raises:
            OSError: It can't be read.
            ArrowException: It is named as Parquet, and can't be read as such.
        """
        if any(self.searcher.find(chunk) for chunk in chunks(file, CHUNK_BYTES, self.searcher.longest)):
            return "text"
        if file.suffix not in (".parquet", ".partial"):
            return None
        found: Hit | None = None
        try:
            for name, array in parquet_cells(file):
                whole = self._whole(array) if name in TEXT_COLUMNS else None
                if whole == "text" or self.searcher.find(joined(array)):
                    return "text"
                found = found or whole
        except (pa.ArrowException, UnicodeDecodeError):
            if file.suffix == ".parquet":  # an unfinished file may be of any kind
                raise
        return found

    def _whole(self, array: pa.Array) -> Hit | None:
        """Return whether whole cells of an array equal removed texts, long or short ones."""
        array = array.cast(pa.string())
        equal = array.filter(pc.is_in(array, value_set=self._cells)).to_pylist()
        if not equal:
            return None
        return "text" if any(len(text.encode()) >= LEAST_BYTES for text in equal) else "short"

    def in_catalog(self, catalog: Catalog) -> list[str]:
        """Return the columns of the catalog with a value that holds a removed text; the file compresses its values.

        Short texts are not compared: the catalog holds names, states and settings, and no text of a row.
        """
        found = []
        with catalog.reading() as connection:
            for (table,) in connection.execute("SHOW TABLES").fetchall():
                quoted = table.replace('"', '""')
                cursor = connection.execute(f'SELECT * FROM "{quoted}"')
                columns = [column[0] for column in cursor.description or []]
                for column, values in zip(columns, zip(*cursor.fetchall(), strict=True), strict=False):
                    texts = (value for value in values if isinstance(value, str))
                    if self.searcher.find("\0".join(texts).encode()):
                        found.append(f"{table}.{column}")
        return found


def search_folder(
    folder: Path,
    search: Search,
    *,
    without: Collection[Path] = (),
    follow: bool = False,
    progress: Progress = SILENT,
) -> Found:
    """Search all files below a folder.

    Args:
        without: Files and folders to leave out.
        follow: Whether to follow links that lead out of the folder.
    """
    listed = walk(folder, without=without, follow=follow)
    read, kinds = 0, {"text": list[str](), "short": list[str](), "unread": listed.unread}
    progress.start("searching for removed texts", listed.bytes, "bytes")
    for file, size in listed.files:
        hit: str | None = None
        try:
            hit = search.in_file(file)
            read += 1
        except FileNotFoundError:
            pass  # removed meanwhile
        except (OSError, pa.ArrowException, UnicodeDecodeError):
            hit = "unread"
        if hit is not None:
            kinds[hit].append(listed.name(file))
        progress.advance(size)
    progress.finish()
    return Found(read, listed.bytes, kinds["text"], kinds["short"], sorted(kinds["unread"]), listed.links)


def forms_elsewhere(searcher: Searcher, folder: Path, arrays: Iterable[Any]) -> set[bytes]:
    """Return the forms that also occur in a folder of the base model, or in texts that stay.

    Args:
        searcher: Of the forms of removed texts.
        folder: The root base.
        arrays: Arrays of texts that stay.
    """
    found: set[bytes] = set()
    for file, _ in walk(folder, follow=True).files:
        if file.suffix != ".safetensors":  # weights hold no text
            for chunk in chunks(file, CHUNK_BYTES, searcher.longest):
                found |= searcher.find(chunk)
    for array in arrays:
        data = joined(array)
        found |= searcher.find(data)
        # JSON escapes a text that stays as it does a removed one, so its escaped parts may be found as well.
        found |= searcher.find(json.dumps(data.decode()).encode())
        found |= searcher.find(json.dumps(data.decode(), ensure_ascii=False).encode())
    return found
