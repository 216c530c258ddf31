"""How CSV and TSV files are written: quotes, delimiters, headers, encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual.errors import DataError, InputError
from continual.registry import Registry
from continual.stream import Columns, Dialect, ingest
from continual.stream.readers import open_source
from tests.stream.rows import CONFIG, stored, write_rows


def test_quotes_in_a_tsv_are_text(registry: Registry, tmp_path: Path) -> None:
    """As TREC, MS MARCO and BEIR write it: a quote at the beginning of a cell must not glue rows together."""
    rows = [(f'"question {i}' if i % 4 == 0 else f"question {i}", f'answer {i}"') for i in range(60)]
    path = tmp_path / "a.tsv"
    path.write_text("query\tpositive\n" + "".join(f"{query}\t{positive}\n" for query, positive in rows))
    report = ingest(registry, CONFIG, str(path), holdout=0)
    assert (report.rows_in, report.kept, report.warnings) == (60, 60, [])
    assert {(row["query"], row["positive"]) for row in stored(registry, "b1")} == set(rows)


def test_a_quoted_tsv_is_pointed_out_and_can_be_read(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('query\tpositive\na\t"say ""hi"""\nb\t"c"\n')
    report = ingest(registry, CONFIG, str(path), holdout=0)
    (warning,) = report.warnings
    assert warning.startswith("2 cells have a double quote at both ends, read as part of the text (first in line 2).")
    again = ingest(registry, CONFIG, str(path), dialect=Dialect(quote=True))
    assert (again.unchanged, again.kept, again.warnings) == (False, 2, [])
    assert {row["positive"] for row in stored(registry, "b2")} == {'say "hi"', "c"}
    assert ingest(registry, CONFIG, str(path), dialect=Dialect(quote=True)).unchanged
    assert ingest(registry, CONFIG, str(path), dialect=Dialect(quote=False)).unchanged


def test_errors_name_the_line_where_the_row_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    good = "".join(f"q{i},p{i}\n" for i in range(500))
    path.write_text("query,positive\nq,p\n" + '"lone quote,p\n' + good)
    for text, said in (
        (f'query,positive\nq,p\n"lone quote,p\n{good}', "line 3 has a quote in it that is not closed"),
        (f'query,positive\nq,p\n"lone quote,p\n{good}q,"p"\n', "line 3 is not CSV"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=f"begins in {said}.*--no-quote"):
            list(open_source(str(path)).read(["query"], 10))
        numbers = [
            n for piece in open_source(str(path), Dialect(quote=False)).read(["query"], 10) for n in piece.numbers
        ]
        assert numbers == list(range(2, 2 + len(numbers)))
        assert len(numbers) >= 502


def test_cells_that_swallow_lines_are_pointed_out(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    glued = '"a,b\nc,d\ne,f\ng",h\n'
    long = "x" + "\nx" * 20
    path.write_text(f'query,positive\nq,p\n{glued}i,"{long}"\nj,"two\nlines"\n')
    report = ingest(registry, CONFIG, str(path), holdout=0)
    assert [warning.split(". ")[0] for warning in report.warnings] == [
        "1 quoted cell has more than 20 lines (first in line 7)",
        "1 quoted cell seems to hold whole rows (first in line 3)",
    ]


def test_delimiters_headers_and_encodings(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("é;p1\nü;p2\n".encode("cp1252"))
    columns = Columns(query="1", positive="2")
    dialect = Dialect(delimiter=";", header=False, encoding="cp1252")
    report = ingest(registry, CONFIG, str(path), columns=columns, dialect=dialect, holdout=0)
    assert {(row["query"], row["positive"]) for row in stored(registry, report.batch)} == {("é", "p1"), ("ü", "p2")}
    assert ingest(registry, CONFIG, str(path), columns=columns, dialect=dialect).unchanged

    wide = tmp_path / "b.tsv"
    wide.write_text("query\tpositive\nc\td\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"line 1 has the byte 0xf[ef]. Name its encoding with --encoding"):
        open_source(str(wide))
    assert open_source(str(wide), Dialect(encoding="utf-16")).columns == ["query", "positive"]
    with pytest.raises(DataError, match="is not ascii text"):
        open_source(str(path), Dialect(encoding="ascii"))
    lines = tmp_path / "c.jsonl"
    lines.write_bytes('{"query": "é"}\n'.encode("latin-1"))
    assert next(iter(open_source(str(lines), Dialect(encoding="latin-1")).read(["query"], 1))).columns == {
        "query": ["é"]
    }


@pytest.mark.parametrize(
    ("name", "dialect", "message"),
    [
        ("a.csv", Dialect(delimiter=";;"), "--delimiter takes one character"),
        ("a.csv", Dialect(delimiter='"'), "--delimiter takes one character"),
        ("a.csv", Dialect(encoding="utf-99"), "--encoding takes the name of an encoding"),
        ("a.csv", Dialect(encoding="base64"), "--encoding takes the name of an encoding"),
        ("a.jsonl", Dialect(quote=False), "is JSON Lines"),
        ("a.parquet", Dialect(encoding="latin-1"), "is no text file"),
    ],
)
def test_dialects_that_make_no_sense(tmp_path: Path, name: str, dialect: Dialect, message: str) -> None:
    if name == "a.csv":
        (tmp_path / name).write_text("query,positive\na,b\n")
    else:
        write_rows(tmp_path / name, [{"query": "a", "positive": "b"}])
    with pytest.raises(InputError, match=message):
        open_source(str(tmp_path / name), dialect)
