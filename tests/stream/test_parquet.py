"""Parquet that takes little on the disk and much in memory, and encodings that few writers use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.errors import DataError
from continual.stream.readers import open_source

Measure = Callable[[], pa.MemoryPool]

TEXT = "x" * 8_000_000
ROWS = 40
PEAK = 120 << 20
"""Less than the texts of `ROWS` rows, which are 320 MB."""


@pytest.fixture
def measure() -> Iterator[Measure]:
    """Begin to count Arrow's memory, with a peak of its own."""
    before = pa.default_memory_pool()
    pools = []  # an array must not outlive its pool

    def begin() -> pa.MemoryPool:
        own = pa.proxy_memory_pool(before)
        pools.append(own)
        pa.set_memory_pool(own)
        return own

    yield begin
    pa.set_memory_pool(before)


def texts(count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [TEXT])


def lists(*ends: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, *ends]), texts(ends[-1]))


def delta(column: str) -> dict[str, object]:
    return {"use_dictionary": False, "column_encoding": {column: "DELTA_BYTE_ARRAY"}}


def write(path: Path, column: pa.Array, **options: object) -> None:
    """Write texts as a plain writer does, whose schema doesn't say that they are dictionaries."""
    table = pa.table({"query": column})
    if options:
        plain = pa.list_(pa.string()) if pa.types.is_list(column.type) else pa.string()
        table = table.cast(pa.schema([("query", plain)]))
    pq.write_table(table, path, store_schema=False, **options)


def read(path: Path, rows: int = 1000) -> list[object]:
    return [value for piece in open_source(str(path)).read(["query"], rows) for value in piece.columns["query"]]


@pytest.mark.parametrize("encoding", ["dictionary", "delta"])
def test_rows_of_one_long_text_are_decoded_one_by_one(tmp_path: Path, measure: Measure, encoding: str) -> None:
    write(tmp_path / "t.parquet", texts(ROWS), **({} if encoding == "dictionary" else delta("query")))
    assert (tmp_path / "t.parquet").stat().st_size < 2_000_000
    pool = measure()
    for piece in open_source(str(tmp_path / "t.parquet")).read(["query"], 1000):
        assert piece.columns["query"] == [TEXT]
    assert pool.max_memory() < PEAK


@pytest.mark.parametrize("encoding", ["dictionary", "delta"])
def test_a_list_of_one_long_text_is_refused(tmp_path: Path, measure: Measure, encoding: str) -> None:
    options = {} if encoding == "dictionary" else delta("query.list.element")
    write(tmp_path / "t.parquet", lists(1, ROWS), **options)
    pool = measure()
    with pytest.raises(DataError, match=r"row 2: its texts take 312 MB, and at most 67 MB are read|within 1GB of"):
        read(tmp_path / "t.parquet")
    assert pool.max_memory() < PEAK


def test_a_list_with_text_that_is_no_utf8_is_one_error(tmp_path: Path) -> None:
    broken = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, 2]), broken)
    pq.write_table(pa.table({"query": lists}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"its lists of texts can't be read.*Write|write the file again"):
        read(tmp_path / "t.parquet")


def test_one_long_text_does_not_slow_the_others(tmp_path: Path) -> None:
    cells = ["y" * 4_000_000, *(f"text {n}" for n in range(3000))]
    pq.write_table(pa.table({"query": cells}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == cells


def test_a_column_that_is_all_compressed_zeros_is_refused(tmp_path: Path, measure: Measure) -> None:
    write(tmp_path / "t.parquet", texts(ROWS), use_dictionary=False, compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 200_000
    pool = measure()
    with pytest.raises(DataError, match="grows to more than 100 times its size"):
        read(tmp_path / "t.parquet")
    assert pool.max_memory() < 10 << 20


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.list_(pa.string())], ids=str)
def test_encodings_of_other_writers_are_read(tmp_path: Path, encoding: str, kind: pa.DataType) -> None:
    plain = [f"text {n}" if n % 7 else None for n in range(500)]
    values = [None if n % 5 == 0 else plain[n : n + n % 4] for n in range(500)] if pa.types.is_list(kind) else plain
    name = "query.list.element" if pa.types.is_list(kind) else "query"
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"query": pa.array(values, kind), "id": range(500)}),
        path,
        row_group_size=130,
        use_dictionary=False,
        column_encoding={name: encoding},
    )
    assert read(path, 90) == values
