"""Files that are not what their name says, can't be read twice, or hold more than one thing can mean."""

from __future__ import annotations

import gzip
import json
import os
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.config import IngestConfig
from continual.errors import DataError, ModelError
from continual.models.folder import read_modules
from continual.registry import Registry
from continual.stream import Columns, Dialect, ingest
from continual.stream.readers import bounds, open_source, text
from continual.stream.task_files import read_task
from tests.stream.rows import CONFIG, state, stored, write_rows
from tests.tasks import write_beir, write_jsonl

PAIR = b'{"query": "a", "positive": "b"}\n'

# Pipes, sockets and devices.


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.jsonl")
    with pytest.raises(DataError, match=r"f.jsonl is a pipe, and only files.*read twice. Save its content to a file"):
        open_source(str(tmp_path / "f.jsonl"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.csv"))
        with pytest.raises(DataError, match=r"s.csv is a socket"):
            open_source(str(tmp_path / "s.csv"))
    with pytest.raises(DataError, match="is a device"):
        open_source("/dev/null")
    reading, writing = os.pipe()
    os.write(writing, PAIR)
    with pytest.raises(DataError, match="is a pipe"):  # as `<(cat b.jsonl)` and `cat b.jsonl | ... /dev/stdin` give it
        open_source(f"/dev/fd/{reading}")
    os.close(reading)
    os.close(writing)


def test_a_pipe_in_the_folder_of_a_task_or_a_model_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "task")
    with pytest.raises(DataError, match="is a pipe"):
        read_task(tmp_path / "task")
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    os.mkfifo(tmp_path / "model" / "modules.json")
    with pytest.raises(ModelError, match=r"modules.json is a pipe"):
        read_modules(tmp_path / "model")


# Suffixes.


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "a.jsonl",
            gzip.compress(PAIR, mtime=0),
            r"holds gzip data, but its suffix says text. Rename it to a.jsonl.gz",
        ),
        ("a.csv", gzip.compress(PAIR, mtime=0), r"holds gzip data.*Rename it to a.csv.gz"),
        ("a.tsv", pa.compress(PAIR, "zstd", asbytes=True), r"holds zstd data.*Rename it to a.tsv.zst"),
        ("a.csv", b"PK\x03\x04rest", r"a zip archive, as Excel workbooks are.*save the workbook as CSV"),
        ("a.jsonl", b"PAR1\x15\x04rest", r"holds Parquet.*Rename it to a.parquet"),
        ("a.jsonl.gz", PAIR, r"holds no compressed data, but its suffix says gzip. Rename it to a.jsonl"),
        ("a.jsonl.gz", pa.compress(PAIR, "zstd", asbytes=True), r"holds zstd data.*Rename it to a.jsonl.zst"),
    ],
)
def test_a_wrong_suffix_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        open_source(str(tmp_path / name))
    assert "encoding" not in str(error.value)


def test_a_wrong_suffix_in_a_task_is_named(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "t")
    plain = (folder / "corpus.jsonl").read_bytes()
    (folder / "corpus.jsonl").write_bytes(gzip.compress(plain, mtime=0))
    with pytest.raises(DataError, match=r"corpus.jsonl holds gzip data.*Rename it to corpus.jsonl.gz"):
        read_task(folder)
    (folder / "corpus.jsonl").rename(folder / "corpus.jsonl.gz")
    assert read_task(folder).corpus.num_rows


# Columns.


def test_many_columns_are_one_quick_error(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(60_000)]
    path = tmp_path / "a.csv"
    path.write_text(",".join(["query", "positive", *names]) + "\n" + ",".join(["x"] * 60_002) + "\n")
    with pytest.raises(DataError, match="has 60,002 columns, and at most 10,000 are read"):
        open_source(str(path))
    pq.write_table(pa.table({name: ["x"] for name in names[:10_001]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has 10,001 columns"):
        open_source(str(tmp_path / "a.parquet"))


def test_a_new_key_in_every_row_is_an_error(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (bounds, text):
        monkeypatch.setattr(module, "MAX_COLUMNS", 300)
    rows: list[dict[str, object]] = [{"query": f"q{n}", "positive": f"p{n}", f"k{n}": 1} for n in range(299)]
    with pytest.raises(DataError, match="more than 300 different keys"):
        ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", rows))
    assert ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", rows[:298]), holdout=0).kept == 298
    folder = write_beir(tmp_path / "t")
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{n}", "text": "x", f"k{n}": 1} for n in range(400)])
    with pytest.raises(DataError, match="more than 300 different keys"):
        read_task(folder)


# Keys.


def test_a_row_with_two_values_of_a_key_is_rejected(registry: Registry, tmp_path: Path) -> None:
    lines = [
        *(json.dumps({"query": f"q{n}", "positive": f"p{n}", "label": 1}) for n in range(20)),
        '{"query": "q", "positive": "A", "positive": "B", "label": 1}',
        '{"query": "r", "positive": "C", "label": 0, "label": 1}',
        '{"query": "s", "positive": "D", "label": 1, "label": 1, "other": 1, "other": 2, "more": {"a": 1, "a": 2}}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    config = IngestConfig(max_reject_share=0.5)
    report = ingest(registry, config, str(tmp_path / "a.jsonl"), columns=Columns(positive_at=1), holdout=0)
    reasons = {"positive: several values in one row": 1, "label: several values in one row": 1}
    assert (report.rejected, report.reject_reasons) == (2, reasons)
    kept = {row["positive"] for row in stored(registry, report.batch)}
    assert kept == {*(f"p{n}" for n in range(20)), "D"}


def test_a_row_of_a_task_with_two_texts_is_refused(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "t")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "x", "text": "A", "text": "B"}\n')
    with pytest.raises(DataError, match="row 5, has several values for 'text'"):
        read_task(folder)


# Delimiters, headers and line ends.


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", "query;passage\na;b\n", r"one column, 'query;passage'.*use --delimiter ';'"),
        ("a.csv", "query|passage\na|b, c\n", r"use --delimiter '\|'"),
        ("a.csv", "query\tpassage\na\tb\n", r"use --delimiter '\\t'"),
        ("a.tsv", "query,passage\na,b\n", r"use --delimiter ','"),
        ("a.csv", "sep=;\nquery;passage\na;b\n", r"'sep=;', which is for Excel. Remove it, and use --delimiter ';'"),
        ("a.csv", "sep=,\nquery,passage\na,b\n", r"'sep=,', which is for Excel. Remove it"),
        ("a.csv", "query,passage\ra,b\rc,d\r", r"has a CR in it.*tr '\\r' '\\n'"),
        ("a.tsv", "query\tpassage\ra\tb\rc\td\r", r"ends its lines with CR only.*tr '\\r' '\\n'"),
        ("a.jsonl", '{"query": "a"}\r{"query": "b"}\r', r"ends its lines with CR only"),
    ],
)
def test_the_option_or_the_conversion_is_named(tmp_path: Path, name: str, data: str, message: str) -> None:
    (tmp_path / name).write_bytes(data.encode())
    with pytest.raises(DataError, match=message) as error:
        open_source(str(tmp_path / name))
    assert "--no-quote" not in str(error.value)
    assert "no rows" not in str(error.value)


def test_cells_may_hold_other_delimiters_and_cr(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'"query","pass\rage"\n"a;b\rc",d|e\n')
    (piece,) = open_source(str(tmp_path / "a.csv")).read(["query", "pass\rage"], 9)
    assert piece.columns == {"query": ["a;b\rc"], "pass\rage": ["d|e"]}
    (tmp_path / "b.tsv").write_text("query;passage\na;b\n")
    assert open_source(str(tmp_path / "b.tsv"), Dialect(delimiter=";")).columns == ["query", "passage"]


def test_a_csv_without_a_header_is_told_the_option(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("what is a?,it is b\nwhat is c?,it is d\n")
    before = state(registry)
    with pytest.raises(DataError, match=r"no column for the query.*If its first line is a row, use --no-header"):
        ingest(registry, CONFIG, str(tmp_path / "a.csv"))
    assert state(registry) == before


def test_judgements_with_cr_or_two_columns(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "t")
    (folder / "qrels" / "test.tsv").write_text("q1\td1\nq2\td2\n")
    with pytest.raises(DataError, match=r"has 2 tab-separated fields.*Write the query, the document and the") as error:
        read_task(folder)
    assert "Separate them with tabs" not in str(error.value)
    (folder / "qrels" / "test.tsv").write_bytes(b"q1\td1\t1\rq2\td2\t1\r")
    with pytest.raises(DataError, match="ends its lines with CR only"):
        read_task(folder)


def test_judgements_for_training_are_a_task_only_if_they_are_named(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "t")
    train = folder / "qrels" / "train.tsv"
    (folder / "qrels" / "test.tsv").rename(train)
    with pytest.raises(
        DataError, match=r"judgements for training only, qrels/train.tsv.*continual task add NAME .*train"
    ):
        read_task(folder)
    assert read_task(train).queries.num_rows == 2
