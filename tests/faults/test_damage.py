"""One flipped bit in any file is found by doctor, and refused by the command that uses the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.care.findings import Finding
from continual.errors import DataError, SchemaError
from continual.eval.query_scores import CACHE, QueryScores
from continual.models.weights import weights_sha256
from continual.registry.digests import CHECKED
from tests.commands import Run
from tests.faults.stock import flip
from tests.rows import Write, make_pairs

pytestmark = pytest.mark.faults

SNAPSHOT = ["model.safetensors", "tokenizer.json", "1_Pooling/config.json", "modules.json", "config.json"]
TASK = ["corpus", "queries", "qrels", "keys", "held", "leaks", "shingles"]
FILES = [
    *(f"versions/{version}/{name}" for version in ("v0", "v1", "v2") for name in SNAPSHOT),
    *(f"adapters/v1/adapter_{name}" for name in ("config.json", "model.safetensors")),
    *(f"tasks/first/{name}.parquet" for name in TASK),
    "data/first/b1.parquet",
    "data/second/b2.parquet",
    "scores/v2/first.parquet",
]


def wrong(workspace: Workspace, *, full: bool = True) -> list[Finding]:
    return [finding for finding in workspace.doctor(full=full).findings if finding.severity != "note"]


def pretend_checked(workspace: Workspace, *paths: str) -> None:
    """Remember files as they are now, as if the damage had come without a trace in their times."""
    digests = workspace.registry.digests
    stats = {path: workspace.registry.path(path).stat() for path in paths}
    digests._remember(
        {path: (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for path, stat in stats.items()}
    )


def test_every_file_of_a_workspace_has_a_digest(learned: Workspace) -> None:
    root = learned.registry.root
    recorded = {digest.path for digests in learned.registry.digests.recorded().values() for digest in digests}
    folders = ("versions", "adapters", "data", "tasks", "scores")
    files = {file.relative_to(root).as_posix() for name in folders for file in (root / name).rglob("*")}
    files = {path for path in files if (root / path).is_file() and not path.endswith("remembered.npz")}
    assert recorded == files
    assert set(FILES) <= recorded


def test_nothing_is_wrong_with_a_workspace_that_learned(learned: Workspace) -> None:
    found = learned.doctor(full=True)
    assert found.healthy
    assert found.findings == []
    assert found.files == sum(map(len, learned.registry.digests.recorded().values()))
    learned.gc()
    assert learned.doctor(full=True).findings == []  # a dropped snapshot is not missing


def test_one_bit_of_each_file_is_found_and_named(learned: Workspace) -> None:
    for path in FILES:
        flip(learned.registry.path(path))
    found = wrong(learned, full=False)
    assert {finding.severity for finding in found} == {"error"}
    assert sorted(finding.where for finding in found) == sorted(f".continual/{path}" for path in FILES)
    # Even if neither the times nor the size tell.
    pretend_checked(learned, *FILES)
    assert wrong(learned, full=False) == []
    assert wrong(learned) == found


USES: list[tuple[str, str, Callable[[Workspace, Path], object]]] = [
    *(
        (f"versions/v2/{name}", "versions rebuild v2", use)
        for name in SNAPSHOT
        for use in (
            lambda workspace, out: workspace.load(),
            lambda workspace, out: workspace.export("current", out),
            lambda workspace, out: workspace.update(),
        )
    ),
    ("versions/v1/tokenizer.json", "versions rebuild v1", lambda workspace, out: workspace.rollback()),
    ("versions/v1/1_Pooling/config.json", "versions rebuild v1", lambda workspace, out: workspace.promote("v1")),
    ("versions/v0/tokenizer.json", "the root base", lambda workspace, out: workspace.rebuild("v1")),
    ("adapters/v1/adapter_config.json", "backup", lambda workspace, out: workspace.rebuild("v1")),
    ("data/first/b1.parquet", "backup", lambda workspace, out: workspace.update()),
    ("data/second/b2.parquet", "backup", lambda workspace, out: workspace.train("joint")),
    (
        "data/first/b1.parquet",
        "backup",
        lambda workspace, out: workspace.ingest(out.parent / "third.tsv", domain="more"),
    ),
    *((f"tasks/first/{name}.parquet", "backup", lambda workspace, out: workspace.update()) for name in TASK),
    ("tasks/first/qrels.parquet", "backup", lambda workspace, out: workspace.evaluate(suite="step", tasks=["first"])),
    ("scores/v2/first.parquet", "continual eval v2", lambda workspace, out: workspace.report()),
    ("scores/v2/first.parquet", "continual eval v2", lambda workspace, out: workspace.compare()),
    ("scores/v2/first.parquet", "continual eval v2", lambda workspace, out: workspace.compare_queries()),
    ("scores/v2/first.parquet", "continual eval v2", lambda workspace, out: workspace.update()),
    ("tasks/first/queries.parquet", "backup", lambda workspace, out: workspace.report()),
]


@pytest.mark.parametrize(("path", "cure", "use"), USES)
def test_a_command_refuses_a_damaged_file(
    stock: Path, tmp_path: Path, path: str, cure: str, use: Callable[[Workspace, Path], object]
) -> None:
    shutil.copy(stock / "third.tsv", tmp_path)
    learned = Workspace(shutil.copytree(stock / "w", tmp_path / "w"))
    if path.startswith("tasks"):  # a score that exists reads no task
        with learned.registry.catalog.transaction() as connection:
            connection.execute("DELETE FROM scores WHERE version = 'v2' AND task = 'first'")
    before = learned.registry.alias_events()
    flip(learned.registry.path(path))
    with pytest.raises(DataError) as raised:
        use(learned, learned.directory.parent / "out")
    assert str(learned.registry.path(path)) in str(raised.value)
    assert "was damaged or changed" in str(raised.value)
    assert cure in str(raised.value)
    assert learned.registry.alias_events() == before


@pytest.mark.parametrize(
    "path", ["versions/v2/tokenizer.json", "data/first/b1.parquet", "adapters/v1/adapter_config.json"]
)
def test_what_decides_weights_is_read_in_full_each_time(learned: Workspace, write_pairs: Write, path: str) -> None:
    learned.ingest(write_pairs("third.parquet", make_pairs(40, seed=3)))
    flip(learned.registry.path(path), keep_times=True)
    pretend_checked(learned, path)
    with pytest.raises(DataError, match="was damaged or changed"):
        learned.rebuild("v2") if path.startswith("adapters") else learned.update(replay=0.5)


def test_a_file_is_read_once_until_it_changes(learned: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    learned.report()
    read: list[Path] = []
    monkeypatch.setattr("continual.registry.digests._sha256", lambda file, progress: read.append(file) or "0" * 64)
    Workspace(learned.directory).report()
    assert read == []
    file = learned.registry.path("scores/v2/first.parquet")
    os.utime(file)
    with pytest.raises(DataError):
        Workspace(learned.directory).report()
    assert read == [file]
    learned.registry.path(CHECKED).unlink()
    with pytest.raises(DataError):
        Workspace(learned.directory).report()
    assert len(read) > 10


def test_damage_in_any_table_of_the_catalog_is_found(learned: Workspace) -> None:
    """DuckDB finds damage only in the blocks that it reads, and doctor needs not all of the runs."""
    path = learned.registry.catalog.path
    data = path.read_bytes()

    def damaged(query: str) -> bool:
        try:
            with duckdb.connect(str(path), read_only=True) as connection:
                connection.execute(query).fetchall()
        except duckdb.Error:
            return True
        return False

    for at in range(3 * 4096 + 100, len(data), 4096):
        path.write_bytes(data)
        flip(path, at)
        if damaged("SELECT spec FROM runs") and not damaged("SELECT * FROM versions"):
            break
    else:
        pytest.fail("no bit damages the runs alone")
    with pytest.raises(SchemaError, match="is damaged"):
        learned.doctor(full=True)


def test_a_damaged_cache_of_scores_is_not_used(learned: Workspace) -> None:
    learned.report()
    root, path = learned.registry.root, "scores/v2/first.parquet"
    expected = QueryScores(root).read(path)
    assert expected is not None
    cache = root / "scores" / CACHE
    data = cache.read_bytes()
    for bit in range(0, 8 * len(data), 37):
        cache.write_bytes(data)
        flip(cache, bit // 8, bit % 8)
        found = QueryScores(root).read(path)
        assert found is not None
        assert found[0] == expected[0]
        assert (found[1] == expected[1]).all()


def test_a_damaged_task_is_restored_from_its_folder(learned: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "task"
    source.mkdir()
    for name in ("corpus", "queries", "qrels"):
        shutil.copy(learned.registry.path(f"tasks/first/{name}.parquet"), source)
    learned.add_task("wiki", source)
    flip(learned.registry.path("tasks/wiki/corpus.parquet"))
    (found,) = wrong(learned)
    assert f"continual task add wiki {source}" in found.cure
    learned.add_task("wiki", source)
    assert wrong(learned) == []


def test_a_lost_list_of_leaks_is_noticed(learned: Workspace) -> None:
    """Without it, an update would train on rows of the task."""
    learned.registry.path("tasks/first/leaks.parquet").unlink()
    (found,) = wrong(learned)
    assert found.what == "is missing"
    with pytest.raises(DataError, match="is missing"):
        learned.train("joint")


def test_an_older_workspace_gets_digests_when_it_is_read_in_full(
    learned: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with learned.registry.catalog.transaction() as connection:
        connection.execute("DELETE FROM files")
    (note,) = learned.doctor().findings
    assert (note.severity, learned.registry.digests.recorded()) == ("note", {})
    learned.report()
    assert learned.registry.digests.recorded() == {}  # a report changes nothing
    learned.load("v1")
    assert "no digests of version v1" in caplog.text
    flip(learned.registry.path("versions/v1/tokenizer.json"))
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        learned.load("v1")
    weights = learned.registry.path("versions/v2/model.safetensors")
    flip(weights)
    assert {finding.where for finding in wrong(learned)} == {
        ".continual/versions/v1/tokenizer.json",
        ".continual/versions/v2",
    }
    assert learned.doctor(fix=True, full=True).findings == []
    assert weights_sha256(weights.parent) == learned.version("v2").sha256


def test_a_rebuilt_snapshot_is_the_old_one_file_by_file(learned: Workspace) -> None:
    before = learned.registry.digests.recorded()["versions/v2"]
    shutil.rmtree(learned.registry.path("versions/v2"))
    learned.load("v2")
    assert learned.registry.digests.recorded()["versions/v2"] == before


def test_scores_that_do_not_give_their_mean_are_found(learned: Workspace) -> None:
    path = "scores/v2/first.parquet"
    table = pq.read_table(learned.registry.path(path))
    pq.write_table(table.slice(1), learned.registry.path(path))
    learned.registry.digests.record(path)
    (found,) = wrong(learned)
    assert found.what.startswith("gives ")


def test_the_command_tells_and_ends_with_2(learned: Workspace, run: Run) -> None:
    fine = run("doctor", "--full", "-w", learned.directory)
    assert (fine.code, fine.out.splitlines()[-1].endswith("Nothing is wrong.")) == (0, True)
    assert "reading files" in fine.err
    flip(learned.registry.path("versions/v2/tokenizer.json"))
    found = run("doctor", "-w", learned.directory)
    assert found.code == 2
    assert "error: .continual/versions/v2/tokenizer.json was damaged or changed" in found.out
    assert "continual versions rebuild v2" in found.out
    mended = run("doctor", "--fix", "-w", learned.directory)
    assert mended.code == 0
    assert "Rebuilt the snapshot of v2" in mended.out
