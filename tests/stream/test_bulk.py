"""Rows that are checked by columns get the same fate, and the same stored content, as rows checked one by one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config import IngestConfig
from continual.registry.text import DIGEST_BYTES, SEPARATOR, clean, hash_row, hash_text, normalise
from continual.stream import IngestReport, digests, hashers, ingest
from continual.stream.ahead import ahead
from continual.stream.bulk import read_texts
from continual.stream.cells import BadRow, read_query
from continual.stream.hashers import Hashers, hash_column, hex_column
from continual.stream.shingles import first_shingles, shingles
from continual.stream.shingles import words as words_of
from tests.rows import make_pairs
from tests.stream.rows import new_registry, stored, task_rows

CONFIG = IngestConfig(max_reject_share=1.0, max_chars=60, batch_rows=7)

AWKWARD = [
    *("plain", " outer ", "two  spaces", "tab\tand\nlines\n", "", "   ", "\x1funit", "bell\x07", "nul\0", "\x7fdel"),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "\ufb01ne",
        "\u00a0no-break\u00a0",
        "\u3000wide\u3000",
        "\u6771\u4eac",
        "emoji \U0001f600",
    ),
    *(
        "x" * 60,
        "x" * 61,
        "\u00e9" * 60,
        "\u00e9" * 61,
        " " + "x" * 60,
        "[1]",
        '["a", "b"]',
        " [2]",
        "['a']",
        "[not",
        "12",
    ),
    *(
        "\u0661\u0662",
        "\ufeffmark",
        "a\u2028b",
        "\u200b",
        "\uff3bfull\uff3d",
        "end ",
        "a \u00a0 b",
        "A",
        "a",
        "null",
        "NaN",
    ),
]


def awkward_rows() -> list[dict[str, object]]:
    """Every awkward text in every column beside plain ones, and rows that are equal but for what is not compared."""
    rows: list[dict[str, object]] = []
    for number, text in enumerate(AWKWARD):
        own = {
            "query": f"query {number}",
            "positive": f"positive {number}",
            "negatives": [f"other {number}"],
            "doc_id": "d",
        }
        rows += [own | {"query": text}, own | {"positive": text}, own | {"doc_id": text}]
        rows += [
            own | {"query": f"{number} n", "negatives": given} for given in ([text], ["fine", text], [], [text] * 3)
        ]
    for _ in range(2):
        rows += [{"query": " same\tpair", "positive": "p\u00a0q", "negatives": None, "doc_id": None}]
        rows += [{"query": "same pair", "positive": "p q", "negatives": ["n"], "doc_id": None}]
        rows += [{"query": "same  pair", "positive": "p q", "negatives": ["m"], "doc_id": "e"}]
    rows += [{"query": None, "positive": "p", "negatives": None, "doc_id": None}]
    rows += [{"query": "17", "positive": "4", "negatives": [None, "", "x"], "doc_id": ""}]
    rows += [{"query": "q of n", "positive": "n1", "negatives": ["n1", "n2"], "doc_id": None}]
    rows += [dict(row) | {"negatives": [], "doc_id": f"d{n // 3}"} for n, row in enumerate(make_pairs(60))]
    random.Random(0).shuffle(rows)
    return rows


def parquet(path: Path, rows: list[dict[str, object]], **types: pa.DataType) -> None:
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    pq.write_table(table, path, row_group_size=100)


def json_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def numbers_as_ids(path: Path, rows: list[dict[str, object]]) -> None:
    parquet(path, [row | {"doc_id": n // 2 if n % 5 else None} for n, row in enumerate(rows)])


def fractions_as_ids(path: Path, rows: list[dict[str, object]]) -> None:
    some = [0.0, -3.0, 2.5, None, float("nan"), 1e300, float("inf"), 7.0]
    parquet(path, [row | {"doc_id": some[n % len(some)]} for n, row in enumerate(rows)])


def columns_of_negatives(path: Path, rows: list[dict[str, object]]) -> None:
    wide = []
    for row in rows:
        given = row["negatives"] if isinstance(row["negatives"], list) else []
        plain = {name: value for name, value in row.items() if name != "negatives"}
        wide.append(plain | {f"negative_{n}": given[n - 1] if len(given) >= n else None for n in (1, 2, 3)})
    parquet(path, wide)


def mixed_types(path: Path, rows: list[dict[str, object]]) -> None:
    odd: list[dict[str, object]] = [
        {"query": 5, "positive": "p"},
        {"query": "q", "positive": ["one", " two"]},
        {"query": "\ud800", "positive": "p"},
    ]
    json_lines(path, [*rows[:90], *odd, *rows[90:]])


def large_texts(path: Path, rows: list[dict[str, object]]) -> None:
    parquet(path, rows, query=pa.large_string(), positive=pa.string_view(), negatives=pa.large_list(pa.large_string()))


def coded_texts(path: Path, rows: list[dict[str, object]]) -> None:
    parquet(path, rows, query=pa.dictionary(pa.int32(), pa.string()), doc_id=pa.dictionary(pa.int8(), pa.string()))


WRITERS = [
    parquet,
    json_lines,
    numbers_as_ids,
    fractions_as_ids,
    columns_of_negatives,
    mixed_types,
    large_texts,
    coded_texts,
]


def outcome(folder: Path, source: Path) -> tuple[IngestReport, object]:
    registry = new_registry(folder)
    report = ingest(registry, CONFIG, str(source), domain="a")
    assert report.rejects_path is not None
    rejects = registry.path(report.rejects_path).read_text()
    return report, (rejects, stored(registry, "b1"), task_rows(registry, "a"))


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_columns_and_single_rows_have_one_outcome(
    write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / ("rows.jsonl" if write in (json_lines, mixed_types) else "rows.parquet")
    write(source, awkward_rows())  # type: ignore[operator]
    found = []
    monkeypatch.setattr("continual.stream.stage.find_good", spy(found))
    report, by_column = outcome(tmp_path / "columns", source)
    assert sum(found) > 100
    monkeypatch.setattr("continual.stream.stage.find_good", lambda *_: None)
    expected, one_by_one = outcome(tmp_path / "rows", source)
    assert report == expected
    assert by_column == one_by_one
    assert report.kept > 50
    assert report.rejected > 10
    assert report.duplicates > 1
    assert report.held_out > 1


def spy(found: list[int]) -> object:
    from continual.stream.bulk import find_good

    def counted(*args: object) -> object:
        good = find_good(*args)  # type: ignore[arg-type]
        found.append(0 if good is None else len(good.places))
        return good

    return counted


@given(st.lists(st.one_of(st.none(), st.sampled_from(AWKWARD), st.text(max_size=70)), max_size=20))
def test_texts_of_a_column_are_read_as_cells_are(texts: list[str | None]) -> None:
    try:
        column = pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return  # lone surrogates are in no Arrow array
    read = read_texts(pa.concat_arrays([pa.array(["before"]), column]).slice(1), 60)
    for place, text in enumerate(texts):
        if not read.good[place]:
            continue
        assert text is not None
        assert (read.stored[place].as_py(), read.keys[place].as_py()) == read_query(text, 60)
    plain = [place for place, text in enumerate(texts) if text and text.isalnum() and len(text) <= 60]
    assert read.good[plain].all()


def test_a_text_that_may_be_a_list_is_left_to_the_cells() -> None:
    read = read_texts(pa.array(['["a"]', "\n[1]", "a [1]"]), 60)
    assert read.good.tolist() == [False, False, True]
    with pytest.raises(BadRow):
        read_query('["a"]', 60)


TEXTS = ["", "a", " b  c ", "caf\u00e9", "\u6771\u4eac " * 50, "x" * 300]


def keys(texts: list[str]) -> pa.Array:
    return pa.array([normalise(clean(text)) for text in texts])


def expected(texts: list[str]) -> tuple[list[str], list[str], list[str], list[str]]:
    backwards = texts[::-1]
    rows = [hash_row(query, positive) for query, positive in zip(texts, backwards, strict=True)]
    return rows, [*map(hash_text, texts)], [*map(hash_text, backwards)], [*map(hash_text, texts[:3])]


def shown(hashes: hashers.Hashes) -> tuple[list[str], ...]:
    parts = (hashes.rows, hashes.queries, hashes.positives, hashes.texts)
    return tuple(hex_column(hash_column(part)).to_pylist() for part in parts)


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hashers]:
    monkeypatch.setattr(hashers, "START_ROWS", 0)
    monkeypatch.setattr(hashers.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    with Hashers() as found:
        yield found


def test_hashes_are_those_of_the_registry_here_and_in_processes(
    several: Hashers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SEPARATOR.encode() == digests.SEPARATOR
    assert digests.DIGEST_BYTES == DIGEST_BYTES
    columns = keys(TEXTS), keys(TEXTS[::-1]), keys(TEXTS[:3])
    futures = [several.submit(*columns) for _ in range(8)]
    assert several.waiting > 0
    monkeypatch.setattr(hashers, "START_ROWS", 1000)
    with Hashers() as alone:
        futures.append(alone.submit(*columns))
        assert alone.waiting == 0
    assert all(shown(future.result()) == expected(TEXTS) for future in futures)
    assert shown(several.submit(*(column.slice(1, 2) for column in columns)).result())[1] == expected(TEXTS)[1][1:3]


def test_a_process_that_dies_is_not_missed(several: Hashers) -> None:
    columns = keys(TEXTS), keys(TEXTS[::-1]), keys(TEXTS[:3])
    several.submit(*columns).result()
    for process in several._all:
        process.kill()
        process.wait()
    assert shown(several.submit(*columns).result()) == expected(TEXTS)


def test_items_come_in_order_and_errors_where_they_are() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("end")

    found = []
    with pytest.raises(ValueError, match="end"):
        for item in ahead(items()):
            found.append(item)
    assert found == [0, 1, 2]
    assert list(ahead(iter([]))) == []


@given(st.lists(st.one_of(st.text(alphabet="ab  ,'1Z\u00e9\u6771", max_size=60), st.text(max_size=20)), max_size=8))
def test_first_shingles_are_shingles(texts: list[str]) -> None:
    texts = [text for text in texts if not any("\ud800" <= char <= "\udfff" for char in text)]
    values, owner, counts = first_shingles(pa.array(texts, pa.string()), 0.25)
    wanted, sizes = shingles(texts)
    sets = [set(part.tolist()) for part in np.split(wanted, np.cumsum(sizes)[:-1])] if texts else []
    for number, text in enumerate(texts):
        length = len(words_of(text))
        assert counts[number] >= max(length - 2, min(length, 1))
        own = values[owner == number].tolist()
        assert len(set(own)) == len(own)
        assert set(own) <= sets[number]


def test_first_shingles_of_a_text_without_repetitions() -> None:
    texts = [" ".join(f"w{n}" for n in range(words)) for words in (0, 1, 2, 3, 42, 402)] + ["y" * 500 + " z z"]
    values, owner, counts = first_shingles(pa.array(texts), 0.25)
    assert counts.tolist() == [0, 1, 1, 1, 40, 400, 1]
    assert np.bincount(owner, minlength=7).tolist() == [0, 1, 1, 1, 12, 102, 1]
    for number, text in enumerate(texts):
        taken = int((owner == number).sum())
        start = " ".join(text.split()[: taken + 2])
        assert sorted(values[owner == number].tolist()) == shingles([start])[0].tolist()


def test_bytes_are_summed_as_zlib_does() -> None:
    from continual.stream.shingles import _crc32

    data = bytes(range(256)) * 3
    begins, ends = np.array([0, 5, 9, 100, 0, 64]), np.array([1, 9, 9, 500, 64, 129])
    sums = _crc32(np.frombuffer(data, np.uint8), begins, ends)
    assert sums.tolist() == [crc32(data[begin:end]) for begin, end in zip(begins, ends, strict=True)]
