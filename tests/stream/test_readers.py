"""Reading files: formats, columns, and everything that can be wrong with them."""

from __future__ import annotations

import csv
import gzip
import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.errors import DataError
from continual.registry.text import (
    SEPARATOR,
    clean,
    fault,
    hash_row,
    hash_text,
    normalise,
)
from continual.stream.readers import Dialect
from continual.stream.readers.open import Source, open_source
from continual.stream.schema import Columns, Mapping, resolve

ROWS = [{"query": f"q{i}", "positive": f"p{i}\n{i}", "negatives": [f"n{i}", "m"] if i % 2 else []} for i in range(10)]


def read_all(source: Source, columns: list[str], batch_rows: int = 3) -> tuple[list[int], dict[str, list], dict]:
    numbers: list[int] = []
    values: dict[str, list] = {name: [] for name in columns}
    faults = {}
    for piece in source.read(columns, batch_rows):
        assert 0 < len(piece.numbers) <= batch_rows
        faults |= {piece.numbers[index]: reason for index, reason in piece.faults.items()}
        numbers += piece.numbers
        for name in columns:
            assert len(piece.columns[name]) == len(piece.numbers)
            values[name] += piece.columns[name]
    return numbers, values, faults


def write(folder: Path, kind: str) -> Path:
    path = folder / f"rows.v1.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=4)
        return path
    if kind.endswith(".zst"):
        plain = write(folder, kind.removesuffix(".zst")).read_bytes()
        # Two frames, as `cat a.zst b.zst` makes them.
        frames = (pa.compress(part, "zstd", asbytes=True) for part in (plain[:50], plain[50:]))
        path.write_bytes(b"".join(frames))
        return path
    opener = gzip.open if kind.endswith(".gz") else open
    if kind.startswith(("csv", "tsv")):
        with opener(path, "wt", newline="") as file:
            writer = csv.writer(file, delimiter="," if kind.startswith("csv") else "\t")
            writer.writerow(ROWS[0])
            writer.writerows([row["query"], row["positive"], json.dumps(row["negatives"])] for row in ROWS)
    else:
        with opener(path, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in ROWS)
    return path


@pytest.mark.parametrize(
    "kind", ["parquet", "jsonl", "jsonl.gz", "jsonl.zst", "json", "ndjson", "csv", "csv.gz", "csv.zst", "tsv"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    source = open_source(str(write(tmp_path, kind)), Dialect(quote=True) if kind == "tsv" else Dialect())
    numbers, values, faults = read_all(source, ["query", "positive"])
    assert source.stem == "rows.v1"
    assert source.columns == ["query", "positive", "negatives"]
    lines = kind.startswith(("csv", "tsv"))  # below the header, each row has two lines
    assert numbers == (list(range(2, 22, 2)) if lines else list(range(1, 11)))
    assert values == {name: [row[name] for row in ROWS] for name in ("query", "positive")}
    assert not faults
    assert len(source.sha256()) == 64
    assert read_all(source, ["query"])[1] == {"query": values["query"]}  # a second pass


def test_list_columns_survive_slices_and_nulls(tmp_path: Path) -> None:
    lists = [["a", None], None, [], ["b"], ["c", "d"], None, ["é"]]
    for kind in (
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ):
        pq.write_table(
            pa.table({"negatives": pa.array(lists, pa.list_(pa.string())).cast(kind)}), tmp_path / "l.parquet"
        )
        assert read_all(open_source(str(tmp_path / "l.parquet")), ["negatives"], 2)[1]["negatives"] == lists


def test_parquet_text_that_is_no_utf8_comes_as_bytes(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"\xff\xfe", None], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"query": broken}), tmp_path / "t.parquet")
    assert read_all(open_source(str(tmp_path / "t.parquet")), ["query"])[1]["query"] == ["fine", b"\xff\xfe", None]


def test_json_lines_with_faults_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '\ufeff{"query": "a"}\n\n{"query": 1, "late": NaN}\nnonsense\n[1]\n{"other": 2}\n', encoding="utf-8"
    )
    source = open_source(str(path))
    assert source.columns == ["query", "late", "other"]
    numbers, values, faults = read_all(source, ["query"])
    assert numbers == [1, 3, 4, 5, 6]  # the numbers an editor shows
    assert values["query"] == ["a", 1, None, None, None]
    assert faults == {4: "not a JSON object", 5: "not a JSON object"}


def test_csv_with_ragged_rows_long_fields_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    long = "x" * 200_000
    path.write_bytes(f'\ufeffquery,positive\r\n"a ""b""\r\nc",d\r\nonly\r\n\r\n1,2,3\r\ne,{long}\r\n'.encode())
    numbers, values, faults = read_all(open_source(str(path)), ["positive", "query"])
    assert numbers == [2, 4, 6, 7]  # the lines that an editor shows
    assert values["query"] == ['a "b"\r\nc', "only", "1", "e"]
    assert values["positive"] == ["d", None, "2", long]
    assert faults == {4: "1 field instead of 2", 6: "3 fields instead of 2"}


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be read, each with what the message must say."""
    whole = write(folder, "parquet").read_bytes()
    zipped = write(folder, "jsonl.gz").read_bytes()
    middle = bytearray(whole)
    middle[4:40] = b"\xee" * 36
    contents: dict[str, tuple[bytes, str]] = {
        "empty.parquet": (b"", "is empty"),
        "text.parquet": (b"query,positive\na,b\n", "not a Parquet file"),
        "short.parquet": (b"P", "not a Parquet file"),
        "cut.parquet": (whole[: len(whole) // 2], "truncated"),
        "foot.parquet": (b"PAR1" + b"\0" * 20 + b"PAR1", "damaged"),
        "middle.parquet": (bytes(middle), "damaged"),
        "cut.jsonl": (b'{"query": "a", "positive": "b"}\n{"query": "c", "pos', "truncated: its last line, 2,"),
        "array.json": (b'[{"query": "a"},\n{"query": "b"}]\n', "line 1 is not a JSON object. It holds one array"),
        "words.jsonl": (b"hello\n", "line 1 is not a JSON object"),
        "blank.jsonl": (b"\n\n", "has no rows"),
        "latin.jsonl": ('{"query": "a"}\n{"query": "é"}\n'.encode("latin-1"), "line 2 has the byte 0xe9"),
        "cut.jsonl.gz": (zipped[:-12], "truncated"),
        "cut.jsonl.zst": (pa.compress(b'{"query": "a"}\n', "zstd", asbytes=True)[:-3], "truncated"),
        "plain.jsonl.zst": (b'{"query": "a"}\n', "suffix says zstd. Rename it to plain.jsonl."),
        "plain.jsonl.gz": (b'{"query": "a"}\n', "suffix says gzip. Rename it to plain.jsonl."),
        "header.csv": (b"query,positive\n", "has no rows"),
        "latin.csv": ("query,positive\na,é\n".encode("latin-1"), "not UTF-8"),
        "quote.csv": (b'query,positive\na,"b\n', "row that begins in line 2 has a quote in it that is not closed"),
        "junk.csv": (b'query,positive\n"a\na"b,c\n', "row that begins in line 2 is not CSV"),
        "twice.csv": (b"query,query\na,b\n", "more than one column 'query'"),
        "rows.txt": (b"a\n", "has a suffix that continual doesn't read"),
        "rows.parquet.gz": (b"a\n", "has a suffix that continual doesn't read"),
        "rows": (b"a\n", "has a suffix that continual doesn't read"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {name: (folder / name, message) for name, (_, message) in contents.items()}


def test_damaged_files_say_what_is_wrong(tmp_path: Path) -> None:
    for path, message in damaged(tmp_path).values():
        with pytest.raises(DataError, match=message) as error:
            read_all(open_source(str(path)), ["query"])
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_missing_files_folders_and_empty_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_source(str(tmp_path / "none.parquet"))
    with pytest.raises(DataError, match="is a folder without a file to read"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match="cannot be opened"):
        open_source("nul\0byte.csv")
    pq.write_table(pa.table({"query": pa.array([], pa.string())}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has no rows"):
        open_source(str(tmp_path / "none.parquet"))
    pq.write_table(pa.table([["a"], ["b"]], names=["query", "query"]), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="more than one column"):
        open_source(str(tmp_path / "twice.parquet"))


def test_a_file_without_line_ends_is_refused_before_it_fills_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("continual.stream.readers.text.LINE_BYTES", 1000)
    (tmp_path / "long.jsonl").write_text('{"query": "a"}\n{"query": "' + "b" * 2000 + '"}\n')
    with pytest.raises(DataError, match="line 2, is longer"):
        read_all(open_source(str(tmp_path / "long.jsonl")), ["query"])


def test_pieces_are_bounded_by_bytes_too(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("continual.stream.readers.text.PIECE_BYTES", 4000)
    monkeypatch.setattr("continual.stream.readers.delimited.PIECE_BYTES", 4000)
    monkeypatch.setattr("continual.stream.readers.arrays.PIECE_BYTES", 4000)
    rows = [{"query": f"{i}" + "x" * 1500, "positive": "y"} for i in range(20)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.csv").write_text("query,positive\n" + "".join(f"{row['query']},y\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet", use_dictionary=False)
    for name in ("r.jsonl", "r.csv", "r.parquet"):
        pieces = [len(piece.numbers) for piece in open_source(str(tmp_path / name)).read(["query"], 1000)]
        assert max(pieces) <= 3
        assert sum(pieces) == 20


@pytest.mark.parametrize("typed", [False, True], ids=["text", "dictionary"])
def test_a_dictionary_of_one_long_text_is_decoded_in_small_pieces(tmp_path: Path, typed: bool) -> None:
    """The file takes 20 kB, its texts 800 MB."""
    text = "x" * 400_000
    table = pa.table({"query": pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), [text])})
    pq.write_table(table, tmp_path / "t.parquet", store_schema=typed)
    pa.default_memory_pool().release_unused()
    before, peak, rows = pa.total_allocated_bytes(), 0, 0
    for piece in open_source(str(tmp_path / "t.parquet")).read(["query"], 10_000):
        assert sum(map(len, piece.columns["query"])) <= 8 << 20
        assert piece.columns["query"][0] == text
        peak = max(peak, pa.total_allocated_bytes() - before)
        rows += len(piece.numbers)
    assert rows == 2000
    assert peak < 100 << 20


@pytest.mark.parametrize("typed", [False, True], ids=["text", "dictionary"])
def test_lists_of_one_long_text_are_decoded_in_small_pieces_or_refused(tmp_path: Path, typed: bool) -> None:
    """The file takes 20 kB; the lists of its first part take 4 MB each, 1.6 GB in all, and the last takes 800 MB."""
    text, rows, name = "x" * 400_000, 400, str(tmp_path / "t.parquet")
    ends = [0, 0, *range(10, 10 * rows, 10)]
    items = pa.DictionaryArray.from_arrays(pa.array([0, 1] * (5 * (rows - 1)), pa.int32()), [text, "y"])
    lists = pa.ListArray.from_arrays(pa.array([None, *ends[1:]], pa.int32()), items)
    queries = pa.array(["q"] * rows)
    pq.write_table(pa.table({"query": queries, "negatives": lists}), name, store_schema=typed)
    pa.default_memory_pool().release_unused()
    before, peak, found = pa.total_allocated_bytes(), 0, []
    for piece in open_source(name).read(["query", "negatives"], 10_000):
        cells = piece.columns["negatives"]
        assert sum(len(item) for cell in cells for item in cell or ()) <= 8 << 20
        peak = max(peak, pa.total_allocated_bytes() - before)
        found += [cell if cell is None else [item[:2] for item in cell] for cell in cells]
    assert found == [None, *[["xx", "y"] * 5] * (rows - 1)]
    assert peak < 100 << 20

    huge = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), [text])
    lists = pa.ListArray.from_arrays(pa.array([0, 3, 2000]), huge)
    pq.write_table(pa.table({"query": ["a", "b"], "negatives": lists}), name, store_schema=typed)
    with pytest.raises(DataError, match=r"row 2: its texts take 799 MB, and at most 67 MB are read"):
        list(open_source(name).read(["query", "negatives"], 10_000))
    assert pa.total_allocated_bytes() - before < 100 << 20


def test_lists_whose_dictionary_was_too_large_for_its_writer_are_read(tmp_path: Path) -> None:
    lists = [[f"text {n} {m} " * 20 for m in range(3)] if n % 7 else None for n in range(5000)]
    table = pa.table({"query": [f"q{n}" for n in range(5000)], "negatives": lists})
    options = {"dictionary_pagesize_limit": 100_000, "data_page_size": 50_000}
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1800, **options)
    pieces = list(open_source(str(tmp_path / "t.parquet")).read(["query", "negatives"], 700))
    assert [cell for piece in pieces for cell in piece.columns["negatives"]] == lists
    assert [cell for piece in pieces for cell in piece.columns["query"]] == table["query"].to_pylist()


# Folders.


def test_a_folder_of_shards_is_one_source(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[:4]), folder / "train-00000.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[4:]), folder / "train-00001.parquet")
    (folder / "README.md").write_text("x")
    (folder / "info.json").write_text("{}")
    (folder / "_SUCCESS").write_text("")
    source = open_source(str(folder))
    pieces = list(source.read(["query"], 3))
    assert (source.stem, source.rows, source.columns) == ("notes", 10, ["query", "positive", "negatives"])
    assert [query for piece in pieces for query in piece.columns["query"]] == [row["query"] for row in ROWS]
    assert [(piece.file, piece.numbers[0]) for piece in pieces] == [
        ("train-00000.parquet", 1),
        ("train-00000.parquet", 4),
        ("train-00001.parquet", 1),
        ("train-00001.parquet", 4),
    ]
    assert source.warnings == ["The folder also holds README.md, info.json, which are not read."]
    first = source.sha256()
    (folder / "train-00000.parquet").rename(folder / "train-00002.parquet")
    assert open_source(str(folder)).sha256() == first
    (folder / "train-00001.parquet").unlink()
    assert open_source(str(folder)).sha256() != first


def test_folders_that_are_no_source(tmp_path: Path) -> None:
    row = '{"query": "a", "positive": "b"}\n'
    (tmp_path / "train.jsonl").write_text(row)
    (tmp_path / "test.jsonl").write_text(row)
    with pytest.raises(DataError, match=r"different splits by their names \(test, train\)"):
        open_source(str(tmp_path))
    (tmp_path / "test.jsonl").rename(tmp_path / "more.csv")
    (tmp_path / "more.csv").write_text("query,positive\na,b\n")
    with pytest.raises(DataError, match=r"several formats \(.csv, .jsonl\)"):
        open_source(str(tmp_path))
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "less.csv").write_text("query,answer\na,b\n")
    with pytest.raises(DataError, match=r"different columns.*'answer'"):
        open_source(str(tmp_path))


def test_files_of_a_folder_may_have_optional_keys(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "a"}\n')
    (tmp_path / "b.jsonl").write_text('{"query": "b", "doc_id": "d"}\n')
    source = open_source(str(tmp_path))
    assert source.columns == ["query", "doc_id"]
    assert [piece.columns["doc_id"] for piece in source.read(["query", "doc_id"], 9)] == [[None], ["d"]]


# Columns.


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["query", "positive"], Mapping("query", "positive")),
        (["anchor", "positive", "negative"], Mapping("anchor", "positive", ("negative",))),
        (["question", "answer", "id"], Mapping("question", "answer")),
        (["sentence1", "sentence2", "title"], Mapping("sentence1", "sentence2")),
        (["Question", "Passage", "document_id"], Mapping("Question", "Passage", (), "document_id")),
        (["query", "text"], Mapping("query", "text")),
        (["text", "document"], Mapping("text", "document")),
        (["query", "question", "positive", "answer"], Mapping("query", "positive")),
        (
            ["query", "positive", "negative_10", "negative_2", "negative_1"],
            Mapping("query", "positive", ("negative_1", "negative_2", "negative_10")),
        ),
    ],
)
def test_common_names_are_recognised(names: list[str], expected: Mapping) -> None:
    assert resolve(Columns(), names, "f") == expected


def test_requested_columns_win() -> None:
    names = ["query", "positive", "a", "b", "c", "d"]
    found = resolve(Columns(query="a", positive="b", negatives="c", doc_id="d"), names, "f")
    assert found == Mapping("a", "b", ("c",), "d")
    assert resolve(Columns(query="answer"), ["question", "answer", "text"], "f") == Mapping("answer", "text")


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        (Columns(), ["title", "body"], "'title', 'body'; no column for the query: name it with --query-column C"),
        (Columns(), ["query", "body"], "no column for the positive: name it with --positive-column C"),
        (Columns(), ["anchor", "question", "positive"], r"2 columns \('anchor', 'question'\) for the query"),
        (Columns(), ["query", "document", "answer"], "2 columns .* for the positive"),
        (Columns(), ["text", "label"], "--query-column C.*--positive-column C"),
        (Columns(), [], "no columns"),
        (Columns(), [f"c{i}" for i in range(30)], "and 10 more"),
        (Columns(query="qurey"), ["query", "positive"], "no column 'qurey' for --query-column. Did you mean 'query'"),
        (Columns(doc_id="zzz"), ["query", "positive"], "no column 'zzz' for --doc-id-column. Known: positive, query"),
        (Columns(query="positive", positive="positive"), ["query", "positive"], "both the query and the positive"),
    ],
)
def test_what_is_not_recognised_is_asked_for(columns: Columns, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve(columns, names, "f.csv")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("query", pa.array([1.5, float("nan")]), "'query' of .* holds double, not text.*--query-column"),
        ("query", pa.array([["a"], ["b"]]), "'query' of .* holds list.*not text.*--query-column"),
        ("positive", pa.array([[1], [2]]), "'positive' of .* holds list.*not texts or lists.*--positive-column"),
        ("positive", pa.array([b"a", b"b"]), "holds binary, not text"),
        ("query", pa.nulls(2), "holds null, not text"),
        ("negatives", pa.array([[1], [2]]), "not texts or lists of texts"),
        ("doc_id", pa.array([{"a": 1}, {"a": 2}]), "cannot be a document id.*--doc-id-column"),
    ],
)
def test_a_wholly_wrong_type_is_one_error(tmp_path: Path, column: str, values: pa.Array, message: str) -> None:
    table = pa.table({"query": ["a", "b"], "positive": ["c", "d"], "negatives": [["e"], []], "doc_id": [1, 2]})
    table = table.set_column(table.column_names.index(column), column, values)
    pq.write_table(table, tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"))
    with pytest.raises(DataError, match=message):
        source.check(resolve(Columns(), source.columns, source.name))


# The Hugging Face hub, with data sets on the disk in its place.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "pairs"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "train-00000.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), folder / "test-00000.parquet")
    return folder


def test_a_data_set_of_the_hub(hub: Path) -> None:
    source = open_source(f"hf:{hub}")
    assert (source.stem, source.rows) == ("pairs", 10)
    numbers, values, _ = read_all(source, ["query", "negatives"])
    assert numbers == list(range(1, 11))
    assert values["negatives"] == [row["negatives"] for row in ROWS]
    source.check(Mapping("query", "positive", ("negatives",)))
    assert open_source(f"hf:{hub}:test").rows == 3
    assert open_source(f"hf:{hub}:default:test").rows == 3
    assert open_source(f"hf:{hub}:train").sha256() == source.sha256() != open_source(f"hf:{hub}:test").sha256()


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (":dev", "has the splits test, train and no 'dev'"),
        (":other:train", "has no configuration 'other'. Choose one of default"),
        (":a:b:c", "not of the form"),
        (":", "not of the form"),
    ],
)
def test_wrong_names_on_the_hub(hub: Path, suffix: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        open_source(f"hf:{hub}{suffix}")
    assert message in str(error.value).replace("train, test", "test, train")


def test_a_data_set_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be loaded by the datasets library"):
        open_source(f"hf:{tmp_path / 'nothing'}")


# Texts.


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(clean(text)) == once
    assert clean(clean(text)) == clean(text)
    assert SEPARATOR not in once


@given(st.text(st.one_of(st.characters(), st.sampled_from(" \t\n\x1f\x85\u00a0\u2028\u3000"))))
def test_normalising_is_what_it_says(text: str) -> None:
    assert normalise(text) == " ".join(unicodedata.normalize("NFKC", text).split())


def test_no_other_whitespace_is_printable() -> None:
    assert [chr(code) for code in range(0x110000) if chr(code).isspace() and chr(code).isprintable()] == [" "]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(" \t\n\u00a0\u3000", min_size=1))
def test_spelling_and_spaces_make_no_other_text(text: str, spaces: str) -> None:
    spelled = unicodedata.normalize("NFD", text)
    assert hash_text(f"{spaces}{spelled}{spaces}") == hash_text(text)
    assert hash_text(f"a{spaces}b") == hash_text("a b")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_hashes_differ_where_texts_do(one: str, other: str) -> None:
    assert (hash_text(one) == hash_text(other)) == (normalise(one) == normalise(other))
    assert (hash_row(one, other) == hash_row(other, one)) == (normalise(one) == normalise(other))
    assert len(hash_row(one, other)) == 32
    assert int(hash_row(one, other), 16) >= 0


def test_known_values_of_the_hashes() -> None:
    # From `printf %s ... | b2sum -l 128`: other tools must be able to find the same rows.
    assert hash_text(" a  b ") == "acc9227cc02e5f5c13e74125bce89499"
    assert hash_row("a b", "c") == "7319534cb27d6c4cce730856a326696e"
    assert normalise("①\u2028ﬁ Ａ") == "1 fi A"
    assert hash_text("Case") != hash_text("case")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("abcd", "over 3 characters"),
        ("a\0", "NUL character"),
        ("\ud800", "lone surrogate"),
        ("aé", None),
    ],
)
def test_faults_of_texts(text: str, expected: str | None) -> None:
    assert fault(text, 3) == expected
