"""The catalog is written again: nothing that was deleted is left in it, and nothing that others write is lost."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from continual.registry import Registry
from continual.storage.locks import steady
from tests.kills import PROCESSES

SECRET = "a sentence that nobody should find any more"


def add(root: Path, first: int, count: int, text: str) -> None:
    for number in range(first, first + count):
        Registry(root).add_compatibility({"old": f"v{number}", "new": "v0", "text": f"{text} {number}"})


def test_deleted_values_are_in_no_byte(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.catalog.create()
    add(tmp_path, 0, 50, SECRET)
    with registry.catalog.transaction() as connection:
        connection.execute("DELETE FROM compatibility WHERE old <> 'v7'")
        connection.execute("UPDATE compatibility SET result = '{}'")
    assert SECRET.encode() in registry.catalog.path.read_bytes()
    registry.catalog.rewrite()
    assert SECRET.encode() not in registry.catalog.path.read_bytes()
    assert list(registry.compatibility()) == [("v7", "v0")]
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.duckdb"]
    add(tmp_path, 0, 1, "new")
    assert len(registry.compatibility()) == 2


@pytest.mark.parametrize("opening", [True, False])
def test_no_file_is_opened_while_it_is_replaced(opening: bool, tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.catalog.create()
    work = registry.catalog.rewrite if opening else registry.compatibility
    waiting = Thread(target=work)
    with steady(tmp_path, replacing=not opening):
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join()
    assert registry.compatibility() == {}


def test_what_others_write_meanwhile_is_kept(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.catalog.create()
    writers = [PROCESSES.Process(target=add, args=(tmp_path, 100 * place, 60, "kept")) for place in range(2)]
    for writer in writers:
        writer.start()
    rewritten = 0
    while any(writer.is_alive() for writer in writers):
        registry.catalog.rewrite()
        rewritten += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert rewritten > 1
    assert len(registry.compatibility()) == 120
