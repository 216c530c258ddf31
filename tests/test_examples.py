"""The demo's data: real pairs, the same every time, and none of the test in the training."""

import importlib
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def docstrings(monkeypatch: pytest.MonkeyPatch):
    """The script, on small parts of the standard library."""
    monkeypatch.syspath_prepend(EXAMPLES)
    module = importlib.import_module("docstrings")
    monkeypatch.setattr(module, "DOMAINS", ("asyncio", "http"))
    monkeypatch.setattr(module, "TASK", "email")
    return module


def column(path: Path, name: str) -> list[str]:
    return pq.read_table(path)[name].to_pylist()


def test_data_is_valid_and_free_of_leakage(docstrings, tmp_path: Path):
    docstrings.main([str(tmp_path), "--rows", "50", "--queries", "10", "--documents", "40"])
    task = tmp_path / "email"
    corpus, queries = column(task / "corpus.parquet", "doc_id"), column(task / "queries.parquet", "query_id")
    assert len(corpus) == len(set(corpus)) == 40
    assert len(queries) == len(set(queries)) == 10
    assert set(column(task / "qrels.parquet", "doc_id")) <= set(corpus)
    assert column(task / "qrels.parquet", "query_id") == queries
    assert set(column(task / "qrels.parquet", "score")) == {1}

    seen = {text.casefold() for text in column(task / "corpus.parquet", "text")}
    seen |= {text.casefold() for text in column(task / "queries.parquet", "text")}
    for domain in docstrings.DOMAINS:
        rows = pq.read_table(tmp_path / f"{domain}.parquet").to_pylist()
        assert 20 <= len(rows) <= 50
        for row in rows:
            assert len(row["query"].split()) >= 4
            assert len(row["positive"]) >= 80
            assert row["doc_id"].startswith(f"{domain}.")
            texts = {row["query"].casefold(), row["positive"].casefold()}
            assert not texts & seen
            seen |= texts


def test_the_same_seed_makes_the_same_data(docstrings, tmp_path: Path):
    for name, seed in [("one", "0"), ("two", "0"), ("three", "1")]:
        docstrings.main([str(tmp_path / name), "--rows", "10", "--documents", "20", "--seed", seed])
    for name in ["asyncio.parquet", "email/queries.parquet"]:
        one, two, three = (pq.read_table(tmp_path / run / name) for run in ("one", "two", "three"))
        assert one == two
        assert one != three


def test_a_docstring_is_split_into_its_summary_and_its_words(docstrings):
    text = """Return the :class:`~torch.nn.Linear` layer of ``model``.

    The layer is the last one that maps hidden states to the
    output, as :func:`find` would return it for this model.

    Parameters
    ----------
    model : Module

    >>> layer(model)
    Linear(in_features=4)

    .. versionadded:: 1.2
    """
    assert docstrings.split(text) == (
        "Return the Linear layer of model.",
        "The layer is the last one that maps hidden states to the output, as find would return it for this model. "
        "Parameters model : Module",
    )


@pytest.mark.parametrize(
    "text",
    [
        "Return the last layer of the model.",
        "Short summary.\n\n" + "Words of the body. " * 10,
        "Return the last layer of the model.\n\nToo short.",
        "layer(model, depth, width, strict)\n\n" + "Words of the body. " * 10,
    ],
    ids=["no body", "short summary", "short body", "signature"],
)
def test_docstrings_that_say_too_little_are_left_out(docstrings, text: str):
    assert docstrings.split(text) is None


def test_a_library_that_is_not_installed_is_named(docstrings):
    with pytest.raises(SystemExit, match="no_such_library"):
        docstrings.source_folder("no_such_library")


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep")
    bash = shutil.which("bash")
    assert bash
    ended = subprocess.run([bash, EXAMPLES / "demo.sh", tmp_path], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "not from an earlier demo" in ended.stderr
    assert (tmp_path / "mine.txt").read_text() == "keep"
