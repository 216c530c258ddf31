"""`continual compare`: scores, queries, weights and indexes, and calls that mix them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import Run
from tests.rows import Write, make_pairs


def test_four_comparisons_of_two_versions(folder: Path, run: Run, write_pairs: Write) -> None:
    alone = run("compare")
    assert alone.code == 2
    assert "v0 is the root base, so it has no parent to compare with" in alone.err
    run("ingest", write_pairs("first.parquet", make_pairs(80)))
    run("update")
    assert "95 % interval" in run("compare").out  # v1 with its parent
    queries = json.loads(run("compare", "--queries", "-n", "2", "--task", "first", "--json").out)
    assert (queries["first"], queries["second"], queries["tasks"]) == ("v0", "v1", ["first"])
    assert len(queries["losses"]) <= 2
    assert "|v1 - v0|" in run("compare", "v0", "v1", "--weights").out
    assert "Re-index: " in run("compare", "v0", "--index").out
    assert [pair["new"] for pair in json.loads(run("index", "show", "--json").out)["pairs"]] == ["v1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--queries", "--index"), "Choose one"),
        (("-n", "3"), "-n works with --queries only"),
        (("--task", "x", "--weights"), "--task works with scores and --queries only"),
        (("--queries", "-n", "0", "v0", "v0"), "-n takes a number from 1 up"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, run: Run, words: tuple[str, ...], message: str) -> None:
    result = run("compare", *words)
    assert result.code == 2
    assert message in result.err


def test_a_failing_file_says_which_were_ingested(folder: Path, run: Run, write_pairs: Write) -> None:
    bad = folder / "bad.parquet"
    bad.write_text("not parquet")
    result = run("ingest", write_pairs("first.parquet", make_pairs(60)), bad)
    assert result.code == 2
    note, error = result.err.splitlines()[-2:]
    assert note.startswith("continual: The files before")
    assert "first.parquet" in note
    assert error.startswith("continual: ")
    assert "domain first, batch b1" in result.out
