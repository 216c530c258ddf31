"""Commands that run at once in one workspace: writers queue, and readers are answered."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from continual import Workspace
from continual.registry import Registry
from tests.registries import batch
from tests.rows import Write, make_pairs

pytestmark = pytest.mark.slow

WRITERS, READERS = 4, 3


def test_ingests_at_once_are_all_registered_once(workspace: Workspace, write_pairs: Write) -> None:
    def start(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "continual", *map(str, words), "-w", str(workspace.directory)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    files = [write_pairs(f"d{n}.parquet", make_pairs(30, seed=n)) for n in range(WRITERS)]
    with workspace.registry.lock("ingest.lock", "ingest"):  # they all find it taken
        writers = [start("ingest", file, "--holdout", "0") for file in files]
        said = [writer.stderr.readline() for writer in writers if writer.stderr]
        readers = [start("status") for _ in range(READERS)]
        assert [reader.wait() for reader in readers] == [0] * READERS
    assert all("waiting for `continual ingest`" in line for line in said)
    assert [writer.wait() for writer in writers] == [0] * WRITERS
    for process in (*writers, *readers):
        process.communicate()
    batches = workspace.registry.batches()
    assert sorted(found.domain for found in batches) == [f"d{n}" for n in range(WRITERS)]
    assert [found.id for found in batches] == [f"b{n + 1}" for n in range(WRITERS)]


def test_readers_share_the_catalog_and_a_writer_waits_for_them(tmp_path: Path) -> None:
    registry = Registry(tmp_path, busy_seconds=60)
    registry.catalog.create()
    code = f"""
from pathlib import Path
from continual.registry import Registry
with Registry(Path({str(tmp_path)!r})).catalog.reading() as connection:
    print("reading", flush=True)
    input()
"""
    reader = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    assert registry.domains() == []
    writer = threading.Thread(target=registry.add_batch, args=[batch("a")])
    writer.start()
    assert registry.domains() == [], "a waiting writer keeps no reader out"
    reader.communicate("\n")
    writer.join()
    assert registry.domain_names() == ["a"]
