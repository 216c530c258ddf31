"""The catalog, the alias log and the store."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import duckdb
import pytest

from continual.errors import (
    InvalidNameError,
    ModelError,
    NotFoundError,
    SchemaError,
    WorkspaceBusy,
)
from continual.models.weights import weights_sha256
from continual.registry import (
    Batch,
    Registry,
    Run,
    Score,
    Task,
    Version,
    attach,
    catalog,
)
from continual.registry.attach import attached
from continual.registry.catalog import now
from continual.registry.migrations import MIGRATIONS
from continual.registry.names import check_name
from continual.storage import files as store
from continual.storage.files import publish
from continual.storage.locks import exclusive


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / ".continual", busy_seconds=0.2)
    made.catalog.create()
    return made


def version(name: str, parent: str | None = None, batches: list[str] | None = None) -> Version:
    return Version(
        id=name,
        parent=parent,
        status="accepted" if parent else "root",
        path=f"versions/{name}",
        adapter=None,
        sha256="0" * 64,
        batches=batches or [],
        pairs_trained=10,
        tokens_trained=100,
        seconds=1.5,
        joint_pairs=20,
        recipe={"merge": "interpolate"},
        verdict={"passed": True} if parent else None,
        created_at=now(),
    )


def batch(domain: str) -> Batch:
    return Batch("", 0, domain, "f", "s", "data/x", 10, 8, 1, 0, 0, 1, None, {}, now())


def test_a_record_comes_back_as_it_went_in(registry: Registry) -> None:
    task = Task("a", 1, "a", "tasks/a", 1, 2, 3, "holdout", "x", now())
    made = registry.add_batch(batch("a"), task)
    assert registry.batches() == [made]
    assert registry.tasks() == [task]
    assert [domain.name for domain in registry.domains()] == ["a"]
    registry.add_version(version("v0"), [Score("v0", "a", "ndcg_at_10", 51.5, 10, None, {"map": 40.0})])
    assert registry.scores()["v0", "a"].details == {"map": 40.0}
    assert registry.versions()[0] == dataclasses.replace(version("v0"), created_at=registry.versions()[0].created_at)
    assert registry.versions()[0].created_at.tzinfo is not None


def test_domains_keep_the_order_of_the_stream(registry: Registry) -> None:
    for name in ("z", "a", "z", "m"):
        registry.add_batch(batch(name))
    assert [domain.name for domain in registry.domains()] == ["z", "a", "m"]
    assert [each.id for each in registry.batches("z")] == ["b1", "b3"]


def test_aliases_are_an_append_only_log(registry: Registry) -> None:
    registry.add_version(version("v0"), promote="init")
    registry.add_version(version("v1", "v0"), promote="better")
    registry.set_alias("current", "v0", "worse after all")
    assert registry.version("current").id == "v0"
    assert [(event.version, event.previous) for event in registry.alias_events()] == [
        ("v0", None),
        ("v1", "v0"),
        ("v0", "v1"),
    ]


def test_lineage_follows_parents_not_numbers(registry: Registry) -> None:
    for name, parent in (("v0", None), ("v1", "v0"), ("v2", "v0")):
        registry.add_version(version(name, parent))
    assert [each.id for each in registry.lineage(registry.version("v2"))] == ["v0", "v2"]


def test_an_unknown_version_is_answered_with_the_nearest(registry: Registry) -> None:
    registry.add_version(version("v0"), promote="init")
    with pytest.raises(NotFoundError, match="Did you mean 'current'"):
        registry.version("curent")


def test_ids_of_discarded_runs_are_not_used_again(registry: Registry) -> None:
    registry.add_version(version("v0"))
    registry.begin_run(Run("v1", "running", {"seed": 1}, now(), None))
    assert registry.next_version_id() == "v2"
    registry.begin_run(Run("v2", "running", {"seed": 1}, now(), None))
    assert [(run.id, run.state) for run in registry.runs()] == [("v1", "discarded"), ("v2", "running")]


def test_a_failed_transaction_leaves_nothing(registry: Registry) -> None:
    with pytest.raises(RuntimeError), registry.catalog.transaction() as connection:
        connection.execute("INSERT INTO domains (name, position, created_at) VALUES ('a', 1, now())")
        raise RuntimeError
    assert registry.domains() == []


def test_reads_together_open_the_catalog_once_and_see_one_state(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(catalog, "attached", lambda *given: opened.append(given) or attached(*given))
    with registry.catalog.together():
        first = registry.versions(), registry.scores(), registry.tasks()
    assert len(opened) == 1
    assert (registry.versions(), registry.scores(), registry.tasks()) == first
    assert len(opened) > 2, "afterwards each opens it again"
    with pytest.raises(RuntimeError, match="no"), registry.catalog.together():
        raise RuntimeError("no")
    assert registry.versions() == first[0]


def test_a_catalog_in_use_is_busy_and_then_free(registry: Registry) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import duckdb; c = duckdb.connect({str(registry.catalog.path)!r}); print('open', flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(WorkspaceBusy, match="in use by another process"):
        registry.domains()
    holder.communicate("\n")
    assert registry.domains() == []


def test_between_transactions_the_file_is_free_for_others(registry: Registry) -> None:
    registry.add_batch(batch("a"))
    path, query = str(registry.catalog.path), "SELECT name FROM domains"
    code = f"import duckdb; print(duckdb.connect({path!r}).execute({query!r}).fetchall())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[('a',)]\n"
    assert not registry.catalog.path.with_suffix(".duckdb.wal").exists()


def test_a_connection_of_this_process_to_the_file_is_waited_for(registry: Registry) -> None:
    with duckdb.connect(str(registry.catalog.path)), pytest.raises(WorkspaceBusy, match="a connection of this one"):
        registry.domains()
    assert registry.domains() == []


def test_threads_share_the_file_and_each_has_its_own_transaction(registry: Registry) -> None:
    with registry.catalog.transaction() as connection:
        connection.execute("INSERT INTO domains (name, position, created_at) VALUES ('a', 1, now())")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(registry.domains).result() == [], "what is not committed is not seen"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Registry(registry.root).domain_names(), range(64)))
    assert found == [["a"]] * 64


FORK = """
import os, sys
from pathlib import Path
from continual.registry import Registry
registry = Registry(Path(sys.argv[1]))
registry.domains()
child = os.fork()
if not child:
    sys.exit(0 if registry.domain_names() == ["a"] else 1)
print(os.waitpid(child, 0)[1], registry.domain_names())
"""


def test_a_forked_process_opens_the_catalog_anew_and_ends_well(registry: Registry) -> None:
    registry.add_batch(batch("a"))
    command = [sys.executable, "-c", FORK, str(registry.root)]
    assert subprocess.check_output(command, text=True, timeout=60) == "0 ['a']\n"


def is_free(path: Path) -> bool:
    """Whether another process can open a catalog."""
    code = f"import duckdb; duckdb.connect({str(path)!r})"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize("beside_another", [False, True])
def test_a_transaction_that_was_aborted_leaves_the_file_free(
    registry: Registry, tmp_path: Path, beside_another: bool
) -> None:
    path = registry.catalog.path
    with attached(tmp_path / "other.duckdb") if beside_another else nullcontext():
        # The exception is kept, and with it the frames that it came through.
        with pytest.raises(duckdb.Error) as failed, attached(path) as connection:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO migrations VALUES (1, now())")
        assert is_free(path)
        assert registry.domains() == []
    assert "Constraint" in str(failed.value)


class Failing:
    """A DuckDB that fails to detach a file, once."""

    def __init__(self, home: duckdb.DuckDBPyConnection) -> None:
        self.cursor, self.close, self._home, self._failed = home.cursor, home.close, home, False

    def execute(self, query: str) -> None:
        if query.startswith("DETACH") and not self._failed:
            self._failed = True
            raise duckdb.IOException("no space left")
        self._home.execute(query)


def test_what_failed_to_be_detached_is_free_at_last(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, other = attach.Engine(), tmp_path / "other.duckdb"
    monkeypatch.setattr(attach, "_engine", engine)
    engine._home = Failing(attach._start())
    registry.add_batch(batch("a"))
    assert engine._home is None, "nobody else used it: it is given up"
    assert is_free(registry.catalog.path)

    engine._home = kept = Failing(attach._start())
    with attached(other):
        registry.add_batch(batch("b"))
        assert not is_free(registry.catalog.path)
    assert engine._home is kept
    assert is_free(registry.catalog.path)
    assert is_free(other)
    assert registry.domain_names() == ["a", "b"]


def test_a_catalog_of_a_newer_schema_is_refused_untouched(registry: Registry) -> None:
    with duckdb.connect(str(registry.catalog.path)) as connection:
        connection.execute("INSERT INTO migrations VALUES (?, now())", [len(MIGRATIONS) + 1])
    with pytest.raises(SchemaError, match="newer continual"):
        Registry(registry.root).domains()


def test_a_catalog_of_an_older_schema_is_brought_up_to_date(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Registry(registry.root.parent / "old")
    with monkeypatch.context() as patch:
        patch.setattr("continual.registry.catalog.MIGRATIONS", MIGRATIONS[:1])
        old.catalog.create()
    with duckdb.connect(str(old.catalog.path)) as connection:
        columns = [name for name, *_ in connection.execute("DESCRIBE versions").fetchall()]
        made = version("v0")
        fields = [getattr(made, name) for name in columns]
        values = [json.dumps(value) if isinstance(value, dict | list) else value for value in fields]
        connection.execute(f"INSERT INTO versions VALUES ({', '.join('?' * len(values))})", values)
    (found,) = Registry(old.root).versions()
    assert "pinned" not in columns
    assert (found.id, found.sha256, found.recipe, found.pinned) == ("v0", made.sha256, made.recipe, False)


def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    (tmp_path / "catalog.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(SchemaError, match="cannot be opened"):
        Registry(tmp_path).domains()


def test_publish_leaves_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(RuntimeError), publish(target) as partial:
        partial.mkdir()
        (partial / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("one", "two"):
        with publish(target) as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["two"]


REPLACES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from continual.registry import store
rename = Path.rename
def last(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = last
store.replace(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_what_a_killed_replacement_moved_aside_is_put_back(tmp_path: Path) -> None:
    for name in ("new", "v1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    killed = subprocess.run([sys.executable, "-c", REPLACES_AND_DIES, tmp_path / "new", tmp_path / "v1"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "v1").exists()
    store.sweep_unfinished(tmp_path)
    assert (tmp_path / "v1" / "weights").read_text() == "v1"
    store.replace(tmp_path / "new", tmp_path / "v1")
    assert (tmp_path / "v1" / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_a_replacement_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new", "v1"):
        (tmp_path / name).mkdir()

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.replace(tmp_path / "new", tmp_path / "v1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "v1"]


def test_a_lock_is_exclusive_and_freed(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", "update"):
        with pytest.raises(WorkspaceBusy, match="continual update"), exclusive(tmp_path / "lock", "update"):
            pass
    with exclusive(tmp_path / "lock", "update"):
        pass


def test_weights_without_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="no safetensors"):
        weights_sha256(tmp_path)


@pytest.mark.parametrize(
    "name", ["", "a/b", "a\\b", "..", ".hidden", "-flag", "a\x00b", "a\nb", " a", "x" * 101, "\u202eabc"]
)
def test_names_that_could_harm_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="not allowed as the name of a domain"):
        check_name(name, "domain")


@pytest.mark.parametrize("name", ["medquad", "legal_de", "Fragen & Antworten", "médical", "<img src=x>"])
def test_names_that_people_use_are_kept(name: str) -> None:
    assert check_name(name, "domain") == name
