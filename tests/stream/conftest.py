"""Fixtures: an empty registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual.registry import Registry
from tests.stream.rows import new_registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A small task: query t1 is answered by document x; y is a distractor."""
    folder = tmp_path / "beir"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(
        '{"_id": "x", "title": "", "text": "answer"}\n{"_id": "y", "text": "distractor"}\n'
    )
    (folder / "queries.jsonl").write_text('{"_id": "t1", "text": "the question"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nt1\tx\t1\n")
    return folder
