"""The catalog file: transactions, processes and threads that share it, and its schema."""

from __future__ import annotations

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
    SchemaError,
    WorkspaceBusy,
)
from continual.registry import (
    Registry,
    attach,
    catalog,
)
from continual.registry.attach import attached
from continual.registry.migrations import MIGRATIONS
from continual.storage.files import sweep_dead
from tests.registries import batch, version


def test_a_failed_transaction_leaves_nothing(registry: Registry) -> None:
    with pytest.raises(RuntimeError), registry.catalog.transaction() as connection:
        connection.execute("INSERT INTO domains (name, position, created_at) VALUES ('a', 1, now())")
        raise RuntimeError
    assert registry.domains() == []


def test_reads_together_open_the_catalog_once_and_see_one_state(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(catalog, "attached", lambda *given, **mode: opened.append(given) or attached(*given, **mode))
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
    with (
        duckdb.connect(str(registry.catalog.path)),
        pytest.raises(WorkspaceBusy, match="DuckDB connection of this one"),
    ):
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
        registry.add_batch(batch("b", "b2"))
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
        assert made.verdict is None
        row = {"position": 0, "recipe": made.provenance.to_json()}
        fields = [row[name] if name in row else getattr(made, name) for name in columns]
        values = [json.dumps(value) if isinstance(value, dict | list) else value for value in fields]
        connection.execute(f"INSERT INTO versions VALUES ({', '.join('?' * len(values))})", values)
    (found,) = Registry(old.root).versions()
    assert "pinned" not in columns
    assert (found.id, found.sha256, found.provenance, found.pinned) == ("v0", made.sha256, made.provenance, False)


def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    (tmp_path / "catalog.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(SchemaError, match="cannot be opened"):
        Registry(tmp_path).domains()


REWRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from continual.registry import Registry, catalog
class Dying:
    def __init__(self, connection): self.connection = connection
    def execute(self, query, *rest):
        if query.startswith("DETACH backup"):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.connection.execute(query, *rest)
reading = catalog.Catalog.reading
from contextlib import contextmanager
@contextmanager
def dying(self):
    with reading(self) as connection:
        yield Dying(connection)
catalog.Catalog.reading = dying
Registry(Path(sys.argv[1])).catalog.rewrite()
"""


@pytest.mark.kill
def test_a_killed_rewrite_leaves_what_the_next_command_removes(registry: Registry) -> None:
    registry.add_batch(batch("a"))
    killed = subprocess.run([sys.executable, "-c", REWRITES_AND_DIES, registry.root], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(registry.root.iterdir())) > 1
    sweep_dead(registry.root)
    assert [path.name for path in registry.root.iterdir()] == ["catalog.duckdb"]
    registry.catalog.rewrite()
    assert registry.domain_names() == ["a"]
    assert [path.name for path in registry.root.iterdir()] == ["catalog.duckdb"]


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO domains (name, position, created_at) VALUES ('a', 2, now()), ('a', 3, now())",
        "SELECT CAST('x' AS INTEGER)",
        "SELECT nothing FROM domains",
        "SELEC 1",
    ],
)
def test_our_own_mistakes_are_not_called_damage(registry: Registry, query: str) -> None:
    registry.add_batch(batch("a"))
    with pytest.raises(duckdb.Error), registry.catalog.transaction() as connection:
        connection.execute(query)
    assert registry.domain_names() == ["a"]


@pytest.mark.parametrize(
    "kind", [duckdb.Error, duckdb.IOException, duckdb.SerializationException, duckdb.InternalException]
)
def test_what_damage_raises_is_called_damage(registry: Registry, kind: type[duckdb.Error]) -> None:
    with pytest.raises(SchemaError, match="is damaged: checksum"), registry.catalog.transaction():
        raise kind("checksum")
