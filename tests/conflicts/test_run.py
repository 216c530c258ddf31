"""The analysis of conflicts in a workspace: where the truth is known, resumption, refusals."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.config import TrainConfig
from continual.conflicts import run as analysis
from continual.conflicts.analysis import (
    LAST,
    cluster_domains,
    conflict_matrix,
    last_conflicts,
)
from continual.conflicts.clusters import read_clusters
from continual.conflicts.plan import TRAININGS, prepare_conflicts
from continual.errors import (
    ConfigError,
    DataError,
    InputError,
    NotFoundError,
    NothingToDoError,
    WorkspaceBusy,
)
from continual.registry import Batch
from continual.storage.locks import UPDATE_LOCK, exclusive
from tests.commands import Run
from tests.kills import kill
from tests.rows import SCHEMA, WORDS, Write, make_pairs, sentence
from tests.workspaces import Once


def rule(shift: int, numbers: range, filler: int) -> list[dict[str, object]]:
    """Return rows in which a word of the query decides a word of the positive, and the rest is filler."""
    rows: list[dict[str, object]] = []
    for number in numbers:
        own, place = random.Random(number), number % 12
        asked = f"{WORDS[place]} {sentence(own, 2)}"
        answer = f"{WORDS[100 + (place + shift) % 12]} {sentence(random.Random(number + filler), 2)}"
        rows.append({"query": asked, "positive": answer, "negatives": [], "doc_id": None})
    return rows


def table(rows: list[dict[str, object]], domain: str) -> pa.Table:
    return pa.Table.from_pylist([row | {"domain": domain} for row in rows], schema=SCHEMA)


@pytest.mark.release
@pytest.mark.slow
def test_equal_domains_do_not_conflict_and_contradictory_ones_do(tiny_model: Path, tmp_path: Path) -> None:
    """Of one and the same rows twice, and of the same queries with the positives of others."""
    config = TrainConfig(
        epochs=6, batch_size=12, learning_rate=0.005, lora_rank=8, distillation=0, guide_margin="off", max_length=16
    )
    train, spared = range(120), range(120, 168)
    domains = {"one": (0, 1000), "same": (0, 1000), "other": (5, 1000)}
    tables = {name: table(rule(shift, train, filler), name) for name, (shift, filler) in domains.items()}
    held = {name: table(rule(shift, spared, filler), name) for name, (shift, filler) in domains.items()}

    def losses(*names: str) -> dict[str, float]:
        parts = (pa.concat_tables([group[name] for name in names]) for group in (tables, held))
        return dict(
            analysis.train_once(tiny_model, *parts, config, seed=0, folder=tmp_path / "-".join(names))["losses"]
        )

    alone = {name: losses(name)[name] for name in domains}
    joint = {pair: losses(*pair) for pair in (("one", "same"), ("one", "other"), ("other", "same"))}
    matrix = conflict_matrix(list(domains), alone, joint)
    found = {(i, j): value for i, row in enumerate(matrix) for j, value in enumerate(row) if value is not None}
    # In a batch that is told from none of the other domain, twice the rows are no harm, and here some help.
    assert found[0, 1] == pytest.approx(found[1, 0], abs=1e-4)
    assert found[0, 1] < 0
    for pair in ((0, 2), (2, 0), (1, 2), (2, 1)):
        assert found[pair] > 0.5
    assert cluster_domains(matrix)[2] == [0, 0, 1]


@pytest.fixture
def three(once: Once, no_steps: Path, tmp_path: Path) -> Workspace:
    """A workspace with three domains, of which nothing was learned."""

    def make(folder: Path) -> None:
        workspace = Workspace(shutil.copytree(no_steps, folder / "w"))
        for number, name in enumerate(("first", "second", "third")):
            pq.write_table(pa.Table.from_pylist(make_pairs(60, seed=number)), folder / f"{name}.parquet")
            workspace.ingest(folder / f"{name}.parquet", holdout=0)

    return Workspace(shutil.copytree(once("three-domains", make) / "w", tmp_path / "w"))


def trainings(workspace: Workspace) -> dict[str, object]:
    path = workspace.registry.path(TRAININGS)
    return dict(json.loads(path.read_text(encoding="utf-8"))["trainings"]) if path.exists() else {}


class Bars:
    """Keeps what it is told, and calls somebody at every advance."""

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self.bars: list[tuple[str, int | None, int]] = []
        self.done, self.told = 0, told

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.bars.append((label, total, done))
        self.done = done

    def advance(self, count: int) -> None:
        self.done += count
        self.told()

    def finish(self) -> None: ...


@pytest.mark.slow
def test_an_analysis_from_rows_to_clusters(three: Workspace) -> None:
    plan = three.plan_conflicts(rows=32)
    assert plan.rows == {"first": 32, "second": 32, "third": 32}
    assert plan.held == {"first": 28, "second": 28, "third": 28}
    assert (plan.trainings, plan.known, plan.pairs) == (9, 0, 2 * 3 * 32 + 3 * 64)
    assert plan.seconds > 0
    assert trainings(three) == {}

    bars = Bars()
    found = three.conflicts(rows=32, progress=bars)
    assert bars.bars == [("training 9 models", plan.pairs, 0)]
    assert bars.done == plan.pairs
    assert (found.trainings, found.pairs, found.start) == (9, plan.pairs, "v0")
    assert [[each is None for each in row] for row in found.matrix] == np.eye(3, dtype=bool).tolist()
    assert all(0 < found.alone[name] != found.before[name] for name in found.domains)
    path = three.directory / "conflicts.toml"
    assert found.file == str(path)
    assert read_clusters(path, ["first", "second", "third"]) == found.clusters
    assert last_conflicts(three.registry.root) == found
    assert not list(three.registry.path("runs").iterdir())

    gaps = [found.alone[name] - found.again[name] for name in found.domains]
    assert all(gaps)
    assert found.chance == found.cut == pytest.approx(np.sqrt(2 * np.mean(np.square(gaps))))

    # Again: nothing is trained, and the same comes out; cut otherwise, the file is written anew.
    assert three.plan_conflicts(rows=32).seconds == 0
    again = three.conflicts(rows=32, clusters=3, progress=(bars := Bars()))
    assert bars.bars == []
    assert (again.matrix, len(again.clusters), again.cut) == (found.matrix, 3, None)
    assert len(read_clusters(path, again.domains)) == 3
    # What was written by hand stays.
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(InputError, match="was edited by hand"):
        three.conflicts(rows=32)
    assert three.conflicts(rows=32, out=three.directory / "mine.toml").matrix == found.matrix


@pytest.mark.slow
def test_losses_are_those_of_a_training_on_the_rows_of_the_domain(three: Workspace, tmp_path: Path) -> None:
    """Done once more by hand: hash order, the first rows for training, those that follow held out."""
    import pyarrow.parquet as pq

    from continual.train.job import Job
    from continual.train.loop import train
    from continual.train.lora import fold
    from continual.train.objective import Objective

    found = three.conflicts(domains=["third", "first"], rows=32, seed=3)
    assert found.domains == ["first", "third"]
    parts = []
    for name in ("first", "third"):
        (batch,) = (batch for batch in three.registry.batches() if batch.domain == name)
        rows = pq.read_table(three.registry.rows_file(batch)).sort_by("row_hash").select(SCHEMA.names[:4])
        parts.append(rows.append_column("domain", pa.repeat(name, len(rows))))
    start = three.registry.path("versions/v0")
    config = three.config.train.model_copy(update={"distillation": 0.0, "guide_margin": "off"})
    pair = pa.concat_tables([part.slice(0, 32) for part in parts])
    train(Job(start, pair, config, 3, tmp_path / "run", tmp_path / "adapter"))
    fold(start, tmp_path / "adapter", tmp_path / "folded")
    objective = Objective(tmp_path / "folded", pa.concat_tables([part.slice(32) for part in parts]), config, seed=3)
    joint = objective.evaluate(objective.parameters())
    for row, name in enumerate(found.domains):
        assert found.matrix[row][1 - row] == pytest.approx(joint[name] - found.alone[name], abs=1e-6)


@pytest.mark.slow
def test_one_more_domain_costs_its_own_trainings(three: Workspace) -> None:
    two = three.conflicts(domains=["first", "second"], rows=32)
    known = trainings(three)
    assert len(known) == 5
    plan = three.plan_conflicts(rows=32)
    assert (plan.trainings, plan.known, plan.pairs) == (9, 5, 2 * 32 + 2 * 64)
    bars = Bars()
    found = three.conflicts(rows=32, progress=bars)
    assert bars.bars == [("training 4 models", 6 * 32 + 6 * 32, 6 * 32)]
    assert {key: trainings(three)[key] for key in known} == known
    assert [row[:2] for row in found.matrix[:2]] == two.matrix
    # What decides a loss makes another training of it.
    given = {"domains": None, "rows": 32, "start": "base", "seed": 0}
    longer = three.config.replace("train", epochs=2)
    for options, config, missing in (
        ({}, three.config, 0),
        ({"seed": 1}, three.config, 9),
        ({"rows": 30}, three.config, 9),
        ({}, longer, 9),
    ):
        job = prepare_conflicts(three.registry, config, **(given | options))  # type: ignore[arg-type]
        assert len(job.missing) == missing


@pytest.mark.release
@pytest.mark.kill
def test_a_killed_analysis_goes_on_to_the_same_losses(three: Workspace) -> None:
    two = ["first", "second"]
    whole = three.conflicts(domains=two, rows=32)
    for file in three.registry.path(TRAININGS).parent.iterdir():
        file.unlink()
    # In the third training, after the second of its four batches.
    kill(three.directory, "conflicts", "training", 2 + 2 + 2, domains=two, rows=32)
    before = trainings(three)
    assert len(before) == 2
    assert not (three.registry.root / LAST).exists()
    bars = Bars()
    found = three.conflicts(domains=two, rows=32, progress=bars)
    assert bars.bars == [("training 3 models", 192, 64)]
    assert bars.done == 192
    assert {key: trainings(three)[key] for key in before} == before
    assert (found.matrix, found.alone) == (whole.matrix, whole.alone)
    assert not list(three.registry.path("runs").iterdir())


def test_it_gives_way_to_an_update(three: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    three.registry.catalog.busy_seconds = 0
    lock = three.registry.root / UPDATE_LOCK
    with exclusive(lock, "update"), pytest.raises(WorkspaceBusy, match="continual update` is running"):
        three.conflicts(rows=16)
    assert trainings(three) == {}
    with exclusive(three.registry.root / analysis.LOCK, "analyze conflicts"):
        with pytest.raises(WorkspaceBusy, match="analyze conflicts"):
            three.conflicts(rows=16)

    # Once it trains, it waits: an update that begins now is not refused, and ends before the next training begins.
    updates = []
    waited: list[float] = []

    def begin() -> None:
        if not updates:
            updates.append(exclusive(lock, "update"))
            updates[0].__enter__()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        assert len(trainings(three)) == 1
        if len(waited) == 3:
            updates[0].__exit__(None, None, None)

    monkeypatch.setattr(analysis.time, "sleep", sleep)
    found = three.conflicts(domains=["first", "second"], rows=16, progress=Bars(begin))
    assert (len(waited), found.trainings) == (3, 5)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"domains": ["first", "secnd"]}, NotFoundError, "Did you mean 'second'"),
        ({"domains": ["first"]}, NothingToDoError, "only first is named"),
        ({"rows": 1}, InputError, "--rows must be a number from 2 up"),
        ({"rows": -5}, InputError, "not -5"),
        ({"settings": {"train": {"epochs": 0}}}, ConfigError, "epochs"),
        ({"settings": {"gate": {"min_gain": 1}}}, ConfigError, "gate.min_gain would have no effect"),
        ({"seed": -1}, InputError, "--seed"),
        ({"start": "bse"}, InputError, "--from takes base or current"),
        ({"clusters": 0}, InputError, "from 1 to 3"),
        ({"clusters": 4}, InputError, "from 1 to 3"),
    ],
)
def test_what_is_refused_before_anything_is_trained(
    three: Workspace, options: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        three.conflicts(**options)  # type: ignore[arg-type]
    assert trainings(three) == {}


def test_domains_with_too_few_rows_are_named(three: Workspace, write_pairs: Write) -> None:
    three.ingest(write_pairs("tiny.parquet", make_pairs(8, seed=9)), holdout=0)
    with pytest.raises(InputError, match=r"too few rows of tiny \(8\)"):
        three.plan_conflicts()
    assert three.plan_conflicts(rows=4).rows["tiny"] == 4


def test_domains_of_which_every_row_is_in_a_task_are_named(three: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "late"
    folder.mkdir()
    texts = sorted({query for batch in three.registry.batches() for query in queries_of(three, batch)})
    ids = [f"q{number}" for number in range(len(texts))]
    pq.write_table(pa.table({"doc_id": ["d"], "text": ["a document"]}), folder / "corpus.parquet")
    pq.write_table(pa.table({"query_id": ids, "text": texts}), folder / "queries.parquet")
    judged = {"query_id": ids, "doc_id": ["d"] * len(ids), "score": [1] * len(ids)}
    pq.write_table(pa.table(judged), folder / "qrels.parquet")
    three.add_task("late", folder)
    with pytest.raises(InputError, match=r"too few rows of first \(0\), second \(0\):"):
        three.plan_conflicts(domains=["first", "second"])


def queries_of(workspace: Workspace, batch: Batch) -> list[str]:
    found: list[str] = pq.read_table(workspace.registry.rows_file(batch))["query"].to_pylist()
    return found


def test_damaged_and_unwritable_files_are_named(three: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        three.conflicts(out=tmp_path)
    path = three.registry.path(TRAININGS)
    path.parent.mkdir()
    for text in ("{", "[]", '{"schema": 99, "trainings": {}}'):
        path.write_text(text)
        with pytest.raises(DataError, match="Remove it"):
            three.plan_conflicts()
    (path.parent / "last.json").write_text('{"domains": []}')
    assert last_conflicts(three.registry.root) is None


def test_on_the_command_line(three: Workspace, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(three.directory)
    planned = run("analyze", "conflicts", "--rows", "16", "--plan", "-w", folder)
    cost = "9 trainings (3 domains alone, in two orders, and 3 pairs of domains): 192 pairs to train, about"
    assert cost in planned.out
    done = run("analyze", "conflicts", "--rows", "16", "-w", folder)
    assert cost in done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:4] == ["loss", "of", "before", "alone"]
    assert lines[-1] == f"The clusters are in {three.directory / 'conflicts.toml'}."
    shown = json.loads(run("analyze", "conflicts", "--rows", "16", "--json", "-w", folder).out)
    found = last_conflicts(three.registry.root)
    assert found is not None
    assert found.verdict in lines
    (means,) = (line for line in lines if line.startswith("the conflict of a pair is the mean of its two entries: "))
    assert all(f"{one} and {other} {conflict:+.3f}" in means for conflict, one, other in found.ranked)
    assert shown["matrix"] == found.matrix
    # Before the cost, which takes a while, and in a plan too.
    mine = three.directory / "mine.toml"
    mine.write_text("[clusters]\n")
    for words, message in ((["--clusters", "9"], "from 1 to 3"), (["--out", str(mine)], "was edited by hand")):
        for more in ([], ["--plan"]):
            wrong = run("analyze", "conflicts", "--rows", "8", *words, *more, "-w", folder)
            assert (wrong.code, message in wrong.err, "measuring" in wrong.err) == (2, True, False)
    wrong = run("analyze", "conflicts", "--rows", "many", "-w", folder)
    assert (wrong.code, "--rows takes a number, or all" in wrong.err) == (2, True)
