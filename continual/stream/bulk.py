"""The good rows of a piece, found for whole columns at a time.

Most texts are stored as they are: one pass over the bytes of a column finds those of printable ASCII without outer
spaces or two in a row. Other texts are cleaned one by one, as in `cells`. Rows that may be bad are left to `stage`,
which looks at every cell and knows the reason.
"""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from continual.registry.text import clean, fault, normalise
from continual.stream.cells import MAX_TEXTS
from continual.stream.hashers import text_buffers
from continual.stream.readers.arrays import ArrowColumns
from continual.stream.readers.base import Piece
from continual.stream.readers.column_types import is_list, is_text
from continual.stream.schema import Mapping

SPACE, BRACKET = 32, ord("[")
PRINTABLE = 94
"""Printable ASCII characters beside the space, which follow it."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of a column.

    Attributes:
        stored: As they are stored, an Arrow array of strings.
        keys: As they are compared.
        good: Which can be stored, of shape `(texts,)`; the others have any value in both arrays.
    """

    stored: Any
    keys: Any
    good: Mask

    def take(self, places: npt.NDArray[np.int64]) -> Texts:
        """Return some of the texts."""
        stored = self.stored.take(pa.array(places))
        keys = stored if self.keys is self.stored else self.keys.take(pa.array(places))
        return Texts(stored, keys, self.good[places])


@dataclass(frozen=True, slots=True)
class GoodRows:
    """Rows of a piece that can be stored.

    Attributes:
        places: Their places in the piece, of shape `(rows,)`.
        queries: Their queries.
        positives: Their positives.
        negatives: Their lists of negatives, an Arrow array.
        negative_texts: The texts in `negatives`.
        doc_ids: Their document ids, an Arrow array of strings.
    """

    places: npt.NDArray[np.int64]
    queries: Texts
    positives: Texts
    negatives: Any
    negative_texts: Texts
    doc_ids: Any


def find_good(piece: Piece, mapping: Mapping, max_chars: int) -> GoodRows | None:
    """Return rows of a piece that can be stored, and have one positive and no score; None if none is known.

    Args:
        piece: Rows of a source.
        mapping: Columns of the source.
        max_chars: Most characters of a text.
    """
    if mapping.score_name is not None:
        return None
    columns = [_array(piece.columns, name) for name in (mapping.query, mapping.positive, *mapping.negatives)]
    ids = None if mapping.doc_id is None else _array(piece.columns, mapping.doc_id)
    if any(column is None for column in columns):
        return None
    if not (is_text(columns[0].type) and is_text(columns[1].type)) or (mapping.doc_id is not None and ids is None):
        return None
    queries, positives = (read_texts(column, max_chars) for column in columns[:2])
    negatives = _read_negatives(columns[2:], len(piece.numbers), max_chars)
    doc_ids = _read_ids(ids, len(piece.numbers), max_chars)
    if negatives is None or doc_ids is None:
        return None
    good = queries.good & positives.good & negatives[2] & doc_ids.good
    good[list(piece.faults)] = False
    places = np.flatnonzero(good)
    if not len(places):
        return None
    lists, texts, _ = negatives
    return GoodRows(
        places,
        queries.take(places),
        positives.take(places),
        *_take_lists(lists, texts, places),
        doc_ids.stored.take(pa.array(places)),
    )


def read_texts(column: Any, max_chars: int) -> Texts:
    """Return the texts of a column of strings, of which those that may hold a list as JSON are not good.

    Args:
        column: An Arrow array.
        max_chars: Most characters of a text.
    """
    column = column.cast(pa.string())
    plain, other = _plain(column, max_chars)
    changed, stored, keys = [], [], []
    for place, text in zip(other.tolist(), _python(column, other), strict=True):
        cleaned = clean(text) if text is not None else ""
        if not cleaned or cleaned[0] == "[" or fault(cleaned, max_chars) is not None:
            continue
        changed.append(place)
        stored.append(cleaned)
        keys.append(normalise(cleaned))
    if not changed:
        return Texts(column, column, plain)
    mask = np.zeros(len(column), np.bool_)
    mask[changed] = True
    both = [pc.replace_with_mask(column, mask, pa.array(texts, pa.string())) for texts in (stored, keys)]
    return Texts(both[0], both[1] if stored != keys else both[0], plain | mask)


def _plain(column: Any, max_chars: int) -> tuple[Mask, npt.NDArray[np.int64]]:
    """Return which texts are stored and compared as they are, and the places of the others that are not missing."""
    offsets, data = text_buffers(column)
    begins, ends = offsets[:-1], offsets[1:]
    filled = (ends > begins) & column.is_valid().to_numpy(zero_copy_only=False)
    if not len(data):
        return np.zeros(len(column), np.bool_), np.zeros(0, np.int64)
    first, last = data[np.minimum(begins, len(data) - 1)], data[np.maximum(ends, 1) - 1]
    plain = filled & (ends - begins <= max_chars) & (first != SPACE) & (last != SPACE) & (first != BRACKET)
    odd = (data - np.uint8(SPACE)) > PRINTABLE
    space = data == SPACE
    odd[1:] |= space[1:] & space[:-1]
    if odd.any():
        counts = np.zeros(len(data) + 1, np.int32)
        np.cumsum(odd, dtype=np.int32, out=counts[1:])
        plain &= counts[ends] == counts[begins]
    return plain, np.flatnonzero(filled & ~plain)


def _python(column: Any, places: npt.NDArray[np.int64]) -> Sequence[str | None]:
    """Return some texts of a column as Python strings; None for all if one is not valid UTF-8."""
    try:
        return column.take(pa.array(places)).to_numpy(zero_copy_only=False).tolist() if len(places) else []
    except UnicodeDecodeError:
        return [None] * len(places)


def _array(columns: AnyMapping[str, Any], name: str) -> Any:
    """Return a column of a piece as an Arrow array; None if its values have no common type."""
    if isinstance(columns, ArrowColumns):
        return columns.arrays[name]
    try:
        return pa.array(columns[name])
    except (ValueError, TypeError, OverflowError):  # of Arrow, and of text with lone surrogates
        return None


def _read_ids(ids: Any, rows: int, max_chars: int) -> Texts | None:
    """Return document ids as texts, missing where the row has none; None if each must be looked at."""
    if ids is None or types.is_null(ids.type):
        none = pa.nulls(rows, pa.string())
        return Texts(none, none, np.ones(rows, np.bool_))
    if types.is_integer(ids.type):
        return Texts(ids.cast(pa.string()), None, np.ones(rows, np.bool_))
    if types.is_float32(ids.type) or types.is_float64(ids.type):
        numbers = ids.cast(pa.float64()).to_numpy(zero_copy_only=False)  # NaN where missing
        missing = np.isnan(numbers)
        whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**63)
        texts = pa.array(np.where(whole, numbers, 0.0).astype(np.int64), mask=missing).cast(pa.string())
        return Texts(texts, None, whole | missing)
    if not is_text(ids.type):
        return None
    texts = read_texts(ids, max_chars)
    missing = pc.fill_null(pc.equal(pc.binary_length(ids.cast(pa.string())), 0), True)
    missing = missing.to_numpy(zero_copy_only=False)
    stored = texts.stored
    if missing.any():
        stored = pc.replace_with_mask(stored, missing, pa.nulls(int(missing.sum()), pa.string()))
    return Texts(stored, None, texts.good | missing)


def _read_negatives(
    columns: Sequence[Any], rows: int, max_chars: int
) -> tuple[npt.NDArray[np.int64], Texts, Mask] | None:
    """Return how many negatives each row has, their texts, and which rows' can be stored; None if there are others.

    Rows with an empty negative are not among those that can be stored.
    """
    counts = np.zeros((rows, len(columns)), np.int64)
    flat = []
    for number, column in enumerate(columns):
        if is_list(column.type) and is_text(column.type.value_type):
            counts[:, number] = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            flat.append(column.flatten())
        elif is_text(column.type):
            counts[:, number] = column.is_valid().to_numpy(zero_copy_only=False)
            flat.append(column.cast(pa.string()).drop_null())
        elif not types.is_null(column.type):
            return None
    totals = counts.sum(axis=1)
    if not totals.sum():
        empty = pa.array([], pa.string())
        return totals, Texts(empty, empty, np.zeros(0, np.bool_)), np.ones(rows, np.bool_)
    texts = read_texts(pa.concat_arrays([part.cast(pa.string()) for part in flat]), max_chars)
    if len(columns) > 1:  # from one column after the other to one row after the other
        owners = np.concatenate(
            [np.repeat(np.arange(rows) * len(columns) + n, counts[:, n]) for n in range(len(columns))]
        )
        texts = texts.take(np.argsort(owners, kind="stable"))
    bad = np.bincount(np.repeat(np.arange(rows), totals), weights=~texts.good, minlength=rows)
    return totals, texts, (bad == 0) & (counts.max(axis=1) <= MAX_TEXTS)


def _take_lists(totals: npt.NDArray[np.int64], texts: Texts, places: npt.NDArray[np.int64]) -> tuple[Any, Texts]:
    """Return the lists of some rows, as an Arrow array, and their texts."""
    ends = np.cumsum(totals)
    kept = totals[places]
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
    if len(places) < len(totals):
        items = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - (ends - totals)[places], kept)
        texts = texts.take(items)
    kind = pa.list_(pa.field("element", pa.string(), nullable=False))
    return pa.ListArray.from_arrays(pa.array(offsets), texts.stored, type=kind), texts
