"""Replay: quotas, windows of hash space, leakage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from continual.errors import DataError, InputError, NotFoundError
from continual.registry import Batch, Registry, Task
from continual.registry.catalog import now
from continual.replay import RowReader, allot, draw, get_policy
from continual.replay.policies import policies

AVAILABLE = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 500), max_size=6)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@given(AVAILABLE, st.floats(0, 1), st.sampled_from(policies()))
def test_quotas_sum_to_the_share_and_never_exceed_a_domain(
    available: dict[str, int], share: float, policy: str
) -> None:
    quotas = allot(policy, available, share)
    if get_policy(policy).fixed:
        assert quotas == {domain: int(share * rows + 0.5) for domain, rows in available.items()}
    else:
        assert sum(quotas.values()) == round(share * sum(available.values()))
    assert all(0 <= quotas[domain] <= rows for domain, rows in available.items())


@given(AVAILABLE, st.integers(0, 3000), st.sampled_from(policies()))
@example({"a": 1, "b": 1, "c": 1, "d": 1}, 3, "reservoir")  # halves rounded up: four rows, where half of all are two
def test_a_number_of_rows_limits_the_share(available: dict[str, int], rows: int, policy: str) -> None:
    free = allot(policy, available, 0.5)
    quotas = allot(policy, available, 0.5, rows)
    assert quotas == free if rows >= sum(free.values()) else sum(quotas.values()) == rows


def test_a_core_of_a_domain_does_not_depend_on_the_others() -> None:
    alone = allot("reservoir", {"a": 61}, 0.4)
    assert alone == {"a": 24}
    assert allot("reservoir", {"a": 61, "b": 61, "c": 61}, 0.4) == {"a": 24, "b": 24, "c": 24}


def test_uniform_follows_sizes_and_balanced_does_not() -> None:
    available = {"large": 900, "middle": 90, "small": 10}
    assert allot("uniform", available, 0.1) == {"large": 90, "middle": 9, "small": 1}
    assert allot("balanced", available, 0.1) == {"large": 45, "middle": 45, "small": 10}


def test_a_share_outside_its_range_is_refused() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="from 0 to 1"):
            allot("uniform", {"a": 1}, share)
    with pytest.raises(InputError, match="0 or more"):
        allot("uniform", {"a": 1}, 0.1, -1)
    with pytest.raises(NotFoundError, match="Did you mean 'uniform'"):
        allot("unifrom", {"a": 1}, 0.1)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / ".continual")
    made.catalog.create()
    return made


def store(registry: Registry, domain: str, rows: int, start: int = 0) -> Batch:
    """Write a batch as ingest does: hashed, in hash order."""
    records = [
        {
            "row_hash": md5(f"{domain} q{number} p{number}"),
            "query": f"{domain} q{number}",
            "positive": f"{domain} p{number}",
            "negatives": [],
            "doc_id": None,
            "query_hash": md5(f"{domain} q{number}"),
            "positive_hash": md5(f"{domain} p{number}"),
        }
        for number in range(start, start + rows)
    ]
    records.sort(key=lambda record: str(record["row_hash"]))
    path = f"data/{domain}/{start}.parquet"
    registry.path(path).parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(
        [(name, pa.string()) for name in ("row_hash", "query", "positive")]
        + [("negatives", pa.list_(pa.string()))]
        + [(name, pa.string()) for name in ("doc_id", "query_hash", "positive_hash")]
    )
    pq.write_table(pa.Table.from_pylist(records, schema), registry.path(path), row_group_size=10)
    return registry.add_batch(
        Batch(registry.next_batch_id(), domain, path, md5(path), path, rows, rows, 0, 0, 0, 0, None, {}, now())
    )


def test_successive_windows_see_all_history_once(registry: Registry) -> None:
    batches = [store(registry, "a", 60), store(registry, "a", 40, start=60)]
    new, cursors, seen = store(registry, "b", 5), {}, []
    for _ in range(5):
        with RowReader(registry) as rows:
            drawn = rows.draw([new], batches, {"a": 20}, cursors)
        assert drawn.rows == 25
        cursors = {"a": drawn.replay[0].stop}
        table = drawn.table.filter(pc.equal(drawn.table["domain"], "a"))
        assert table.num_rows == drawn.replay[0].rows == 20
        seen += table["query"].to_pylist()
    assert len(set(seen)) == 100


def test_a_window_wraps_around_without_repeating_a_row(registry: Registry) -> None:
    batch, new = store(registry, "a", 50), store(registry, "b", 1)
    with RowReader(registry) as rows:
        first = rows.draw([new], [batch], {"a": 30}, {})
        second = rows.draw([new], [batch], {"a": 30}, {"a": first.replay[0].stop})
        everything = rows.draw([new], [batch], {"a": 50}, {"a": first.replay[0].stop})
    assert second.replay[0].stop < second.replay[0].start
    assert len(set(second.table["query"].to_pylist())) == 31
    assert len(set(everything.table["query"].to_pylist())) == 51


def test_the_same_draw_has_the_same_digest_and_a_window_is_a_random_sample(registry: Registry) -> None:
    batch, new = store(registry, "a", 1000), store(registry, "b", 1)
    with RowReader(registry) as rows:
        one = rows.draw([new], [batch], {"a": 200}, {})
        two = rows.draw([new], [batch], {"a": 200}, {})
    assert one.replay == two.replay
    assert one.table.equals(two.table)
    numbers = [int(query.split("q")[1]) for query in one.table["query"].to_pylist() if query.startswith("a")]
    # The mean of 200 of 0..999 without replacement: 499.5, standard deviation 18.3.
    assert abs(sum(numbers) / 200 - 499.5) < 5 * 18.3


def test_rows_of_an_evaluation_task_are_never_drawn(registry: Registry) -> None:
    batch, new = store(registry, "a", 30), store(registry, "b", 10)
    folder = registry.path("tasks/t")
    folder.mkdir(parents=True)
    keys = [("query", md5("a q3")), ("document", md5("a p4")), ("query", md5("a p5")), ("document", md5("b p0"))]
    pq.write_table(
        pa.table({"kind": [kind for kind, _ in keys], "hash": [value for _, value in keys]}), folder / "keys.parquet"
    )
    registry.add_task(Task("t", None, "tasks/t", 1, 1, 1, "folder", "x", now()))
    with pytest.raises(DataError, match=r"corpus\.parquet"):
        RowReader(registry)
    for name in ("corpus", "queries", "qrels"):
        (folder / f"{name}.parquet").touch()  # a draw needs the keys, and a step the others
    registry.digests.record("tasks/t")
    with RowReader(registry) as rows:
        assert rows.count([batch]) == {"a": 28}
        drawn = rows.draw([new], [batch], {"a": 28}, {})
    queries = set(drawn.table["query"].to_pylist())
    assert {"a q3", "a q4", "b q0"}.isdisjoint(queries)
    assert "a q5" in queries
    assert drawn.rows == 37


def test_rows_of_classes_without_negatives_are_skipped_and_counted(registry: Registry) -> None:
    plain, classes = store(registry, "a", 20), store(registry, "c", 40)
    path = registry.path(classes.path)
    table = pq.read_table(path)
    negatives = [["no"] if place % 4 == 0 else [] for place in range(40)]
    place = table.column_names.index("negatives")
    pq.write_table(table.set_column(place, "negatives", pa.array(negatives, pa.list_(pa.string()))), path)
    registry.digests.record(classes.path)
    with RowReader(registry) as rows:
        before = rows.draw([plain], [classes], {"c": 6}, {})
        assert rows.skipped([plain, classes]) == {}
    with registry.catalog.transaction() as connection:
        connection.execute("UPDATE domains SET kind = 'clustering' WHERE name = 'c'")
    with RowReader(registry) as rows:
        assert rows.count([plain, classes]) == {"a": 20, "c": 10}
        assert rows.skipped([plain, classes]) == {"c": 30}
        drawn = rows.draw([plain], [classes], {"c": 6}, {}, held=4)
    assert before.table["in_batch"].to_pylist() == [True] * 26
    assert drawn.table["in_batch"].to_pylist() == [True] * 18 + [False] * 6
    assert [window.rows for window in drawn.held] == [2, 4]
    assert drawn.held_table["in_batch"].to_pylist() == [True] * 2 + [False] * 4
    assert drawn.new[0].start == before.new[0].start
    seen = pa.concat_tables([drawn.table, drawn.held_table])
    assert seen.filter(pc.equal(seen["domain"], "c"))["negatives"].to_pylist() == [["no"]] * 10


def test_two_sessions_do_not_share_what_they_spill(registry: Registry) -> None:
    """A plan ends while an update draws: DuckDB removes its folder, and must not remove the other's."""
    batch, new = store(registry, "a", 30), store(registry, "b", 1)
    runs = registry.path("runs")
    with RowReader(registry) as update:
        (own,) = runs.iterdir()
        with RowReader(registry) as plan:
            assert len(list(runs.iterdir())) == 2
            plan.count([batch])
        assert list(runs.iterdir()) == [own]
        assert update.draw([new], [batch], {"a": 5}, {}).rows == 6
    assert not list(runs.iterdir())


def test_rows_found_to_leak_are_never_drawn(registry: Registry) -> None:
    batch, new = store(registry, "a", 30), store(registry, "b", 10)
    folder = registry.path("tasks/t")
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"kind": ["query"], "hash": [md5("nothing")]}), folder / "keys.parquet")
    for name in ("corpus", "queries", "qrels"):
        (folder / f"{name}.parquet").touch()
    leaks = {"batch": [batch.id, new.id], "row_hash": [md5("a q3 p3"), md5("b q1 p1")], "near": [True, True]}
    pq.write_table(pa.table(leaks), folder / "leaks.parquet")
    registry.add_task(Task("t", None, "tasks/t", 1, 1, 1, "folder", "x", now()))
    with RowReader(registry) as rows:
        drawn = rows.draw([new], [batch], {"a": 30}, {})
    assert {"a q3", "b q1"}.isdisjoint(drawn.table["query"].to_pylist())
    assert drawn.rows == 38


def test_the_first_window_holds_the_lowest_hashes(registry: Registry) -> None:
    whole, new = store(registry, "a", 40), store(registry, "b", 1)
    with RowReader(registry) as rows:
        drawn = rows.draw([new], [whole], {"a": 10}, {})
    expected = sorted(range(40), key=lambda number: md5(f"a q{number} p{number}"))[:10]
    assert set(drawn.table["query"].to_pylist()) == {"b q0"} | {f"a q{number}" for number in expected}


@pytest.mark.parametrize("small", [0, 5000])
@given(wanted=st.integers(1, 130), start=st.integers(-1, 99), leaks=st.sampled_from([0.0, 0.3, 0.95]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_is_what_sorting_all_rows_gives(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    small: int,
    wanted: int,
    start: int,
    leaks: float,
) -> None:
    monkeypatch.setattr(draw, "SMALL", small)
    registry = Registry(tmp_path_factory.mktemp("r") / ".continual")
    registry.catalog.create()
    batches = [store(registry, "a", 60), store(registry, "a", 40, start=60)]
    hashes = sorted(md5(f"a q{number} p{number}") for number in range(100))
    drawable = [each for number, each in enumerate(hashes) if (number * 37 % 100) / 100 >= leaks]
    cursor = hashes[start] if start >= 0 else ""
    with RowReader(registry) as rows:
        rows._not_held += f" AND row_hash IN ({', '.join(map(repr, drawable))})"
        window = rows._window("a", [str(registry.path(batch.path)) for batch in batches], cursor, wanted)
    around = [each for each in drawable if each > cursor] + [each for each in drawable if each <= cursor]
    assert window["row_hash"].to_pylist() == around[:wanted]


def test_row_groups_beyond_a_window_are_not_read(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "SMALL", 0)
    batch = store(registry, "a", 2000)
    path = registry.path(batch.path)
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        spans = [metadata.row_group(100).column(place) for place in range(metadata.num_columns)]
    content = bytearray(path.read_bytes())
    for span in spans:
        first = span.dictionary_page_offset or span.data_page_offset
        content[first : first + span.total_compressed_size] = b"\xff" * span.total_compressed_size
    path.write_bytes(content)
    hashes = sorted(md5(f"a q{number} p{number}") for number in range(2000))
    with RowReader(registry) as rows:
        assert rows._window("a", [str(path)], hashes[499], 300)["row_hash"].to_pylist() == hashes[500:800]
        assert rows._window("a", [str(path)], hashes[1899], 300)["row_hash"].to_pylist() == hashes[1900:] + hashes[:200]
        with pytest.raises(duckdb.Error):
            rows._window("a", [str(path)], hashes[800], 300)
