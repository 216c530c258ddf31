"""The harness sees what it looks for: an attempt that went wrong must not count as right."""

from __future__ import annotations

import datetime
import random
from pathlib import Path

import pytest

from continual import Workspace
from tests.faults import mutations, oracles, results
from tests.faults.bench import Outcome, table, tried
from tests.faults.mutators import damage, mutate
from tests.faults.processes import GB, Ended, call
from tests.faults.state import difference, junk, lost, state
from tests.faults.stock import copied

MESSAGE = "continual: There is no workspace here.\n"


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        (Ended(0, "", "", 1, GB, False), ""),
        (Ended(2, "", MESSAGE, 1, GB, False), ""),
        (Ended(2, "", "", 1, GB, False), "0 messages"),
        (Ended(2, "", 2 * MESSAGE, 1, GB, False), "2 messages"),
        (Ended(1, "", "Traceback (most recent call last)\nValueError: x", 1, GB, False), "traceback: ValueError"),
        (Ended(-6, "", "", 1, GB, False), "exit -6"),
        (Ended(0, "", "", 11, GB, False, 1), ""),
        (Ended(0, "", "", 11, GB, False, 10.5), "ran 11.0 s, 10.5 s of them busy"),
        (Ended(0, "", "", 61, GB, False, 1), "ran 61.0 s"),
        (Ended(-9, "", "", 9, GB, True), "ran 9.0 s"),
        (Ended(0, "", "", 1, 3 * GB, False), "held 3.0 GB"),
    ],
)
def test_an_end_is_judged(ended: Ended, problem: str) -> None:
    found = ended.problem()
    assert problem in found
    assert bool(found) == bool(problem)


def test_what_is_lost_or_differs_is_seen(learned: Workspace) -> None:
    room = learned.directory.parent
    before = state(room)
    assert before["versions"]
    learned.pin("v1")
    pinned = state(room)
    assert "versions: 1 gone, 1 new" in difference(before, pinned)
    assert lost(before, pinned) == ""
    with learned.registry.catalog.transaction() as connection:
        connection.execute("DELETE FROM versions WHERE id = 'v1'")
    assert lost(before, state(room)) == "versions: ['v1']"
    left = learned.registry.path("versions/.v9.0-1-0.partial")
    left.mkdir()
    assert junk(room) == [left.relative_to(room).as_posix()]
    learned.registry.catalog.path.write_bytes(b"x" * 9000)
    assert "versions: ['v0', 'v1', 'v2']" in lost(before, state(room))


def test_an_attempt_that_cannot_be_made_counts_as_wrong() -> None:
    def fail() -> Outcome:
        raise OSError("no more files")

    outcome = tried(fail, 7)
    assert "no more files" in outcome.problem
    assert outcome.replay == {"attempt": 7}
    assert "| the harness itself | 1 | 1 failed | 1 |" in table([outcome])


def test_a_mutation_is_repeated_by_its_seed() -> None:
    data = b'{"query": "a", "positive": "b"}\n' * 20
    made = [mutate(data, random.Random(seed)) for seed in range(40)]
    assert made == [mutate(data, random.Random(seed)) for seed in range(40)]
    assert len({each for each, _ in made}) > 30


@pytest.mark.parametrize("name", ["third.jsonl.gz", "third.jsonl.zst"])
def test_compressed_files_are_damaged_inside_too(name: str, stock: Path, tmp_path: Path) -> None:
    whole = oracles.decompressed(stock / name)
    inside = 0
    for seed in range(40):
        data, how = damage(stock / name, random.Random(seed))
        if how.startswith("plain"):
            (tmp_path / name).write_bytes(data)
            inside += oracles.decompressed(tmp_path / name) != whole
    assert 10 < inside < 30


def test_lost_rows_are_seen(stock: Path) -> None:
    with copied(stock) as room:
        ended = call(["ingest", "../third.jsonl", "--domain", "other", "--holdout", "0", "--json"], room / "w")
        assert ended.code == 0
        assert mutations.right_rows(room, ended, "third.jsonl") == ""
        with (room / "third.jsonl").open("a") as file:
            file.write('{"query": "one", "positive": "more"}\n')
        assert "40 rows came in, but the independent reader finds [41]" in mutations.right_rows(
            room, ended, "third.jsonl"
        )


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("corpus.jsonl", '{"_id": "more", "text": "one"}', "its documents are not those of the file"),
        ("qrels.tsv", "q0\td5\t1", "its judgements are not those of the file"),
    ],
)
def test_lost_parts_of_a_task_are_seen(stock: Path, name: str, line: str, problem: str) -> None:
    with copied(stock) as room:
        ended = call(["task", "add", "new", "../beir"], room / "w")
        assert ended.code == 0
        assert mutations.right_task(room, ended) == ""
        with (room / "beir" / name).open("a") as file:
            file.write(line + "\n")
        assert mutations.right_task(room, ended) == problem


@pytest.mark.parametrize("name", ["third.parquet", "third.jsonl", "third.csv", "third.tsv", "third.jsonl.zst"])
def test_the_oracles_count_rows(name: str, stock: Path) -> None:
    assert oracles.row_count(stock / name, "positive") == 40


@pytest.mark.parametrize("name", ["third.parquet", "third.jsonl", "third.csv", "third.tsv", "third.jsonl.gz"])
def test_the_oracles_read_the_same_rows(name: str, stock: Path) -> None:
    found = oracles.pairs([stock / name], "query", "positive")
    assert len(found) == 40
    queries = {query for query, _ in oracles.pairs([stock / "third.jsonl"], "query", "positive")}
    assert {query for query, _ in found} == queries


def test_the_tensors_of_a_model_are_read(stock: Path) -> None:
    from safetensors.numpy import load_file

    file = stock / "model" / "model.safetensors"
    expected, found = load_file(file), oracles.tensors(file)
    assert expected.keys() == found.keys()
    assert all((expected[name] == found[name]).all() for name in expected)


def test_the_page_gets_the_results_of_the_phases_that_ran(tmp_path: Path) -> None:
    (tmp_path / "flips.jsonl").write_text(
        '{"case": "data", "result": "found, refused", "problem": "", "replay": {"attempt": 0}}\n'
    )
    page = "A\n<!-- flips -->\nold\n<!-- end of flips -->\nB\n<!-- kills -->\nkept\n<!-- end of kills -->\n"
    written = results.write(page, tmp_path)
    assert "| data | 1 | 1 found, refused | 0 |" in written
    assert "old" not in written
    assert written.endswith("B\n<!-- kills -->\nkept\n<!-- end of kills -->\n")
    assert str(datetime.datetime.now(datetime.UTC).date()) in written


def test_the_page_has_a_place_for_every_phase() -> None:
    page = results.PAGE.read_text(encoding="utf-8")
    for phase in results.PHASES:
        assert page.count(f"<!-- {phase} -->") == page.count(f"<!-- end of {phase} -->") == 1
