"""Replay policies: how they share out rows, and which rows they choose."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual import Workspace
from continual.config import TrainConfig
from continual.models.encoder import load_encoder
from continual.registry import (
    Registry,
    Run,
    Score,
    Spec,
    Task,
)
from continual.registry.catalog import now
from continual.replay import Candidates, allot, get_policy
from continual.replay.draw import pack, unpack
from continual.replay.policies import policies
from continual.replay.policies._shares import split_by_weight
from continual.replay.policies.diverse import BLOCK
from continual.step.draw import falls
from continual.step.request import Request
from continual.step.spec import prepare, reopen
from continual.train.candidates import (
    OTHERS,
    embed_pairs,
    given_losses,
    row_losses,
)
from tests.registries import version
from tests.rows import SCHEMA, make_pairs
from tests.workspaces import Once, make_workspace

SIZES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 500), max_size=6)


def candidates(losses: Any = (), points: Any = None) -> Candidates:
    losses = np.asarray(losses, np.float32)
    points = np.zeros((len(losses), 2), np.float32) if points is None else np.asarray(points, np.float32)
    return Candidates(points, points, losses)


# How many of each domain.


def test_temperature_goes_from_proportional_to_equal() -> None:
    sizes = {"large": 900, "small": 100}
    assert allot("temperature", sizes, 0.04, temperature=2) == {"large": 30, "small": 10}  # 30 : 10, square roots
    assert allot("temperature", sizes, 0.04, temperature=1) == allot("uniform", sizes, 0.04)
    assert allot("temperature", sizes, 0.04, temperature=1e9) == allot("balanced", sizes, 0.04)


def test_forgetting_replays_more_of_what_fell() -> None:
    sizes = {"a": 100, "b": 100, "c": 200}
    assert allot("forgetting", sizes, 0.1) == allot("uniform", sizes, 0.1)
    # n (1 + f): 300, 100, 200 of 600.
    assert allot("forgetting", sizes, 0.15, falls={"a": 2.0, "c": 0.0}) == {"a": 30, "b": 10, "c": 20}


@given(SIZES, st.integers(0, 2000), st.data())
def test_shares_follow_the_weights_up_to_what_there_is(sizes: dict[str, int], wanted: int, data: st.DataObject) -> None:
    weights = {domain: data.draw(st.sampled_from([0.0, 0.5, 1.0, 7.0, 300.0])) for domain in sizes}
    wanted = min(wanted, sum(sizes.values()))
    found = split_by_weight(weights, sizes, wanted)
    assert sum(found.values()) == wanted
    assert all(0 <= found[domain] <= sizes[domain] for domain in sizes)
    # Who is not emptied has as much for its weight as anybody else, to a row.
    level = [(found[domain], weights[domain]) for domain in sizes if found[domain] < sizes[domain] and weights[domain]]
    for rows, weight in level:
        for other, heavy in level:
            assert abs(rows / weight - other / heavy) <= 1 / weight + 1 / heavy + 1e-9
        for domain in sizes:
            if weights[domain]:
                assert found[domain] / weights[domain] <= rows / weight + 1 / weight + 1 / weights[domain] + 1e-9


def test_falls_are_from_the_best_of_the_lineage(tmp_path: Path) -> None:
    registry = Registry(tmp_path / ".continual")
    registry.catalog.create()
    scores = {"v0": (50, 40, 10), "v1": (70, 35, 10), "v2": (66, 45, 90)}
    for number, (name, points) in enumerate(scores.items()):
        made = [Score(name, task, "ndcg_at_10", each, 9, None) for task, each in zip("abo", points, strict=True)]
        registry.add_version(version(name, f"v{number - 1}" if number else None), made)
    assert falls(registry, registry.version("v2")) == {}
    for name, domain in (("a", "first"), ("b", "second"), ("o", None), ("late", "first")):
        registry.add_task(Task(name, domain, f"tasks/{name}", 1, 1, 1, "folder", "x", now()))
    assert falls(registry, registry.version("v2")) == {"first": 4.0, "second": 0.0}
    assert falls(registry, registry.version("v1")) == {"first": 0.0, "second": 5.0}
    assert falls(registry, registry.version("v0")) == {}
    registry.add_version(version("v3", "v2"), [Score("v3", "b", "ndcg_at_10", 41, 9, None)])
    assert falls(registry, registry.version("v3")) == {"first": 4.0, "second": 4.0}, "a was not scored again"


# Which rows of a domain.


def test_hardest_takes_the_highest_losses() -> None:
    choose = get_policy("hardest").choose
    assert choose is not None
    rng = np.random.default_rng(0)
    losses = rng.random(300)
    expected = sorted(sorted(range(300), key=lambda row: -losses[row])[:40])
    assert choose(candidates(losses), 40, 0).tolist() == expected
    assert choose(candidates([1, 2, 2, 2]), 2, 0).tolist() == [1, 2]


def test_diverse_reaches_small_clusters_that_a_sample_misses() -> None:
    choose = get_policy("diverse").choose
    assert choose is not None
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    which = np.repeat([0, 1, 2], [94, 4, 2])
    points = centres[which] + rng.normal(scale=0.1, size=(100, 2))
    for seed in range(20):
        picks = choose(candidates(np.zeros(100), points), 3, seed)
        assert sorted(which[picks]) == [0, 1, 2]
        assert (picks == choose(candidates(np.zeros(100), points), 3, seed)).all()
    apart = {tuple(choose(candidates(np.zeros(100), points), 10, seed)) for seed in range(5)}
    assert len(apart) > 1


@pytest.mark.parametrize(("rows", "wanted"), [(1, 1), (7, 7), (50, 49), (BLOCK + 700, 300)])
def test_diverse_picks_different_rows_whatever_they_are(rows: int, wanted: int) -> None:
    choose = get_policy("diverse").choose
    assert choose is not None
    for points in (np.zeros((rows, 2)), np.random.default_rng(1).normal(size=(rows, 2))):
        picks = choose(candidates(np.zeros(rows), points), wanted, 0)
        assert len(set(picks.tolist())) == wanted
        assert picks.tolist() == sorted(picks.tolist())
    early = (picks < BLOCK).mean()
    assert early == pytest.approx(min(1.0, BLOCK / rows), abs=0.01)


def test_a_loss_is_info_nce_without_known_false_negatives() -> None:
    rng = np.random.default_rng(0)
    rows = OTHERS + 30
    queries, positives = (
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        for vectors in rng.normal(size=(2, rows, 8))
    )
    codes = np.stack([rng.integers(900, size=rows), rng.integers(900, size=rows), rng.integers(-1, 400, rows)], axis=1)
    found = row_losses(queries, positives, codes, 0.1)
    for row in (0, 5, OTHERS - 1, OTHERS, rows - 1):
        own = float(queries[row] @ positives[row]) / 0.1
        total = math.exp(own)
        for other in range(OTHERS):
            query, positive, document = codes[row] == codes[other]
            if not (query or positive or (document and codes[row, 2] >= 0)):
                total += math.exp(float(queries[row] @ positives[other]) / 0.1)
        assert found[row] == pytest.approx(math.log(total) - own, rel=1e-4)
    assert row_losses(queries[:1], positives[:1], codes[:1], 0.1).tolist() == [0.0]


def test_the_loss_of_a_row_of_classes_is_against_its_own_negatives(tiny_model: Path) -> None:
    rng = np.random.default_rng(2)
    queries, positives = rng.normal(size=(2, 3, 8)).astype(np.float32)
    negatives, owner = rng.normal(size=(3, 8)).astype(np.float32), np.array([0, 0, 2])
    found = given_losses(queries, positives, negatives, owner, 0.5)
    for row in range(3):
        documents = [positives[row], *negatives[owner == row]]
        total = sum(math.exp(float(queries[row] @ document) / 0.5) for document in documents)
        assert found[row] == pytest.approx(math.log(total) - float(queries[row] @ positives[row]) / 0.5, abs=1e-4)
    assert found[1] == 0

    rows = [pair | {"domain": "ab"[place // 4]} for place, pair in enumerate(make_pairs(8))]
    rows[5]["negatives"] = [rows[5]["positive"], "zat zot"]  # its own positive is none
    table = pa.Table.from_pylist(rows, SCHEMA)
    config = TrainConfig(max_negatives=2)
    _, _, plain = embed_pairs(tiny_model, table, config)
    mixed = table.append_column("in_batch", pa.array([True] * 4 + [False] * 4))
    queries, positives, losses = embed_pairs(tiny_model, mixed, config)
    assert losses["a"].tolist() == pytest.approx(plain["a"].tolist(), abs=1e-5)
    other = load_encoder(tiny_model, device="cpu").encode_document("zat zot")
    gap = float(queries[5] @ (other - positives[5])) / config.temperature
    assert losses["b"][1] == pytest.approx(math.log1p(math.exp(gap)), abs=1e-4)


@given(st.integers(1, 70), st.data())
def test_picks_survive_their_record(rows: int, data: st.DataObject) -> None:
    picks = sorted(data.draw(st.sets(st.integers(0, rows - 1))))
    assert unpack(pack(picks, rows)).tolist() == picks


# In a workspace.


@pytest.fixture(scope="session")
def learned(once: Once, tiny_model: Path) -> Path:
    """A workspace that has learned two domains and has a third before it."""
    settings = "[train]\nepochs = 1\nbatch_size = 16\nmax_length = 32\nlora_rank = 4\n"
    gate = "[gate]\nmax_forgetting = 100\nmax_ood_loss = 100\nmin_gain = -100\n[index]\nstep = false\n"

    def make(folder: Path) -> None:
        workspace = make_workspace(folder / "w", tiny_model, settings + gate)
        for seed, name in enumerate(("first", "second", "third")):
            pq.write_table(pa.Table.from_pylist(make_pairs(120, seed=seed)), folder / f"{name}.parquet")
            workspace.ingest(folder / f"{name}.parquet")
            if name != "third":
                workspace.update(replay=1, settings={"replay": {"rows": 10}})

    return once("replay", make) / "w"


@pytest.fixture
def workspace(learned: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(learned, tmp_path / "w"))


def prepared(workspace: Workspace, policy: str, rows: int = 20, seed: int = 0) -> Any:
    config = workspace.config.replace("replay", policy=policy, share=1, rows=rows)
    return prepare(workspace.registry, config, Request(seed=seed))


@pytest.mark.slow
def test_what_limits_replay_is_said_before_and_after(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    from continual.cli.render.plan import print_plan
    from continual.cli.render.step import print_step
    from continual.cli.render.version import print_version

    print_plan(workspace.plan(replay=0.2, settings={"replay": {"rows": 7}}))
    print_plan(workspace.plan(replay=0.2))
    step = workspace.update(replay=0.2, settings={"replay": {"rows": 7}})
    print_step(step)
    print_version(step.version, [])
    said = [line for line in capsys.readouterr().out.splitlines() if "uniform, 0.2 of each learned domain" in line]
    assert [", at most 7 rows in all" in line for line in said] == [True, False, True, True], said


def test_a_number_of_rows_limits_the_share_and_is_recorded(workspace: Workspace) -> None:
    rows = sum(batch.kept for batch in workspace.registry.batches() if batch.domain != "third")
    for limit, drawn in ((500, round(0.1 * rows)), (5, 5)):
        config = workspace.config.replace("replay", share=0.1, rows=limit)
        spec, _ = prepare(workspace.registry, config, Request())
        assert sum(window.rows for window in spec.provenance.replay) == drawn
        assert spec.provenance.config["replay"]["rows"] == limit


def replay_of(drawn: Any) -> list[dict[str, Any]]:
    return drawn.table.filter(drawn.table["replayed"]).to_pylist()


@pytest.mark.parametrize("policy", policies())
def test_the_same_step_draws_the_same_rows_and_a_resumed_one_too(workspace: Workspace, policy: str) -> None:
    spec, drawn = prepared(workspace, policy)
    again, same = prepared(workspace, policy)
    assert again == spec
    assert same.table == drawn.table
    assert len(replay_of(drawn)) == sum(window.rows for window in spec.provenance.replay) == 20
    assert {window.domain for window in spec.provenance.replay} == {"first", "second"}
    reopened, rows = reopen(
        workspace.registry, Run(spec.version, "running", Spec.from_json(spec.to_json()), now(), None)
    )
    assert reopened == spec
    assert rows.table == drawn.table
    assert rows.replay == drawn.replay


def test_hardest_looks_at_more_rows_and_keeps_those_with_the_highest_loss(workspace: Workspace) -> None:
    spec, drawn = prepared(workspace, "hardest")
    config = workspace.config.replace("replay", policy="uniform", share=1, rows=80)
    _, wide = prepare(workspace.registry, config, Request())
    model = workspace.load()
    model.max_seq_length = 32
    for window in spec.provenance.replay:
        pool = [row for row in replay_of(wide) if row["domain"] == window.domain][: window.candidates]
        assert window.candidates == len(pool) == 4 * window.rows
        scores = (
            model.encode_query([row["query"] for row in pool])
            @ model.encode_document([row["positive"] for row in pool]).T
        )
        losses = np.log(np.exp(scores / 0.05).sum(axis=1)) - np.diag(scores) / 0.05
        expected = {pool[place]["query"] for place in np.argsort(-losses)[: window.rows]}
        assert {row["query"] for row in replay_of(drawn) if row["domain"] == window.domain} == expected
        # The next step looks at what comes after all that were looked at.
        assert spec.provenance.cursors[window.domain] == window.stop


@pytest.mark.slow
def test_a_reservoir_keeps_its_rows_and_leaves_the_windows_where_they_are(workspace: Workspace) -> None:
    before = workspace.version().provenance.cursors
    spec, drawn = prepared(workspace, "reservoir", 40)
    assert spec.provenance.cursors == before
    kept = {row["query"] for row in replay_of(drawn)}
    assert {row["query"] for row in replay_of(prepared(workspace, "reservoir", 20)[1])} < kept
    uniform, _ = prepared(workspace, "uniform", 40)
    assert uniform.provenance.cursors != before
    made = workspace.update(replay=1, settings={"replay": {"policy": "reservoir", "rows": 40}}).version
    assert made.provenance.cursors == before
    assert made.provenance.replay == spec.provenance.replay
    # One domain more: the two share fewer rows, all of which were there before.
    pq.write_table(pa.Table.from_pylist(make_pairs(30, seed=7)), workspace.directory / "fourth.parquet")
    workspace.ingest(workspace.directory / "fourth.parquet")
    _, after = prepared(workspace, "reservoir", 40)
    old = {row["query"] for row in replay_of(after) if row["domain"] != "third"}
    assert 20 <= len(old) < 40
    assert old < kept


def test_a_plan_says_what_a_choice_would_cost_and_makes_none(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continual.step.draw.choose_rows", lambda *_, **__: pytest.fail("a plan chooses nothing"))
    plan = workspace.plan(settings={"replay": {"policy": "diverse", "rows": 20}})
    assert plan.candidates == 80
    assert plan.choice_seconds > 0
    assert sum(window.rows for window in plan.spec.provenance.replay) == 20
    assert workspace.plan(settings={"replay": {"rows": 20}}).candidates == 0


@pytest.mark.slow
def test_a_step_trains_on_what_was_chosen(workspace: Workspace) -> None:
    spec, _ = prepared(workspace, "diverse", seed=3)
    made = workspace.update(settings={"replay": {"policy": "diverse", "rows": 20}}, seed=3).version
    assert made.provenance.replay == spec.provenance.replay
    assert made.pairs_trained == spec.provenance.new[0].rows + 20
