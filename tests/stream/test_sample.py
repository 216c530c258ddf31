"""Samples of texts: which columns and lines are texts, and that order does not matter."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.errors import DataError
from continual.stream.sample import read_sample


def lines(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_pairs_give_queries_and_documents(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question": "what is it", "answer": ["one", "two"], "source": "a"},
        {"question": " what is  it ", "answer": ["one"], "source": "b"},
        {"question": "", "answer": None, "source": "c"},
    ]
    found = read_sample(lines(tmp_path / "pairs.jsonl", rows))
    assert sorted(found.texts.documents) == ["one", "two"]
    assert "what is it" in found.texts.queries
    assert found.columns == ("question", "answer")
    assert found.unread == ("source",)
    assert found.unused == 2
    assert found.found == len(found.texts)


def test_a_text_is_a_document_unless_there_are_documents(tmp_path: Path) -> None:
    pq.write_table(pa.table({"_id": ["1"], "text": ["a passage"]}), tmp_path / "corpus.parquet")
    assert read_sample(str(tmp_path / "corpus.parquet")).texts.documents == ["a passage"]
    both = lines(tmp_path / "both.jsonl", [{"text": "a question", "passage": "a passage"}])
    assert read_sample(both).texts.queries == ["a question"]
    (tmp_path / "lines.txt").write_text("\ufeffone\n\n  two \nüç\n", "utf-8")
    assert sorted(read_sample(str(tmp_path / "lines.txt")).texts.documents) == ["one", "two", "üç"]


def test_a_sample_depends_on_the_texts_and_not_on_their_order(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(500)]
    samples = []
    for seed in range(2):
        random.Random(seed).shuffle(texts)
        (tmp_path / f"{seed}.txt").write_text("\n".join([*texts, *texts[:50]]))
        samples.append(read_sample(str(tmp_path / f"{seed}.txt"), most=40))
    assert samples[0] == samples[1]
    assert samples[0].found == 500
    assert len(samples[0].texts) == len(set(samples[0].texts.documents)) == 40
    whole = read_sample(str(tmp_path / "0.txt"), most=1000)
    assert set(samples[0].texts.documents) < set(whole.texts.documents) == set(texts)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"a": "x", "b": "y"}], "none holds texts"),
        ([{"answer": "x", "passage": "y"}], "unclear which one holds the documents"),
        ([{"query": "", "positive": None}], "holds no text"),
    ],
)
def test_a_file_without_texts_is_refused(tmp_path: Path, rows: list[dict[str, object]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_sample(lines(tmp_path / "bad.jsonl", rows))


def test_lines_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_sample(str(tmp_path / "latin.txt"))
    with pytest.raises(DataError, match="cannot be read"):
        read_sample(str(tmp_path / "missing.txt"))
