"""Synthesis from end to end: filters between passages, and a language model that misbehaves."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import DataError, InputError, ModelError, NothingToDoError
from continual.pairs.synthesis.journal import Journal
from continual.pairs.synthesis.llm import PROMPTS, UNUSABLE, Writer, write_queries
from continual.pairs.synthesis.run import _ranks
from tests.pairs.endpoint import Reply, completion, queries, serve
from tests.rows import sentence

WORDS = random.Random(7)
PASSAGES = [f"{sentence(WORDS, 5)}. {sentence(WORDS, 9)}. {sentence(WORDS, 9)}." for _ in range(12)]


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*PASSAGES, PASSAGES[0]]))
    return path


def test_pairs_are_written_for_ingest_and_every_loss_is_counted(
    workspace: Workspace, passages: Path, tmp_path: Path
) -> None:
    found = workspace.synthesize(passages, out=tmp_path / "pairs.parquet")
    rows = pq.read_table(found.file).to_pylist()
    assert found.passages == 12
    assert found.kept == len(rows) > 0
    assert found.written == found.kept + sum(rejected.count for rejected in found.rejected.values())
    assert found.written == sum(kind.written for kind in found.types.values())
    assert found.covered == len({row["doc_id"] for row in rows})
    assert all(1 <= row["synthetic_position"] <= 20 for row in rows)
    assert max(np.unique([row["doc_id"] for row in rows], return_counts=True)[1]) <= 2
    report = workspace.ingest(found.file, domain="made", holdout=0.0)
    assert report.kept == len(rows)


def test_what_a_task_holds_is_neither_a_passage_nor_a_query(
    workspace: Workspace, passages: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    first = workspace.synthesize(passages, out=tmp_path / "first.parquet", per_passage=9, consistency=0)
    asked = pq.read_table(first.file)["query"].to_pylist()[-1]
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": PASSAGES[0]}) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": asked}) + "\n")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    workspace.add_task("held", folder)
    found = workspace.synthesize(passages, out=tmp_path / "pairs.parquet", per_passage=9, consistency=0)
    rows = pq.read_table(found.file)
    assert (found.held, found.passages) == (1, 11)
    assert PASSAGES[0] not in rows["positive"].to_pylist()
    assert asked not in rows["query"].to_pylist()
    assert found.rejected["task"].count == 1


def test_a_query_of_two_passages_says_nothing_about_either(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    lines = [f"Asthma is a disease. {sentence(WORDS, 8)} {n}." for n in range(3)]
    file.write_text("\n".join([*lines, "Gout is a disease. " + sentence(WORDS, 8)]))
    found = workspace.synthesize(file, out=tmp_path / "pairs.parquet", consistency=0)
    asked = pq.read_table(found.file)["query"].to_pylist()
    assert "What is gout?" in asked
    assert "What is asthma?" not in asked
    assert found.rejected["repeated"].count >= 3


def test_ranks_are_those_of_a_sort() -> None:
    generator = np.random.default_rng(1)
    asked, told = (generator.normal(size=(rows, 6)).astype(np.float32) for rows in (40, 90))
    own = generator.integers(0, 90, 40)
    scores = asked @ told.T
    expected = [
        (np.argsort(-row, kind="stable") == target).argmax() + 1 for row, target in zip(scores, own, strict=True)
    ]
    assert _ranks(asked, told, own).tolist() == expected


def test_no_passage_and_no_query_are_said(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no passage"):
        workspace.synthesize(tmp_path / "empty.txt")
    (tmp_path / "numbers.txt").write_text("12 34\n56\n")
    with pytest.raises(NothingToDoError, match="No query passed the filters"):
        workspace.synthesize(tmp_path / "numbers.txt", out=tmp_path / "o.parquet")
    with pytest.raises(InputError, match="--model is about a language model"):
        workspace.synthesize(tmp_path / "numbers.txt", model="m")
    with pytest.raises(InputError, match="needs the name of the model"):
        workspace.synthesize(tmp_path / "numbers.txt", method="llm")


# A language model.


def ask(url: str, journal: Path, texts: list[str] = PASSAGES, **more: Any) -> Any:
    writer = Writer("fake", url, **{"timeout": 1.0, "retries": 2, **more})
    return write_queries(writer, texts, [["anyone"]] * len(texts), 2, journal)


def test_every_passage_ends_with_a_query_or_a_reason(tmp_path: Path) -> None:
    good = {text: queries(f"q{n} a", f"q{n} b", f"q{n} c") for n, text in enumerate(PASSAGES)}

    def reply(passage: str, number: int) -> Reply | float:
        kind = PASSAGES.index(passage)
        if kind == 0:
            return 500, {}, "{}"
        if kind == 1:
            return 3.0
        if kind == 2:
            return completion("I would rather not.")
        if kind == 3:
            return completion('{"queries": [{"query": "cut off')
        if kind == 4 and number == 1:
            return 429, {"Retry-After": "0"}, "{}"
        if kind == 5 and number < 3:
            return completion("nonsense")
        if kind == 6:
            return 200, {}, "<html>"
        if kind == 7:
            return completion(
                '```json\n{"queries": [{"query": " in  a fence ", "type": "poem"}, 7, {"query": ""}]}\n```'
            )
        return good[passage]

    with serve(reply) as server:
        found = ask(server.url, tmp_path / "journal")
    by_passage = {index: [each.query for each in found.candidates if each.passage == index] for index in range(12)}
    assert [index for index, texts in by_passage.items() if not texts] == [0, 1, 2, 3, 6]
    assert dict(found.missing) == {"no answer": 3, UNUSABLE: 2}
    assert by_passage[5] == ["q5 a", "q5 b"]
    assert by_passage[7] == ["in a fence"]
    assert next(each.type for each in found.candidates if each.passage == 7) == "other"
    assert found.candidates[0].traits == {
        "persona": "anyone", "difficulty": "low", "length": "short", "language": "made-up"
    }  # fmt: skip


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    with serve(lambda passage, number: queries(passage[:9])) as server:
        first = ask(server.url, tmp_path / "journal")
        again = ask(server.url, tmp_path / "journal")
        assert set(server.asked.values()) == {1}
    assert again.candidates == first.candidates
    assert again.spent == first.spent
    assert first.spent.tokens == (1200, 240)


def test_a_cut_line_is_dropped_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with serve(lambda passage, number: queries(passage[:9])) as server:
        ask(server.url, journal)
        whole = journal.read_bytes()
        journal.write_bytes(whole[:-30])
        found = ask(server.url, journal)
        assert len(found.candidates) == 12
        assert sum(server.asked.values()) == 13
        journal.write_bytes(b"{]\n" + whole)
        with pytest.raises(DataError, match="line 1, is damaged"):
            ask(server.url, journal)
    journal.write_bytes(whole)
    with Journal(journal), pytest.raises(DataError, match="in use by another process"), Journal(journal):
        pass


def test_a_limit_of_tokens_or_money_stops_the_requests(tmp_path: Path) -> None:
    with serve(lambda passage, number: queries(passage[:9])) as server:
        some = ask(server.url, tmp_path / "a", max_tokens=360, at_once=1)
        assert (len(some.candidates), dict(some.missing)) == (3, {"over budget": 9})
        money = ask(server.url, tmp_path / "b", max_cost=0.0002, prices=(1.0, 5.0), at_once=1)
        assert len(money.candidates) == 1
        assert money.spent.cost == pytest.approx(0.0002)
        more = ask(server.url, tmp_path / "a")
        assert len(more.candidates) == 12
        assert set(server.asked.values()) == {1, 2}  # twice only those of the second file
        with pytest.raises(InputError, match="needs the prices"):
            ask(server.url, tmp_path / "c", max_cost=1.0)


def test_a_server_without_schemas_is_asked_without_one(tmp_path: Path) -> None:
    with serve(lambda passage, number: (400, {}, "{}") if number == 1 else queries("ok ok")) as server:
        assert len(ask(server.url, tmp_path / "journal").candidates) == 12


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, InputError, "refuses the key. Set OPENAI_API_KEY"),
        (404, InputError, "has no model 'fake'"),
        (400, InputError, "does not accept the request"),
    ],
)
def test_a_call_that_is_refused_for_good_stops(tmp_path: Path, status: int, error: type, said: str) -> None:
    with serve(lambda passage, number: (status, {}, "{}")) as server, pytest.raises(error, match=said):
        ask(server.url, tmp_path / "journal")


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be reached"):
        ask("http://127.0.0.1:9/v1", tmp_path / "journal", retries=0)


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    workspace: Workspace, passages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    out = tmp_path / "pairs.parquet"
    with serve(lambda passage, number: queries(" ".join(passage.split()[:4]))) as server:
        found = workspace.synthesize(passages, out=out, method="llm", model="fake", endpoint=server.url)
        assert server.keys == {"Bearer sk-secret"}
    assert found.spent is not None
    assert found.spent.requests == 12
    assert found.traits["difficulty"]["low"].written == 12
    assert found.types["factual"].rank is not None
    written = [path for path in [*tmp_path.rglob("*"), *workspace.directory.rglob("*")] if path.is_file()]
    assert not [path for path in written if b"sk-secret" in path.read_bytes()]
    assert len(out.with_name("pairs.parquet.requests.jsonl").read_text().splitlines()) == 12


def test_prompts_of_ones_own(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(PROMPTS, tmp_path / "own")
    (tmp_path / "own/query.txt").write_text("Passage:\n{passage}\n\nIn {language}, as {personas}, {count}, {tone}")
    with pytest.raises(InputError, match=r"has a field that is not one of .*'tone'"):
        ask("http://127.0.0.1:9/v1", tmp_path / "journal", prompts=tmp_path / "own")
    (tmp_path / "own/query.txt").write_text("Passage:\nall the same\n\n")
    with pytest.raises(InputError, match=r"lacks the field \{passage\}"):
        ask("http://127.0.0.1:9/v1", tmp_path / "journal", prompts=tmp_path / "own")
    with pytest.raises(InputError, match="cannot be read as text"):
        ask("http://127.0.0.1:9/v1", tmp_path / "journal", prompts=tmp_path / "none")


def test_the_command_prints_what_was_made(workspace: Workspace, passages: Path, run: Any) -> None:
    out = workspace.directory / "pairs.parquet"
    done = run("synthesize", passages, "--out", out, "--show", 2, "-w", workspace.directory)
    assert done.code == 0, done.err
    assert "pairs for" in done.out
    assert "parts of the passages, and weak" in done.out
    assert done.out.count("    + ") == 2
    assert f"continual ingest {out} --domain NAME" in done.out.replace("\n", "")
