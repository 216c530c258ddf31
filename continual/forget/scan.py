"""Search for removed texts in every byte of a workspace: raw files, decoded Parquet cells, and cells of the catalog.

A text is searched for in UTF-8 and in the two ways in which JSON escapes it. Texts that would be found by chance are
compared only with whole cells: short ones, and those that are also a part of the base model's files or of other texts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.progress import SILENT, Progress
from continual.registry.catalog import Catalog
from continual.stream.cells import SHOWN_CHARS

LEAST_BYTES = 12
"""Shorter texts are compared only with whole cells: a single word also occurs in settings and vocabularies."""

MOST_BYTES = 1024
"""Bytes of a text that are compared."""

CHUNK_BYTES = 8 << 20
READ_ROWS = 10_000

_KEY = 8
_BITS = np.uint64(20)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        files: Number of files that were read.
        bytes: Their size.
        hits: Files that hold a removed text, relative to the folder.
    """

    files: int
    bytes: int
    hits: list[str]


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


def parquet_texts(file: Path) -> Iterator[pa.Array]:
    """Yield the texts of a Parquet file; nothing if it can't be read as one."""
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(READ_ROWS, use_threads=False):
                for column in batch.columns:
                    yield from texts_in(column)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return


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

    def in_file(self, file: Path) -> bool:
        """Return whether a file holds a removed text."""
        if any(self.in_chunk(chunk) for chunk in _chunks(file, self.searcher.longest)):
            return True
        return file.suffix in (".parquet", ".partial") and any(map(self.in_cells, parquet_texts(file)))

    def in_chunk(self, data: bytes) -> bool:
        """Return whether data holds a removed text."""
        return bool(self.searcher.find(data))

    def in_cells(self, array: pa.Array) -> bool:
        """Return whether an array of texts has a removed text, as a whole or as a part."""
        whole = pc.any(pc.is_in(array.cast(pa.string()), value_set=self._cells)).as_py()
        return bool(whole) or bool(self.searcher.find(joined(array)))

    def in_catalog(self, catalog: Catalog) -> bool:
        """Return whether a value of the catalog holds a removed text; the file itself compresses them."""
        with catalog.reading() as connection:
            for (table,) in connection.execute("SHOW TABLES").fetchall():
                for row in connection.execute(f'SELECT * FROM "{table}"').fetchall():
                    cells = [value for value in row if isinstance(value, str)]
                    if cells and self.in_cells(pa.array(cells, pa.string())):
                        return True
        return False


def search_folder(folder: Path, search: Search, *, without: Sequence[Path] = (), progress: Progress = SILENT) -> Found:
    """Search all files below a folder.

    Args:
        without: Files and folders to leave out.
    """
    files = [file for file in _files(folder) if not any(file.is_relative_to(path) for path in without)]
    size, hits = sum(file.stat().st_size for file in files), []
    progress.start("searching for removed texts", size, "bytes")
    for file in files:
        if search.in_file(file):
            hits.append(file.relative_to(folder).as_posix())
        progress.advance(file.stat().st_size)
    progress.finish()
    return Found(len(files), size, sorted(hits))


def _files(folder: Path) -> list[Path]:
    found = []
    for place, _, names in os.walk(folder):
        found += [Path(place, name) for name in names]
    return sorted(file for file in found if file.is_file() and not file.is_symlink())


def _chunks(file: Path, overlap: int) -> Iterator[bytes]:
    """Yield a file in chunks that overlap, so that no text is cut."""
    before = b""
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            yield before + chunk
            before = (before + chunk)[-max(overlap - 1, 1) :]


def forms_elsewhere(searcher: Searcher, folder: Path, arrays: Iterable[Any]) -> set[bytes]:
    """Return the forms that also occur in a folder of the base model, or in texts that stay.

    Args:
        searcher: Of the forms of removed texts.
        folder: The root base.
        arrays: Arrays of texts that stay.
    """
    found: set[bytes] = set()
    for file in _files(folder):
        if file.suffix != ".safetensors":  # weights hold no text
            for chunk in _chunks(file, searcher.longest):
                found |= searcher.find(chunk)
    for array in arrays:
        data = joined(array)
        found |= searcher.find(data)
        # JSON escapes a text that stays as it does a removed one, so its escaped parts may be found as well.
        found |= searcher.find(json.dumps(data.decode()).encode())
        found |= searcher.find(json.dumps(data.decode(), ensure_ascii=False).encode())
    return found
