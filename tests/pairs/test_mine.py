"""Mining for the rows of a workspace: which passages, what is written, and what updates use."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import DataError, InputError, NothingToDoError
from continual.models.encoder import load_encoder
from continual.pairs.mine import Mined
from continual.replay.mined import find_mined, mined_file
from tests.kills import interrupt_update
from tests.rows import Write, make_pairs


def mine(workspace: Workspace, **options: Any) -> list[Mined]:
    return list(workspace.mine(**options))


def mined_rows(workspace: Workspace, batch: str = "b1") -> dict[str, dict[str, Any]]:
    """Return what was mined for the rows of a batch, by query."""
    (found,) = [each for each in workspace.registry.batches() if each.id == batch]
    sha256 = find_mined(workspace.registry, [found])[batch]
    rows = pq.read_table(mined_file(workspace.registry, batch, sha256)).to_pylist()
    queries = {row["row_hash"]: row for row in pq.read_table(workspace.registry.path(found.path)).to_pylist()}
    assert [row["row_hash"] for row in rows] == sorted(row["row_hash"] for row in rows)
    return {queries[row["row_hash"]]["query"]: row | queries[row["row_hash"]] | {
        "negatives": row["negatives"]} for row in rows}  # fmt: skip


@pytest.fixture
def filled(workspace: Workspace, write_pairs: Write) -> Workspace:
    workspace.ingest(write_pairs("a.parquet", make_pairs(80)), holdout=0.0)
    return workspace


@pytest.mark.parametrize(
    "settings",
    [
        {"relative_margin": 0.05},
        {"relative_margin": "off"},
        {"relative_margin": "off", "absolute_margin": 0.1},
        {"relative_margin": "off", "range_min": 3, "max_score": 0.9},
        {"relative_margin": 0.01, "min_score": 0.3, "negatives": 4},
    ],
)
def test_negatives_are_those_of_sentence_transformers(filled: Workspace, settings: dict[str, Any]) -> None:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    (mined,) = mine(filled, settings={"mine": settings})
    model = load_encoder(filled.registry.path("versions/v0"), device="cpu")
    (batch,) = filled.registry.batches()
    rows = pq.read_table(filled.registry.path(batch.path)).to_pydict()
    theirs = mine_hard_negatives(
        Dataset.from_dict({"query": rows["query"], "positive": rows["positive"]}),
        model,
        num_negatives=settings.get("negatives", 7),
        range_min=settings.get("range_min", 0),
        range_max=100 if len(rows["query"]) > 100 else len(rows["query"]) - 1,
        max_score=settings.get("max_score"),
        min_score=settings.get("min_score"),
        absolute_margin=settings.get("absolute_margin"),
        relative_margin=None if settings["relative_margin"] == "off" else settings["relative_margin"],
        output_format="labeled-pair",
        verbose=False,
    )
    expected: dict[str, list[str]] = {query: [] for query in rows["query"]}
    for query, passage, label in zip(theirs["query"], theirs["positive"], theirs["label"], strict=True):
        if not label:
            expected[query].append(passage)
    found = {query: row["negatives"] for query, row in mined_rows(filled).items()}
    assert {query: texts for query, texts in expected.items() if texts} == found
    assert mined.negatives == sum(map(len, found.values())) > 0
    assert mined.rows == len(rows["query"])
    assert mined.none == len(rows["query"]) - len(found)


def test_no_positive_no_page_of_the_same_document_and_no_other_wording_is_a_negative(
    workspace: Workspace, write_pairs: Write
) -> None:
    long = " ".join(make_pairs(8, seed=9)[n]["positive"] for n in range(8))  # type: ignore[misc]
    rows: list[dict[str, object]] = [
        {"query": "bal cem", "positive": f"bal cem {long}", "negatives": [], "doc_id": "one"},
        {"query": "bal  cem", "positive": "bal cem dis", "negatives": [], "doc_id": "two"},
        {"query": "fol", "positive": "bal cem gum", "negatives": [], "doc_id": "one"},
        {"query": "haj", "positive": f"bal cem {long} kil", "negatives": [], "doc_id": "three"},
        {"query": "kil", "positive": "bal cem lom", "negatives": [], "doc_id": "four"},
    ]
    workspace.ingest(write_pairs("a.parquet", rows), holdout=0.0)
    mine(workspace, settings={"mine": {"relative_margin": "off"}})
    assert set(mined_rows(workspace)["bal cem"]["negatives"]) == {"bal cem lom"}


def test_what_a_task_holds_is_no_negative_even_if_the_task_came_later(
    filled: Workspace, tmp_path: Path, write_pairs: Write
) -> None:
    mine(filled)
    before = mined_rows(filled)
    query, row = next((query, row) for query, row in before.items() if row["negatives"])
    hard = row["negatives"][0]
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": hard}) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "zut zot"}) + "\n")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    filled.add_task("late", folder)
    drawn = _drawn(filled)
    assert hard not in drawn[query]
    assert drawn[query][1:] == row["negatives"][1:]  # the given one first
    mine(filled)
    assert hard not in mined_rows(filled)[query]["negatives"]


def _drawn(workspace: Workspace) -> dict[str, list[str]]:
    from continual.step.request import Request
    from continual.step.spec import prepare

    _, drawn = prepare(workspace.registry, workspace.config, Request())
    return dict(zip(drawn.table["query"].to_pylist(), drawn.table["negatives"].to_pylist(), strict=True))


def test_other_corpora_are_searched(filled: Workspace, write_pairs: Write, tmp_path: Path) -> None:
    alone = mine(filled, domains=["a"])[0]
    filled.ingest(write_pairs("b.parquet", make_pairs(30, seed=5)), holdout=0.0)
    (tmp_path / "more.jsonl").write_text("".join(json.dumps({"text": f"bal cem {n}"}) + "\n" for n in range(10)))
    (mined,) = mine(filled, domains=["a"], corpora=["b", str(tmp_path / "more.jsonl")])
    assert mined.passages == alone.passages + 30 + 10
    with pytest.raises(InputError, match="--corpus nowhere is neither a domain"):
        mine(filled, corpora=["nowhere"])


def test_an_update_uses_what_was_mined_and_says_so_in_its_record(filled: Workspace) -> None:
    given = {query: list(texts) for query, texts in _drawn(filled).items()}
    plain = filled.update(seed=3, settings={"train": {"max_negatives": 8}}).version
    filled.promote("v0")
    mine(filled)
    drawn, found = _drawn(filled), mined_rows(filled)
    assert {query: given[query] + found.get(query, {"negatives": []})["negatives"] for query in given} == drawn
    version = filled.update(seed=3, settings={"train": {"max_negatives": 8}}).version
    assert version.provenance.mined == find_mined(filled.registry, filled.registry.batches())
    assert plain.provenance.mined == {}
    assert version.sha256 != plain.sha256
    assert filled.rebuild(version.id).sha256 == version.sha256


def test_an_update_can_mine_first(filled: Workspace, write_pairs: Write) -> None:
    filled.update(seed=3)
    filled.ingest(write_pairs("b.parquet", make_pairs(40, seed=5)), holdout=0.0)
    version = filled.update(seed=3, mine=True).version
    assert list(version.provenance.mined) == ["b2"]
    file = mined_file(filled.registry, "b2", version.provenance.mined["b2"])
    assert pq.read_schema(file).metadata[b"version"] == b"v1"


def test_what_was_mined_must_not_change_on_the_way(filled: Workspace) -> None:
    mine(filled)
    interrupt_update(filled, "training", 1, seed=3)
    with pytest.raises(InputError, match="resumes only with the negatives it began with"):
        mine(filled)
    (file,) = filled.registry.path("mined").iterdir()
    aside = file.rename(filled.directory / "aside")
    with pytest.raises(InputError, match="mined negatives changed since"):
        filled.update(resume=True)
    aside.rename(file)
    assert filled.update(resume=True).version.provenance.mined


def test_a_negative_that_became_a_positive_is_left_out(filled: Workspace, write_pairs: Write) -> None:
    mine(filled)
    query, row = next((query, row) for query, row in mined_rows(filled).items() if row["negatives"])
    first, *rest = row["negatives"]
    added: list[dict[str, object]] = [{"query": query, "positive": first, "negatives": [], "doc_id": "new"}]
    filled.ingest(write_pairs("b.parquet", added), domain="a", holdout=0.0)
    from continual.step.request import Request
    from continual.step.spec import prepare

    _, drawn = prepare(filled.registry, filled.config, Request())
    for row in drawn.table.to_pylist():
        if row["query"] == query:
            assert first not in row["negatives"]
            assert row["negatives"][1:] == (rest if row["positive"] != first else [])


def test_the_query_itself_is_no_negative(workspace: Workspace, write_pairs: Write) -> None:
    texts = [str(row["query"]) for row in make_pairs(30)]
    rows: list[dict[str, object]] = [
        {"query": one, "positive": other, "negatives": []} for one, other in pairwise(texts)
    ]
    workspace.ingest(write_pairs("a.parquet", rows), holdout=0.0)
    mine(workspace, settings={"mine": {"relative_margin": "off"}})
    found = mined_rows(workspace)
    assert found
    assert not [query for query, row in found.items() if query in row["negatives"]]


def test_forgetting_reaches_versions_that_had_a_row_as_a_negative(filled: Workspace, write_pairs: Write) -> None:
    filled.ingest(write_pairs("b.parquet", make_pairs(30, seed=5)), holdout=0.0)
    mine(filled, domains=["a"], corpora=["b"])
    version = filled.update(domains=["a"], seed=3).version
    assert version.provenance.mined_from == ["a", "b"]
    certificate = filled.forget(domain="b", rebuild=True)
    assert certificate.rebuilt is not None
    assert certificate.rebuilt.removed == [version.id]
    again = filled.version()
    assert again.id != version.id
    assert again.provenance.mined_from == ["a"]
    assert again.provenance.mined


def test_a_damaged_file_is_refused(filled: Workspace) -> None:
    mine(filled)
    (file,) = filled.registry.path("mined").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged.*continual mine"):
        filled.update()
    mine(filled)
    assert filled.update(seed=3).version.provenance.mined


def test_forgotten_rows_are_in_no_file_of_negatives(filled: Workspace) -> None:
    mine(filled)
    text = next(row["negatives"][0] for row in mined_rows(filled).values() if row["negatives"])
    (batch,) = filled.registry.batches()
    rows = pq.read_table(filled.registry.path(batch.path), columns=["query", "positive"]).to_pylist()
    (query,) = {row["query"] for row in rows if row["positive"] == text}
    filled.forget(query=query)
    assert not filled.registry.path("mined").exists()
    mine(filled)
    assert text not in {each for row in mined_rows(filled).values() for each in row["negatives"]}


def test_domains_whose_rows_take_no_mined_negatives(workspace: Workspace, write_pairs: Write) -> None:
    with pytest.raises(NothingToDoError, match="No domain has rows"):
        mine(workspace)
    rows = [{"query": f"bal {n}", "positive": "cem", "negatives": ["dis"]} for n in range(20)]
    workspace.ingest(write_pairs("labels.parquet", rows), kind="classification", holdout=0.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="labels takes no mined negatives"):
        mine(workspace, domains=["labels"])


def test_the_command_shows_what_it_found(filled: Workspace, run: Any) -> None:
    done = run("mine", "--show", 2, "-w", filled.directory)
    assert done.code == 0
    assert "a: " in done.out
    assert "found by v0 among 80 passages" in done.out.replace("\n", " ")
    assert done.out.count("    + ") == 2
    assert "train.max_negatives" in done.out
    report = json.loads(run("mine", "a", "-n", 3, "--json", "-w", filled.directory).out)["domains"][0]
    assert report["rows"] == 80
    assert report["negatives"] <= 240
    assert np.isclose(report["negatives"], sum(len(row["negatives"]) for row in mined_rows(filled).values()))
