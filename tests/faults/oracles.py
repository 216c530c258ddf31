"""What a mutated input says, read without the code that is tested: Python's json, csv, gzip and tomllib, and DuckDB."""

from __future__ import annotations

import csv
import gzip
import io
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

Pairs = set[tuple[str, str]]


def squeezed(text: object) -> str:
    """Return the letters, digits and signs of a text, without what any normal form may change."""
    return "".join(unicodedata.normalize("NFKC", str(text)).split())


def decompressed(file: Path) -> bytes:
    """Return the content of a file that may be compressed.

    Raises:
        Exception: It cannot be decompressed.
    """
    data = file.read_bytes()
    if file.suffix == ".gz":
        return gzip.decompress(data)
    if file.suffix == ".zst":
        return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read())
    return data


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file by name of the column; rows that nothing can be made of are left out."""
    if file.suffix == ".parquet":
        with duckdb.connect(config={"threads": 1}) as connection:
            found = connection.execute(f"SELECT * FROM read_parquet('{file}')")
            names = [column[0] for column in found.description]
            yield from (dict(zip(names, row, strict=True)) for row in found.fetchall())
        return
    text = decompressed(file).decode("utf-8-sig")
    if ".jsonl" in file.name:
        for line in text.split("\n"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row
        return
    if file.suffix == ".tsv":
        header, *lines = text.replace("\r\n", "\n").split("\n")
        for line in filter(None, lines):
            yield dict(zip(header.split("\t"), line.split("\t"), strict=False))
        return
    yield from csv.DictReader(io.StringIO(text, newline=""))


def pairs(files: list[Path], query: str, positive: str) -> Pairs:
    """Return the pairs of files, squeezed."""
    return {
        (squeezed(row.get(query)), squeezed(each))
        for file in files
        for row in rows(file)
        for each in (row[positive] if isinstance(row.get(positive), list) else [row.get(positive)])
    }


def row_count(file: Path, positive: str) -> int | None:
    """Return how many rows a file has; None if a row may count several times, because its positive is a list."""
    if any(isinstance(row.get(positive), list) or str(row.get(positive)).strip()[:1] == "[" for row in rows(file)):
        return None
    if file.suffix == ".parquet":
        return sum(1 for _ in rows(file))
    text = decompressed(file).decode("utf-8-sig")
    if ".jsonl" in file.name:
        return sum(1 for line in text.split("\n") if line.strip())
    if file.suffix == ".tsv":
        return sum(1 for line in text.split("\n") if line.rstrip("\r")) - 1
    return sum(1 for record in csv.reader(io.StringIO(text, newline="")) if record) - 1


def texts(file: Path, title: bool = False) -> dict[str, str]:
    """Return the texts of a file of a task by id, squeezed, without empty ones."""
    joined = {
        str(row.get("_id")): squeezed(f"{(row.get('title') if title else None) or ''} {row.get('text') or ''}")
        for row in rows(file)
    }
    return {name: text for name, text in joined.items() if text}


def judgements(file: Path) -> dict[tuple[str, str], int] | None:
    """Return the grades of a TSV by query and document; None if its header is damaged, and may mean another order."""
    header, *lines = [line.removesuffix("\r") for line in decompressed(file).decode("utf-8-sig").split("\n")]
    if header.split("\t") != ["query-id", "corpus-id", "score"]:
        return None
    fields = [line.split("\t") for line in lines if line]
    return {(query, document): max(0, int(float(grade))) for query, document, grade in fields}


def stored(batch: Path) -> Pairs:
    """Return the pairs that were stored."""
    with duckdb.connect(config={"threads": 1}) as connection:
        found = connection.execute(f"SELECT query, positive FROM read_parquet('{batch}')").fetchall()
    return {(squeezed(query), squeezed(positive)) for query, positive in found}


def tensors(file: Path) -> dict[str, np.ndarray]:
    """Return the fp32 tensors of a safetensors file, read by its specification."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            content = data[8 + size + begin : 8 + size + end]
            kind = {"F32": "<f4", "I64": "<i8", "F16": "<f2"}[about["dtype"]]
            found[name] = np.frombuffer(content, kind).reshape(about["shape"])
    return found
