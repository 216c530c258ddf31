"""Made-up pairs: rows that a tiny model can learn."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

WORDS = [consonant + vowel + end for consonant in "bcdfghjklmnpqrstvwxyz" for vowel in "aeiou" for end in "lt"]

SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("positive", pa.string()),
        ("negatives", pa.list_(pa.string())),
        ("doc_id", pa.string()),
        ("domain", pa.string()),
    ]
)
"""Columns of a draw: what training reads."""

Write = Callable[[str, list[dict[str, object]]], Path]
"""Writes rows to a Parquet file of the given name: the fixture `write_pairs`."""


def sentence(rng: random.Random, words: int) -> str:
    """Return some made-up words."""
    return " ".join(rng.choice(WORDS) for _ in range(words))


def make_pairs(rows: int, seed: int = 0, offset: int = 0) -> list[dict[str, object]]:
    """Return rows whose query shares words with its positive: a domain that can be learned."""
    rng = random.Random(seed)
    pairs: list[dict[str, object]] = []
    for number in range(offset, offset + rows):
        topic = sentence(rng, 4)
        pairs.append(
            {
                "query": topic,
                "positive": f"{sentence(rng, 3)} {topic} {sentence(rng, 6)}",
                "negatives": [sentence(rng, 10)],
                "doc_id": f"d{seed}-{number}",
            }
        )
    return pairs
