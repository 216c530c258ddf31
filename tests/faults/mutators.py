"""Damage to bytes, drawn by a seeded generator: what disks, editors, exporters and attackers do."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from tests.faults.oracles import decompressed

TOKENS = (
    b'"',
    b"'",
    b"\\",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\r",
    b"\n\n\n",
    b"\t",
    b",",
    b"{",
    b"}",
    b"[" * 3000,
    b'{"a":' * 2000,
    b"null",
    b"NaN",
    b"-1",
    b"0",
    b"1e400",
    b"99999999999999999999999999",
    b"true",
    b'""',
    b"\x1b[2J",
    "\u202e".encode(),
    "\u2028".encode(),
    b"=cmd()",
    b"../../",
    b"x" * 30000,
)


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _noise(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    data[at : at + rng.choice((1, 4, 64))] = rng.randbytes(rng.choice((1, 4, 64)))
    return data


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 16, len(data) // 4 or 1))]
    return data


def _truncate(data: bytearray, rng: random.Random) -> bytearray:
    del data[rng.randrange(len(data)) :]
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    piece = data[at : at + rng.choice((1, 16, 256))]
    data[at:at] = piece * rng.choice((1, 2, 100))
    return data


def _token(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    data[at:at] = rng.choice(TOKENS)
    return data


def _swap(data: bytearray, rng: random.Random) -> bytearray:
    lines = bytes(data).split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return bytearray(b"\n".join(lines))


def _number(data: bytearray, rng: random.Random) -> bytearray:
    """Put another number in the place of one that is written in digits."""
    digits = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
    if not digits:
        return _token(data, rng)
    at = rng.choice(digits)
    data[at : at + 1] = rng.choice((b"0", b"-1", b"1.5", b"1e9", b"99999999999", b"NaN", b'"7"', b"null", b"[1]"))
    return data


OPERATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    _flip,
    _noise,
    _cut,
    _truncate,
    _repeat,
    _token,
    _swap,
    _number,
)


def mutate(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return damaged bytes and the names of what was done."""
    damaged, names = bytearray(data), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        operation = rng.choice(OPERATIONS)
        names.append(operation.__name__.lstrip("_"))
        damaged = operation(damaged, rng) if damaged else damaged
    return bytes(damaged), "+".join(names)


def damage(file: Path, rng: random.Random) -> tuple[bytes, str]:
    """Return the bytes of a damaged file, and what was done.

    Half of the compressed files are damaged before they are compressed: the checksums of the others refuse them all.
    """
    if file.suffix not in (".gz", ".zst") or rng.random() < 0.5:
        return mutate(file.read_bytes(), rng)
    plain, how = mutate(decompressed(file), rng)
    if file.suffix == ".gz":
        return gzip.compress(plain, mtime=0), f"plain {how}"
    return pa.compress(plain, codec="zstd", asbytes=True), f"plain {how}"
