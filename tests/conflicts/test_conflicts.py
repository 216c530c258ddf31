"""Conflicts of domains: the matrix where the truth is known, the clustering by hand, resumption, refusals, the page."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.cluster.hierarchy import dendrogram, fcluster, linkage
from scipy.spatial.distance import squareform

from continual import Workspace
from continual.config import TrainConfig
from continual.conflicts import run as analysis
from continual.conflicts.analysis import (
    LAST,
    Conflicts,
    chance,
    cluster,
    conflict_matrix,
    last_conflicts,
    name_clusters,
)
from continual.conflicts.clusters import read_clusters
from continual.conflicts.plan import TRAININGS, prepare
from continual.errors import (
    DataError,
    InputError,
    NotFoundError,
    NothingToDoError,
    WorkspaceBusy,
)
from continual.registry import Batch, Registry
from continual.report.build import build_report
from continual.report.figures import Dendrogram, PairMatrix
from continual.report.html import render_html
from continual.report.sections import sections
from continual.storage.locks import UPDATE_LOCK, exclusive
from tests import ROOT
from tests.cli import test_cli
from tests.conftest import SCHEMA, WORDS, make_pairs, sentence
from tests.report.test_report import HOSTILE, Page, add_domain, add_version, make_registry
from tests.test_workspace import SETTINGS

Write = Callable[[str, list[dict[str, object]]], Path]
run = test_cli.run  # fixture

NAMES = ["med", "bash", "table", "law"]
MATRIX: list[list[float | None]] = [
    [None, 0.30, -0.12, 0.20],
    [0.10, None, 0.30, -0.02],
    [-0.08, 0.10, None, 0.40],
    [0.20, -0.02, 0.20, None],
]
"""Conflicts: med-table -0.10, bash-law -0.02, med-bash 0.20, med-law 0.20, bash-table 0.20, table-law 0.30."""


def made(names: list[str] = NAMES, count: int | None = None, **changes: object) -> Conflicts:
    merges, order, labels = cluster(MATRIX, count)
    found = Conflicts(
        domains=names,
        start="v0",
        made="2026-03-02T09:30:00+00:00",
        seed=0,
        epochs=2,
        rows=dict.fromkeys(names, 256),
        held=dict.fromkeys(names, 128),
        before=dict.fromkeys(names, 1.0),
        alone=dict.fromkeys(names, 0.5),
        again=dict.fromkeys(names, 0.52),
        chance=0.03,
        matrix=MATRIX,
        merges=merges,
        order=order,
        clusters=name_clusters(names, labels),
        cut=0.0 if count is None else None,
        trainings=10,
        pairs=100,
        seconds=9.0,
        file="conflicts.toml",
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def keep(registry: Registry, found: Conflicts) -> Conflicts:
    """Make it the last analysis of a workspace."""
    path = registry.path(LAST)
    path.parent.mkdir()
    path.write_text(json.dumps(found.to_json()), encoding="utf-8")
    return found


# The matrix.


def test_the_matrix_is_joint_minus_alone() -> None:
    alone = {"b": 1.0, "a": 2.0}
    joint = {("a", "b"): {"a": 2.5, "b": 0.75}}
    assert conflict_matrix(["b", "a"], alone, joint) == [[None, -0.25], [0.5, None]]


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
    assert cluster(matrix)[2] == [0, 0, 1]


def test_chance_is_how_far_the_losses_of_two_orders_take_a_conflict() -> None:
    """By simulation: a domain's loss with another one that does nothing differs as that of another order does."""
    rng = np.random.default_rng(0)
    gaps = rng.normal(0, 0.02, 400) * np.sqrt(2)
    names = [f"d{number}" for number in range(400)]
    found = chance(dict.fromkeys(names, 1.0), dict(zip(names, 1.0 + gaps, strict=True)))
    losses = rng.normal(0, 0.02, (20_000, 4))
    conflicts = (losses[:, 0] - losses[:, 1] + losses[:, 2] - losses[:, 3]) / 2
    assert np.mean(np.abs(conflicts) <= found) == pytest.approx(0.95, abs=0.015)


# The clustering.


def test_clusters_of_a_matrix_worked_by_hand() -> None:
    merges, order, labels = cluster(MATRIX)
    # med-table first, then bash-law; between the two the mean of 0.20, 0.20, 0.20 and 0.30.
    assert [set(merge[:2]) for merge in merges] == [{0, 2}, {1, 3}, {4, 5}]
    assert [merge[2] for merge in merges] == pytest.approx([-0.10, -0.02, 0.225])
    assert labels == [0, 1, 0, 1]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert name_clusters(NAMES, labels) == {"cluster-1": ["med", "table"], "cluster-2": ["bash", "law"]}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_number_of_clusters_is_kept_to_even_where_conflicts_are_equal(count: int) -> None:
    even = [[None if i == j else 0.1 for j in range(4)] for i in range(4)]
    for matrix in (MATRIX, even):
        labels = cluster(matrix, count)[2]
        assert len(set(labels)) == count
        assert list(dict.fromkeys(labels)) == list(range(count))


def test_all_that_hurts_stays_alone_and_all_that_helps_is_one() -> None:
    worse = [[None if each is None else each + 1 for each in row] for row in MATRIX]
    better = [[None if each is None else each - 1 for each in row] for row in MATRIX]
    assert cluster(worse)[2] == [0, 1, 2, 3]
    assert cluster(better)[2] == [0, 0, 0, 0]
    assert cluster([[None, -0.1], [0.05, None]])[2] == [0, 0]
    assert cluster([[None, -0.1], [0.15, None]])[2] == [0, 1]
    assert cluster([[None, -0.1], [0.15, None]], cut=0.03)[2] == [0, 0]
    assert cluster(MATRIX, cut=0.25)[2] == [0, 0, 0, 0]


def test_the_tree_is_scipys() -> None:
    rng = np.random.default_rng(3)
    for size in (2, 5, 9):
        entries = rng.normal(size=(size, size))
        matrix = [[None if i == j else float(entries[i, j]) for j in range(size)] for i in range(size)]
        both = (entries + entries.T) / 2
        np.fill_diagonal(both, 0)
        conflicts = squareform(both)
        tree = linkage(conflicts - conflicts.min(), "average")
        merges, order, labels = cluster(matrix)
        assert order == dendrogram(tree, no_plot=True)["leaves"]
        np.testing.assert_allclose([merge[2] for merge in merges], tree[:, 2] + conflicts.min(), atol=1e-12)
        wanted = fcluster(tree, -conflicts.min(), "distance")
        assert [[a == b for b in labels] for a in labels] == [[a == b for b in wanted] for a in wanted]


def test_the_verdict_says_what_came_out() -> None:
    found = made()
    assert found.ranked[0] == (pytest.approx(0.30), "table", "law")
    assert found.verdict == (
        "On average of both directions, 4 of 6 pairs hurt each other, most table and law (+0.300); 1 help each other, "
        "most med and table (-0.100); chance alone moves such a mean by about 0.030."
    )
    moved = [[None if each is None else each + by for each in row] for by in (0.2, -0.5) for row in MATRIX]
    worse, better = made(matrix=moved[:4]).verdict, made(matrix=moved[4:]).verdict
    assert ", 6 of 6 pairs hurt each other, most table and law (+0.500); chance" in worse
    assert ", no two domains hurt each other; 6 of 6 pairs help each other, most med and table (-0.600)" in better
    assert ", no two domains hurt or help each other more than chance does: chance" in made(chance=0.31).verdict


def test_the_verdict_names_what_the_mean_of_two_directions_hides() -> None:
    matrix = [[None, 0.05, 0.0], [-0.06, None, 0.03], [0.0, 0.0, None]]
    # Chance is sqrt(2) times as far for one entry as for the mean of two: 0.0283.
    assert made(domains=NAMES[:3], matrix=matrix, chance=0.02).verdict == (
        "On average of both directions, no two domains hurt or help each other more than chance does: chance alone "
        "moves such a mean by about 0.020. In one direction alone, bash hurts med (+0.050, one of 3 such entries), "
        "where chance is about 0.028. Measured on 3 domains, chance is a rough figure itself."
    )
    one = made(matrix=[[None, -0.06], [0.03, None]], domains=NAMES[:2], chance=0.03).verdict
    assert "In one direction alone, bash helps med (-0.060), where chance is about 0.042. Measured on 2 domains" in one
    assert "rough" not in made().verdict
    assert "one direction" not in made().verdict


def test_the_json_form_is_the_documented_one() -> None:
    data = made().to_json()
    assert json.loads(json.dumps(data)) == data
    assert Conflicts.from_json(data) == made()
    page = (ROOT / "docs" / "conflicts.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in page for key in data)


# The analysis in a workspace.


@pytest.fixture
def three(tiny_model: Path, tmp_path: Path, write_pairs: Write) -> Workspace:
    """A workspace with three domains, of which nothing was learned."""
    Workspace.init(tmp_path / "w", str(tiny_model))
    (tmp_path / "w" / "continual.toml").write_text(SETTINGS)
    workspace = Workspace(tmp_path / "w")
    for number, name in enumerate(("first", "second", "third")):
        workspace.ingest(write_pairs(f"{name}.parquet", make_pairs(60, seed=number)), holdout=0)
    return workspace


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


def test_losses_are_those_of_a_training_on_the_rows_of_the_domain(three: Workspace, tmp_path: Path) -> None:
    """Done once more by hand: hash order, the first rows for training, those that follow held out."""
    import pyarrow.parquet as pq

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
    train(start, pair, config, seed=3, run_dir=tmp_path / "run", adapter_dir=tmp_path / "adapter")
    fold(start, tmp_path / "adapter", tmp_path / "folded")
    objective = Objective(tmp_path / "folded", pa.concat_tables([part.slice(32) for part in parts]), config, seed=3)
    joint = objective.evaluate(objective.parameters())
    for row, name in enumerate(found.domains):
        assert found.matrix[row][1 - row] == pytest.approx(joint[name] - found.alone[name], abs=1e-6)


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
    given = {"domains": None, "rows": 32, "epochs": None, "start": "base", "seed": 0}
    for options, missing in (({}, 0), ({"seed": 1}, 9), ({"rows": 30}, 9), ({"epochs": 2}, 9)):
        inquiry = prepare(three.registry, three.config, **(given | options))  # type: ignore[arg-type]
        assert len(inquiry.missing) == missing


KILLED = """
import os, signal, sys
from continual import Workspace

class Killer:
    done = 0
    def start(self, label, total, unit, done=0): pass
    def finish(self): pass
    def advance(self, count):
        self.done += count
        if self.done >= int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

Workspace(sys.argv[1]).conflicts(domains=["first", "second"], rows=32, progress=Killer())
"""


def test_a_killed_analysis_goes_on_to_the_same_losses(three: Workspace) -> None:
    two = ["first", "second"]
    whole = three.conflicts(domains=two, rows=32)
    for file in three.registry.path(TRAININGS).parent.iterdir():
        file.unlink()
    # In the third training, after the second of its four batches.
    command = [sys.executable, "-c", KILLED, str(three.directory), str(2 * 32 + 32)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
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
        ({"rows": 1}, InputError, "--rows takes a number from 2 up"),
        ({"rows": -5}, InputError, "not -5"),
        ({"epochs": 0}, InputError, "epochs"),
        ({"seed": -1}, InputError, "--seed"),
        ({"start": "bse"}, InputError, "Did you mean 'base'"),
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
    with pytest.raises(InputError, match=r"too few rows of first \(0\), second \(0\)\."):
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


def test_on_the_command_line(three: Workspace, run: test_cli.Run, capsys: pytest.CaptureFixture[str]) -> None:
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


# The page.


def test_the_page_shows_the_last_analysis_and_none_where_there_was_none(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    for name in (*HOSTILE, "later"):
        add_domain(registry, name)
    add_version(registry, "v0", None, {HOSTILE[0]: 60.0})
    report = build_report(registry)
    assert report.conflicts is None
    assert "conflicts" not in [section.name for section in sections(report)]
    assert report.to_json()["conflicts"] is None

    found = keep(registry, made(HOSTILE))
    report = build_report(registry)
    assert report.conflicts == found
    (section,) = (each for each in sections(report) if each.name == "conflicts")
    assert section.about.startswith(found.verdict)
    assert section.notes == ["Not compared: later."]
    heat, tree = (figure.chart for figure in section.figures)
    assert isinstance(heat, PairMatrix)
    assert isinstance(tree, Dendrogram)
    names = [HOSTILE[place] for place in found.order]
    assert heat.labels == tree.leaves == names
    assert heat.groups == [2, 2]
    rows = list(csv.reader(io.StringIO(heat.table().to_csv())))
    assert rows[0] == ["loss together minus alone", *names]
    one, other = found.order[:2]
    assert rows[1][:3] == [names[0], "", str(MATRIX[one][other])]
    # The joins by name: the tree's numbers are places in its order now.
    joins = [set(row[:2]) for row in tree.table().rows]
    assert joins[:2] == [{HOSTILE[0], HOSTILE[2]}, {HOSTILE[1], HOSTILE[3]}]
    assert joins[2] == {"; ".join(names[:2]), "; ".join(names[2:])}
    assert [row[2] for row in tree.table().rows] == pytest.approx([-0.10, -0.02, 0.225])
    page = Page(render_html(report).html)
    assert found.verdict in page.text
    assert [each for each in page.all("script") if "alert" in str(each)] == []


def test_an_analysis_changes_the_dashboard(tmp_path: Path) -> None:
    from continual.report.board import Board

    registry = make_registry(tmp_path)
    add_domain(registry, "med")
    add_version(registry, "v0", None, {"med": 60.0})
    board = Board(registry.root)
    first = board.state()["revision"]
    keep(registry, made())
    assert board.state()["revision"] != first
    assert made().verdict in Page(board.page().html).text
