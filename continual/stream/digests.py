"""Hash the texts of many rows, in this process or as a program that answers requests on its standard input.

This file imports only the standard library, and nothing of the package, so a process that hashes starts in an instant.
The hashes are those of `continual.registry.text`, as bytes.
"""

from __future__ import annotations

import signal
import sys
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from struct import Struct

SEPARATOR = b"\x1f"
DIGEST_BYTES = 16
HEADER = Struct("<5Q")
"""A request begins with its number of pairs and of single texts, and the bytes of the queries, positives and texts."""


def hash_texts(ends: Sequence[int], texts: bytes) -> bytes:
    """Return the digests of texts that follow each other, joined.

    Args:
        ends: The offset of each text, and the end of the last one, of shape `(texts + 1,)`.
        texts: The texts in UTF-8.
    """
    size = DIGEST_BYTES
    spans = pairwise(ends)
    return b"".join([blake2b(texts[begin:end], digest_size=size).digest() for begin, end in spans])


def hash_pairs(query_ends: Sequence[int], queries: bytes, positive_ends: Sequence[int], positives: bytes) -> bytes:
    """Return the digests of rows, of their queries and of their positives, one part after the other.

    The hash of a row continues that of its query.
    """
    size, of_rows, of_queries, of_positives = DIGEST_BYTES, [], [], []
    spans = zip(query_ends, query_ends[1:], positive_ends, positive_ends[1:], strict=False)
    for query_begin, query_end, begin, end in spans:
        state = blake2b(queries[query_begin:query_end], digest_size=size)
        of_queries.append(state.digest())
        positive = positives[begin:end]
        of_positives.append(blake2b(positive, digest_size=size).digest())
        state.update(SEPARATOR + positive)
        of_rows.append(state.digest())
    return b"".join((*of_rows, *of_queries, *of_positives))


def answer(request: bytes) -> bytes:
    """Return the digests of the pairs and then of the single texts of a request.

    After its header come the offsets of the queries, positives and texts as 32-bit integers, and their bytes.
    """
    pairs, singles, *sizes = HEADER.unpack_from(request)
    place = HEADER.size
    parts: list[tuple[array[int], bytes]] = []
    offsets = []
    for count in (pairs, pairs, singles):
        stop = place + 4 * (count + 1)
        offsets.append(array("i", request[place:stop]))
        place = stop
    for ends, size in zip(offsets, sizes, strict=True):
        parts.append((ends, request[place : place + size]))
        place += size
    queries, positives, texts = parts
    return hash_pairs(*queries, *positives) + hash_texts(*texts)


def serve() -> None:
    """Answer requests until the input ends, each with its length before it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends the input
    read, write, length = sys.stdin.buffer, sys.stdout.buffer, Struct("<Q")
    while len(head := read.read(length.size)) == length.size:
        write.write(answer(read.read(*length.unpack(head))))
        write.flush()


if __name__ == "__main__":
    serve()
