"""The plan of an update: what it counts, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual import Workspace
from tests.rows import Write, make_pairs


def test_a_plan_counts_and_changes_nothing(learned: Workspace, write_pairs: Write) -> None:
    learned.ingest(write_pairs("third.parquet", make_pairs(40, seed=9)))

    def files() -> list[Path]:
        return sorted(path for path in learned.registry.root.rglob("*") if path.is_file() and path.suffix != ".lock")

    before = files()
    plan = learned.plan(settings={"replay": {"rows": 10}})
    kept = {batch.domain: batch.kept for batch in learned.registry.batches()}
    assert sum(window.rows for window in plan.spec.provenance.replay) == 10
    assert plan.pairs == kept["third"] + 10
    assert plan.joint_pairs == sum(kept.values())
    searching = learned.plan(settings={"replay": {"rows": 10}}, merge="search")
    assert searching.pairs < plan.pairs  # rows are held out for the search
    assert searching.joint_pairs == plan.joint_pairs
    assert plan.tokens > 0
    assert plan.seconds > 0
    assert files() == before
    assert learned.update(settings={"replay": {"rows": 10}}).version.pairs_trained == plan.pairs


@pytest.mark.slow
def test_a_plan_counts_the_tokens_of_a_full_retraining_by_domain(workspace: Workspace, write_pairs: Write) -> None:
    long = [pair | {"positive": f"{pair['positive']} {pair['positive']}"} for pair in make_pairs(40)]
    workspace.ingest(write_pairs("long.parquet", long), holdout=0.0)
    whole = workspace.plan()
    assert (whole.joint_pairs, whole.joint_tokens) == (whole.pairs, whole.tokens)
    workspace.update()
    short = [{"query": pair["query"], "positive": pair["query"][:8]} for pair in make_pairs(40, seed=1)]
    workspace.ingest(write_pairs("short.parquet", short), holdout=0.0)
    plan = workspace.plan(replay=0.0)
    assert plan.joint_pairs == 2 * plan.pairs
    assert plan.joint_tokens == plan.tokens + whole.tokens  # not twice the short ones
