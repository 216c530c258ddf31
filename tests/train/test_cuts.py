"""What training does not use is counted: texts beyond the maximum length, and negatives beyond their number."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from continual.cli.render.words import describe_cuts
from continual.models.encoder import load_encoder
from continual.registry import Cuts, Provenance
from continual.train.rows import read_rows
from tests.commands import Run
from tests.rows import SCHEMA, Write, make_pairs
from tests.train.runs import CONFIG, run
from tests.workspaces import SETTINGS, make_workspace


def table() -> pa.Table:
    """Three rows: a query of 3 words has "query", ":" and two special tokens more, so 7; one of 4 words has 8."""
    short, long = "bal bat bel", "bal bat bel bet"
    rows = [
        {"query": short, "positive": "bal", "negatives": ["bat", "bel", long * 3], "doc_id": None, "domain": "d"},
        {"query": long, "positive": "bal " * 5, "negatives": ["bet " * 6], "doc_id": None, "domain": "d"},
        {"query": long, "positive": "bal " * 6, "negatives": [], "doc_id": None, "domain": "d"},
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0, Cuts(7, False, 3, 2, 3, 1, 4, 0, 0)),
        (1, Cuts(7, False, 3, 2, 5, 2, 4, 2, 1)),
        (3, Cuts(7, False, 3, 2, 7, 3, 4, 4, 3)),
    ],
)
def test_a_text_is_cut_if_it_is_longer_than_the_limit(tiny_model: Path, most: int, expected: Cuts) -> None:
    assert read_rows(table(), load_encoder(tiny_model, device="cpu"), 7, most).cuts == expected


def test_the_model_s_own_limit_counts_if_it_is_lower(tiny_model: Path) -> None:
    cuts = read_rows(table(), load_encoder(tiny_model, device="cpu"), 500, 3).cuts
    assert (cuts.limit, cuts.own, cuts.cut_queries, cuts.cut_passages) == (48, True, 0, 0)


def test_what_is_said() -> None:
    assert describe_cuts(None) == describe_cuts(Cuts(128, False, 10, 0, 20, 0, 10, 10, 1)) == []
    assert describe_cuts(Cuts(128, False, 1000, 1, 200, 199, 8, 2, 1)) == [
        "Cut at 128 tokens (train.max_length): under 1% of queries and over 99% of passages.",
        "Not used: 75% of the given negatives, beyond train.max_negatives = 1 per row.",
    ]
    assert describe_cuts(Cuts(48, True, 4, 1, 4, 0, 0, 0, 1)) == [
        "Cut at 48 tokens (the limit of the model): 25% of queries and 0% of passages."
    ]


def test_a_training_records_it(tiny_model: Path, tmp_path: Path) -> None:
    trained = run(tiny_model, tmp_path, CONFIG.model_copy(update={"max_length": 7}), table())
    assert trained.cuts == Cuts(7, False, 3, 2, 5, 2, 4, 2, 1)
    made = Provenance(training=trained)
    data = json.loads(json.dumps(made.to_json()))
    assert Provenance.from_json(data) == made
    for name in ("cuts", "similarity", "dimensions"):  # a record of an older release
        del data["training"][name]
    assert Provenance.from_json(data).training is not None


@pytest.mark.slow
def test_update_plan_and_show_say_it_once(tiny_model: Path, tmp_path: Path, write_pairs: Write, run: Run) -> None:
    workspace = make_workspace(tmp_path / "w", tiny_model, SETTINGS.replace("max_length = 32", "max_length = 12"))
    rows = [row | {"negatives": ["bal", "bat"]} for row in make_pairs(60)]
    workspace.ingest(write_pairs("med.parquet", rows))
    where = ("-w", workspace.directory)
    # Passages have 13 words, negatives one: of one positive and one negative, half is cut; one negative is left.
    texts = "Cut at 12 tokens (train.max_length): 0% of queries and 50% of passages."
    negatives = "Not used: 50% of the given negatives, beyond train.max_negatives = 1 per row."
    planned = run("update", "--plan", *where).out
    data = json.loads(run("update", "--plan", "--json", *where).out)["cuts"]
    assert data["cut_passages"] / data["passages"] == 0.5
    updated = run("update", *where).out
    shown = run("versions", "show", "v1", *where).out
    for out in (planned, updated, shown):
        assert [" ".join(out.split()).count(said) for said in (texts, negatives)] == [1, 1]
    recorded = json.loads(run("versions", "show", "v1", "--json", *where).out)["provenance"]["training"]["cuts"]
    assert (recorded["limit"], recorded["negatives"], recorded["used_negatives"]) == (12, 96, 48)
    workspace.ingest(write_pairs("law.parquet", [row | {"negatives": ["bal"]} for row in make_pairs(60, seed=1)]))
    step = json.loads(run("update", "--set", "train.max_length=40", "--json", *where).out)
    assert step["cuts"]["cut_passages"] == 0
