"""Texts as sets of shingles, to measure how similar two texts are.

A shingle is a run of three words; case, punctuation and the composition of accents are ignored. The similarity of two
texts is the Jaccard similarity of their sets of shingles: the size of the intersection over the size of the union. One
changed word changes three shingles: two short questions from a template that differ in a name are far apart, and two
pages that differ in a date are close. https://doi.org/10.1109/SEQUEN.1997.666900
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from continual.registry.text import normalise
from continual.stream.hashers import text_buffers

WORDS = 3
"""Words in a shingle; a text with fewer words is one shingle."""

TEXTS = 1 << 15
"""Largest number of texts per call of `shingles`: the text's number goes into the upper bits of a sort key."""

_BITS = 48
_LOW = np.uint64((1 << _BITS) - 1)
_MIX = [np.uint64(factor) for factor in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]

_WORD = bytes(
    byte if byte >= 0x80 or chr(byte).isdecimal() or chr(byte).islower() else byte + 32 if chr(byte).isupper() else 32
    for byte in range(256)
)
"""Byte translation: ASCII letters to lower case, digits and bytes of other scripts unchanged, all others to spaces."""

_UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
_OTHER = re.compile(r"[\W_]+")

_LONG = 64
"""Bytes up to which words are hashed together."""


def _crc_table() -> npt.NDArray[np.uint32]:
    """Return the table of CRC-32: what each value of the lowest byte adds."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> np.uint32(1) ^ np.uint32(0xEDB88320), table >> np.uint32(1))
    return table


_CRC = _crc_table()

Shingles = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def words(text: str) -> list[bytes]:
    """Return the words of a text in lower case; in scripts without spaces, each character is a word.

    >>> words("Don't re-index, 2 times!")
    [b'don', b't', b're', b'index', b'2', b'times']
    """
    return _spelled(text).translate(_WORD).split()


def _spelled(text: str) -> bytes:
    """Return a text in which spaces separate the words of all scripts, but for ASCII punctuation and upper case."""
    if not text.isascii():
        text = _OTHER.sub(" ", _UNSPACED.sub(r" \1 ", normalise(text).casefold()))
    return text.encode()


def shingles(texts: Sequence[str]) -> tuple[Shingles, npt.NDArray[np.int64]]:
    """Return the distinct shingles of texts as 48-bit numbers.

    Args:
        texts: At most `TEXTS` texts.

    Returns:
        The shingles of all texts, grouped by text and ascending within a text, of shape `(shingles,)`; and the number
        of shingles per text, of shape `(texts,)`, 0 for a text without words.
    """
    assert len(texts) <= TEXTS, len(texts)
    spelled = [words(text) for text in texts]
    lengths = np.fromiter(map(len, spelled), np.int64, len(texts))
    hashes = np.fromiter(map(crc32, chain.from_iterable(spelled)), np.uint64, int(lengths.sum()))
    counts = np.where(lengths >= WORDS, lengths - WORDS + 1, np.minimum(lengths, 1))
    owner = np.repeat(np.arange(len(texts)), counts)
    # Index of a shingle's first word: the words of the texts before, plus its position within its own text.
    first = np.repeat(np.cumsum(lengths) - lengths - (np.cumsum(counts) - counts), counts) + np.arange(len(owner))
    end = np.repeat(np.cumsum(lengths), counts)
    values = np.zeros(len(owner), np.uint64)
    for place in range(WORDS):
        word = first + place
        inside = word < end
        values[inside] += _mixed(hashes[word[inside]] + np.uint64(1)) * _MIX[place]
    keys = _distinct(owner.astype(np.uint64) << np.uint64(_BITS) | _mixed(values) & _LOW)
    sizes = np.bincount((keys >> np.uint64(_BITS)).astype(np.int64), minlength=len(texts))
    return keys & _LOW, sizes


def first_shingles(column: Any, share: float) -> tuple[Shingles, Indices, Indices]:
    """Return distinct shingles from the beginning of each text of a column.

    It takes far less time than all shingles, since only the words of the beginning are hashed.

    Args:
        column: At most `TEXTS` texts, an Arrow array of strings.
        share: How much of a text to look at, 0 to 1, beside the first words.

    Returns:
        The shingles of all texts, and the number of the text of each, both of shape `(shingles,)`; and a number of
        shingles that no text has more of, of shape `(texts,)`.
    """
    assert len(column) <= TEXTS, len(column)
    offsets, data, inside = _spelled_bytes(column)
    begins, ends, owner, most = _first_words(offsets, inside, share)
    lengths = np.bincount(owner, minlength=len(column))
    hashes = _mixed(_crc32(data, begins, ends).astype(np.uint64) + np.uint64(1))
    counts = np.where(lengths >= WORDS, lengths - WORDS + 1, np.minimum(lengths, 1))
    # The words of a cut text that has fewer than three so far are no shingle of it.
    counts[(lengths < WORDS) & (lengths < most)] = 0
    first = _ranges(np.cumsum(lengths) - lengths, counts)
    end = np.repeat(np.cumsum(lengths), counts)
    values = np.zeros(len(first), np.uint64)
    for place in range(WORDS):
        word = np.minimum(first + place, end - 1)
        values += np.where(first + place < end, hashes[word] * _MIX[place], np.uint64(0))
    numbers = np.repeat(np.arange(len(column), dtype=np.uint64), counts)
    keys = _distinct(numbers << np.uint64(_BITS) | _mixed(values) & _LOW)
    return keys & _LOW, (keys >> np.uint64(_BITS)).astype(np.int64), np.maximum(most - WORDS + 1, np.minimum(most, 1))


def _spelled_bytes(column: Any) -> tuple[Indices, Bytes, npt.NDArray[np.bool_]]:
    """Return the offsets of texts, their bytes in lower case, and which bytes are part of a word."""
    offsets, data = text_buffers(column)
    if len(data) and data.max() >= 0x80:
        counts = np.concatenate([[0], np.cumsum(data >= 0x80)])
        rows = counts[offsets[1:]] > counts[offsets[:-1]]
        spelled = [_spelled(text) for text in column.filter(pa.array(rows)).to_pylist()]
        binary = pc.replace_with_mask(column.cast(pa.binary()), rows, pa.array(spelled, pa.binary()))
        offsets, data = text_buffers(binary)
    # The bytes that `_WORD` translates, in a few passes: differences wrap around, so they are small only in a range.
    capital = data - np.uint8(ord("A")) < 26
    data = data | capital.view(np.uint8) << np.uint8(5)
    inside = (data - np.uint8(ord("a")) < 26) | (data - np.uint8(ord("0")) < 10) | (data >= 0x80)
    return offsets.astype(np.int64), data, inside


def _first_words(
    offsets: Indices, inside: npt.NDArray[np.bool_], share: float
) -> tuple[Indices, Indices, Indices, Indices]:
    """Return where words at the beginning of texts begin and end, the texts they are of, and the most words of a text.

    A text has at most a word between two bytes that are part of none, so words need not be found to count them. The
    most words of a text that is not cut are its words.

    Args:
        inside: Which bytes are part of a word.
    """
    spaces = np.flatnonzero(~inside)
    before = np.searchsorted(spaces, offsets)  # spaces before each text
    gaps = np.diff(before) + 1
    read = np.minimum(gaps, (share * gaps).astype(np.int64) + WORDS + 1)
    owner = np.repeat(np.arange(len(gaps)), read)
    number = _ranges(before[:-1], read)  # of the space that ends each gap
    ends = np.minimum(np.append(spaces, len(inside))[number], offsets[1:][owner])
    begins = np.zeros_like(ends)
    begins[1:] = ends[:-1] + 1
    begins[np.cumsum(read) - read] = offsets[:-1]
    filled = begins < ends
    begins, ends, owner = begins[filled], ends[filled], owner[filled]
    return begins, ends, owner, np.where(read < gaps, gaps, np.bincount(owner, minlength=len(gaps)))


def _ranges(begins: Indices, counts: Indices) -> Indices:
    """Return the numbers from each of `begins`, so many as `counts` says, one range after the other."""
    return np.repeat(begins - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))


def _crc32(data: Bytes, begins: Indices, ends: Indices) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of parts of `data`, as zlib has it: one byte of all at a time, the longest first."""
    lengths = np.minimum(ends - begins, _LONG + 1)
    order = np.argsort((_LONG + 1 - lengths).astype(np.uint8), kind="stable")
    longer = np.cumsum(np.bincount(lengths, minlength=_LONG + 2)[::-1])[::-1]  # parts of so many bytes or more
    starts = begins[order]
    eight = np.ndarray(len(data), "<u8", np.append(data, np.zeros(8, np.uint8)), strides=(1,))
    sums, some = np.full(len(begins), 0xFFFFFFFF, np.uint32), len(begins)
    lowest = sums.view(np.uint8)[:: sums.itemsize]  # of each sum
    for place in range(_LONG):
        some = int(longer[place + 1])
        if not some:
            break
        if place % 8 == 0:
            ahead = eight[starts[:some] + place].view(np.uint8).reshape(some, 8)
        added = _CRC[lowest[:some] ^ ahead[:some, place % 8]]
        sums[:some] >>= np.uint32(8)
        sums[:some] ^= added
    result = np.empty_like(sums)
    result[order] = ~sums
    for part in np.flatnonzero(lengths > _LONG).tolist():
        result[part] = crc32(data[begins[part] : ends[part]].tobytes())
    return result


def _distinct(keys: Shingles) -> Shingles:
    """Return the different keys in ascending order."""
    keys = np.sort(keys)
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys


def _mixed(values: Shingles) -> Shingles:
    """Mix the bits of numbers, one to one: the finaliser of SplitMix64."""
    values = (values ^ values >> np.uint64(30)) * _MIX[1]
    values = (values ^ values >> np.uint64(27)) * _MIX[2]
    return values ^ values >> np.uint64(31)
