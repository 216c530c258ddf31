"""Texts of rows, and where they occur."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from tests.workspaces import SETTINGS

FROM_BASE = SETTINGS + '[merge]\nmethod = "running-mean"\nstart = "base"\n'
"""Settings with which all updates count the same, whatever their order."""


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else []


def occurrences(directory: Path, texts: list[str]) -> dict[str, str]:
    """Return the files that hold one of the texts, by brute force: raw bytes, and decoded cells of Parquet."""
    found = {}
    for file in directory.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            if file.suffix == ".parquet":
                cells = [text for column in pq.read_table(file).columns for text in strings(column.to_pylist())]
                data += "\0".join(cells).encode()
            for text in texts:
                if text.encode() in data or json.dumps(text).strip('"').encode() in data:
                    found[file.relative_to(directory).as_posix()] = text
    return found


def texts_of(rows: list[dict[str, object]]) -> list[str]:
    return [text for row in rows for text in strings([row["query"], row["positive"], row["negatives"]])]
