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
from zlib import crc32

import numpy as np
import numpy.typing as npt

from continual.registry.text import normalise

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

Shingles = npt.NDArray[np.uint64]


def words(text: str) -> list[bytes]:
    """Return the words of a text in lower case; in scripts without spaces, each character is a word.

    >>> words("Don't re-index, 2 times!")
    [b'don', b't', b're', b'index', b'2', b'times']
    """
    if not text.isascii():
        text = _OTHER.sub(" ", _UNSPACED.sub(r" \1 ", normalise(text).casefold()))
    return text.encode().translate(_WORD).split()


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
    keys = np.sort(owner.astype(np.uint64) << np.uint64(_BITS) | _mixed(values) & _LOW)
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    sizes = np.bincount((keys >> np.uint64(_BITS)).astype(np.int64), minlength=len(texts))
    return keys & _LOW, sizes


def _mixed(values: Shingles) -> Shingles:
    """Mix the bits of numbers, one to one: the finaliser of SplitMix64."""
    values = (values ^ values >> np.uint64(30)) * _MIX[1]
    values = (values ^ values >> np.uint64(27)) * _MIX[2]
    return values ^ values >> np.uint64(31)
