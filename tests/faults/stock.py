"""What every attempt starts from: a workspace that has learned, with data, models, tasks and a backup beside it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from continual import Workspace
from tests.kills import interrupt_update
from tests.rows import make_pairs


def flip(file: Path, at: int | None = None, bit: int = 0, *, keep_times: bool = False) -> None:
    """Flip one bit of a file, as a disk does.

    Args:
        at: The byte; by default in the middle.
        bit: Which bit of it.
        keep_times: Whether the times stay as they were.
    """
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1 << bit
    file.write_bytes(data)
    if keep_times:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def make_stock(folder: Path, workspace: Path, model: Path, other: Path) -> Path:
    """Make the stock in a folder: the workspace `w`, and `begun`, in which an update was interrupted.

    Args:
        workspace: One that has learned the domains first and second, in two steps.
        model, other: Two models of the same architecture; the first is the workspace's base.
    """
    shutil.copytree(workspace, folder / "w")
    shutil.copytree(model, folder / "model")
    shutil.copytree(other, folder / "other")
    rows = make_pairs(40, seed=11)
    third = [{key: row[key] for key in ("query", "positive", "doc_id")} for row in rows]
    (folder / "third.jsonl").write_text("".join(json.dumps(row) + "\n" for row in third))
    for name, seed in (("bad", 14), ("rejected", 15)):
        bad = [*make_pairs(40, seed=seed), {"query": "", "positive": "no query", "doc_id": "bad"}]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
    (folder / "third.tsv").write_text(
        "query\tpositive\n" + "".join(f"{row['query']}\t{row['positive']}\n" for row in third)
    )
    (folder / "third.csv").write_text(
        "query,positive\n" + "".join(f'{row["query"]},"{row["positive"]}, so"\n' for row in third)
    )
    (folder / "third.jsonl.gz").write_bytes(gzip.compress((folder / "third.jsonl").read_bytes(), mtime=0))
    codec = pa.Codec("zstd")
    (folder / "third.jsonl.zst").write_bytes(codec.compress((folder / "third.jsonl").read_bytes(), asbytes=True))
    pq.write_table(pa.Table.from_pylist(rows), folder / "third.parquet")
    (folder / "shards").mkdir()
    for number in range(2):
        part = make_pairs(20, seed=12 + number)
        pq.write_table(pa.Table.from_pylist(part), folder / "shards" / f"part-{number}.parquet")
    beir = folder / "beir"
    beir.mkdir()
    (beir / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{n}", "title": "", "text": row["positive"]}) + "\n" for n, row in enumerate(rows))
    )
    (beir / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": f"about {row['query']}"}) + "\n" for n, row in enumerate(rows[:20]))
    )
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(20)))
    made = Workspace(folder / "w")
    fresh = make_pairs(40, seed=16)
    pq.write_table(pa.Table.from_pylist(fresh), folder / "fresh.parquet")
    (folder / "unwanted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in fresh[:6]))
    made.ingest(folder / "fresh.parquet", holdout=0.2)
    made.ingest(folder / "rejected.jsonl", holdout=0)
    made.compare("v1", "v2")
    made.report()
    made.backup(folder / "store")
    shutil.copytree(folder / "w", folder / "begun")
    interrupt_update(Workspace(folder / "begun"), "evaluating v", 1, replay=0.5)
    return folder


@contextmanager
def copied(stock: Path, parent: Path | None = None, *, begun: bool = False) -> Iterator[Path]:
    """Yield a copy of the stock, and remove it at the end.

    Args:
        parent: Folder to make it in.
        begun: Whether an update was interrupted in its workspace.
    """
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as scratch:
        room = Path(scratch) / "room"
        left_out, workspace = ("w", "begun") if begun else ("begun", "w")
        shutil.copytree(stock, room, ignore=lambda folder, names: {left_out} if folder == str(stock) else ())
        (room / workspace).rename(room / "w")
        Path(scratch).chmod(0o755)
        yield room
