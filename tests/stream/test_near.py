"""Near duplicates: what counts as one, found exactly, and kept out of training whenever the task came."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config import IngestConfig
from continual.registry import Registry
from continual.registry.migrations import MIGRATIONS
from continual.replay.draw import RowReader
from continual.stream import import_task, ingest
from continual.stream.database import database
from continual.stream.near import (
    NEAR,
    SHINGLES,
    Bitmap,
    find_near,
    write_shingles,
)
from continual.stream.shingles import TEXTS, shingles, words
from tests.rows import WORDS, make_pairs, sentence
from tests.stream.rows import new_registry, stored, task_rows, write_rows
from tests.tasks import write_beir

CONFIG = IngestConfig()
KINDS = ("query", "document")


@cache
def by_hand(text: str) -> set[tuple[str, ...]]:
    """The shingles of an ASCII text, as the definition says."""
    found = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(found[place : place + 3]) for place in range(max(len(found) - 2, min(len(found), 1)))}


def similarity(one: str, other: str) -> float:
    first, second = by_hand(one), by_hand(other)
    return len(first & second) / len(first | second) if first and second else 0.0


@given(st.lists(st.text(alphabet="ab  ,'1Z", max_size=30), max_size=8))
def test_shingles_are_runs_of_three_words(texts: list[str]) -> None:
    values, sizes = shingles(texts)
    assert sizes.tolist() == [len(by_hand(text)) for text in texts]
    sets = [set(part.tolist()) for part in np.split(values, np.cumsum(sizes)[:-1])] if texts else []
    for one, first in zip(texts, sets, strict=True):
        for other, second in zip(texts, sets, strict=True):
            assert len(first & second) == len(by_hand(one) & by_hand(other))


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words("Re-index, 2 TIMES!") == [b"re", b"index", b"2", b"times"]
    assert words("na\u00efve \u2014 Stra\u00dfe\u2019s \ufb01ne") == words("nai\u0308ve strasse s fine")
    assert len(words("\u6771\u4eac\u90fd\u5e81")) == 4  # no spaces between words, so each character is one
    assert words("...") == []


def test_a_bitmap_forgets_nothing() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << 48, 5000, dtype=np.uint64)
    bitmap = Bitmap(20)
    bitmap.add(values[:4000])
    assert bitmap.has(values[:4000]).all()
    assert bitmap.has(values[4000:]).mean() < 0.02


def variants(rng: random.Random, text: str) -> str:
    """A text with some of its words changed, dropped or moved."""
    found = text.split()
    for _ in range(rng.randint(0, 3)):
        place = rng.randrange(len(found))
        change = rng.choice(["swap", "drop", "case", "more"])
        if change == "swap":
            found[place] = rng.choice(WORDS)
        elif change == "drop" and len(found) > 1:
            del found[place]
        elif change == "case":
            found[place] = found[place].upper() + ","
        else:
            found.insert(place, rng.choice(WORDS))
    return " ".join(found)


def test_what_is_found_is_what_comparing_all_pairs_finds(tmp_path: Path) -> None:
    rng = random.Random(1)
    # A common beginning: most texts share shingles, as questions of a template do.
    tasks = [
        {
            kind: [f"bal cel dit {sentence(rng, rng.randint(0, 40))}" for _ in range(40)]
            for kind in ("query", "document")
        }
        for _ in range(2)
    ]
    for number, texts in enumerate(tasks):
        write_shingles(tmp_path / f"{number}.parquet", texts)
    rows = {
        column: [variants(rng, rng.choice(tasks[number % 2][kind])) for number in range(300)]
        for column, kind in (("query", "query"), ("positive", "document"))
    }
    table = pa.table({"place": pa.array(range(300), pa.int64()), **rows})
    with database(tmp_path / "spill") as connection:
        find_near(connection, [table.slice(0, 100), table.slice(100)], [tmp_path / "0.parquet", tmp_path / "1.parquet"])
        found = set(connection.execute("SELECT place, task FROM near").fetchall())
        find_near(connection, [table], [])  # no task
        assert connection.execute("SELECT count(*) FROM near").fetchall() == [(0,)]
    expected = {
        (place, task)
        for place in range(300)
        for task, texts in enumerate(tasks)
        for column in rows
        for kind in NEAR
        if any(similarity(rows[column][place], text) >= NEAR[kind] - 1e-9 for text in texts[kind])
    }
    assert found == expected
    assert 50 < len(expected) < 250


def test_many_texts_are_cut_into_pieces(tmp_path: Path) -> None:
    texts = [f"text {number} of many" for number in range(TEXTS + 3)]
    write_shingles(tmp_path / "t.parquet", {"query": texts})
    assert len(set(pq.read_table(tmp_path / "t.parquet")["text"].to_pylist())) == TEXTS + 3
    table = pa.table({"place": pa.array(range(TEXTS + 3), pa.int64()), "query": texts, "positive": [""] * (TEXTS + 3)})
    with database(tmp_path / "spill") as connection:
        find_near(connection, [table], [tmp_path / "t.parquet"])
        assert connection.execute("SELECT count(*) FROM near").fetchall() == [(TEXTS + 3,)]


QUESTION = "What are the common side effects of the medicine that my doctor gave me last week?"
ANSWER = " ".join(f"word{number}" for number in range(70))
NEARLY = [
    {"query": QUESTION.upper().removesuffix("?"), "positive": "other"},
    {"query": QUESTION.removesuffix(" last week?"), "positive": "another"},
    {"query": "other", "positive": ANSWER.replace("word7 ", "date ")},
]
FAR = [
    {"query": QUESTION.replace("side effects", "risks"), "positive": "third"},
    {"query": "third", "positive": " ".join(reversed(ANSWER.split()))},
]
SWAPPED = {"query": ANSWER, "positive": QUESTION}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(
        tmp_path / "beir", [{"_id": "d", "text": ANSWER}], [{"_id": "q", "text": QUESTION}], [("q", "d", 1)]
    )


def test_near_duplicates_are_dropped_and_counted(registry: Registry, folder: Path, tmp_path: Path) -> None:
    import_task(registry, "ood", folder)
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", [*NEARLY, *FAR]), holdout=0)
    assert (report.kept, report.leaked, report.near) == (2, 3, 3)
    assert {row["query"] for row in stored(registry, "b1")} == {row["query"] for row in FAR}
    assert registry.leaks() == []


def test_swapped_pairs_leak_exactly_and_nearly(registry: Registry, folder: Path, tmp_path: Path) -> None:
    import_task(registry, "ood", folder)
    near = [{"query": ANSWER.replace("word7 ", "date "), "positive": f"p{n} is of its own"} for n in range(2)]
    near.append({"query": "an own query", "positive": QUESTION.removesuffix(" last week?")})
    source = write_rows(tmp_path / "a.parquet", [SWAPPED, *near, *FAR])
    report = ingest(registry, CONFIG, source, holdout=0)
    assert (report.kept, report.leaked, report.near) == (2, 4, 3)
    later = Registry(tmp_path / "later" / ".continual", busy_seconds=0.0)
    later.catalog.create()
    ingest(later, CONFIG, source, holdout=0)
    found = import_task(later, "ood", folder)
    assert (found.leaked_rows, found.near_rows) == (4, 3)


def test_held_out_pairs_are_not_trained_on_the_other_way_round(registry: Registry, tmp_path: Path) -> None:
    pairs = make_pairs(60)
    swapped = [{"query": row["positive"], "positive": row["query"]} for row in pairs]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", pairs), holdout=0.2)
    held = report.held_out
    assert held > 0
    later = ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", swapped), domain="a")
    assert (later.kept, later.leaked) == (60 - held, held)
    both = ingest(new_registry(tmp_path / "c"), CONFIG, write_rows(tmp_path / "c.jsonl", [*pairs, *swapped]))
    assert both.held_out > 0
    assert both.leaked >= both.held_out


def test_what_was_trained_on_is_not_held_out_the_other_way_round(registry: Registry, tmp_path: Path) -> None:
    pairs = make_pairs(40)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", pairs[:30]), holdout=0)
    swapped = [{"query": row["positive"], "positive": row["query"]} for row in pairs]
    ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", swapped), holdout=1)
    held = {row["text"] for row in task_rows(registry, "b")["queries"]}
    assert held <= {row["positive"] for row in pairs[30:]}


def test_near_duplicates_of_a_domains_own_task_are_dropped(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(60)
    for row in rows:
        row["positive"] += " " + ANSWER + f" {row['doc_id']}"
    twins = [
        {**row, "query": f"again {n}", "positive": row["positive"].upper(), "doc_id": None}
        for n, row in enumerate(rows)
    ]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0.2)
    later = ingest(registry, CONFIG, write_rows(tmp_path / "b.parquet", twins), domain="a")
    assert report.held_out == 12
    assert (later.near, later.kept) == (12, 48)


def test_rows_stored_before_the_task_are_counted_and_never_drawn(
    registry: Registry,
    folder: Path,
    tmp_path: Path,
) -> None:
    exact = {"query": f" {QUESTION}", "positive": "quite"}
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", [exact, *NEARLY[:1], *FAR]), holdout=0)
    ingest(registry, CONFIG, write_rows(tmp_path / "b.parquet", [*NEARLY[1:], *make_pairs(5)]), holdout=0)
    report = import_task(registry, "ood", folder)
    assert (report.leaked_rows, report.near_rows) == (4, 3)
    assert [(leak.batch, leak.rows, leak.near) for leak in registry.leaks()] == [("b1", 2, 1), ("b2", 2, 2)]
    with RowReader(registry) as rows:
        assert rows.guarded == ["ood"]
        assert rows.count(registry.batches()) == {"a": 2, "b": 5}
    again = import_task(registry, "ood", folder)
    assert (again.unchanged, again.leaked_rows) == (True, 4)
    assert len(registry.leaks()) == 2


def test_a_task_held_out_later_is_checked_against_all_domains(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(50)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0)
    loud = [{**row, "query": row["query"].upper(), "positive": f"p {n}"} for n, row in enumerate(rows)]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "b.parquet", loud), holdout=0.2)
    assert report.held_out == 10  # no text is equal, so nothing was passed over
    (leak,) = registry.leaks()
    assert (leak.task, leak.batch, leak.rows, leak.near) == ("b", "b1", 10, 10)


def test_a_task_of_before_gets_its_shingles(registry: Registry, folder: Path, tmp_path: Path) -> None:
    import_task(registry, "ood", folder)
    (registry.path("tasks/ood") / SHINGLES).unlink()
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", [*NEARLY, *FAR]), holdout=0)
    assert report.near == 3
    assert (registry.path("tasks/ood") / SHINGLES).is_file()


def test_workspaces_of_before_have_no_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Registry(tmp_path / ".continual")
    with monkeypatch.context() as patch:
        patch.setattr("continual.registry.catalog.MIGRATIONS", MIGRATIONS[:4])
        old.catalog.create()
    assert Registry(tmp_path / ".continual").leaks() == []
