"""Updates whose merge is searched: on which rows, and what is recorded."""

from __future__ import annotations

import pytest

from continual import Workspace
from continual.errors import InputError
from tests.rows import Write, make_pairs


def test_a_search_that_a_domain_has_no_say_in_is_refused_before_training(
    workspace: Workspace, write_pairs: Write
) -> None:
    workspace.ingest(write_pairs("few.parquet", make_pairs(15)), holdout=0)
    with pytest.raises(InputError, match=r"too few of few \(1\)"):
        workspace.update(merge="search")
    assert workspace.status().interrupted is None


@pytest.mark.release
@pytest.mark.slow
@pytest.mark.parametrize("rule", ["search", "self-positioning"])
def test_coefficients_are_searched_on_rows_that_were_not_trained(
    workspace: Workspace, write_pairs: Write, rule: str
) -> None:
    from continual.report.html import render_html

    for number, name in enumerate(("first", "second")):
        workspace.ingest(write_pairs(f"{name}.parquet", make_pairs(160, seed=number)))
        step = workspace.update(replay=0.1, merge=rule)
    made = step.version.provenance
    search, cost = made.search, made.search_cost
    assert search is not None
    assert cost is not None
    held = {window.domain: window.rows for window in made.held}
    assert set(held) == {"first", "second"}
    new = next(batch for batch in workspace.registry.batches("second"))
    assert held["second"] == new.kept // 10
    assert made.new[0].rows == new.kept - held["second"]
    assert step.version.pairs_trained == made.new[0].rows + made.replay[0].rows
    assert set(search.reference.losses) == {"first", "second"}
    best = search.best
    assert best in search.candidates
    assert made.weight == best.coefficients["weight" if rule == "search" else "t1"]
    assert best.loss <= min(point.loss for point in search.candidates) or not search.floor_kept
    if rule == "search":  # forward only: all held-out rows for each candidate, the current version among them
        assert (cost.pairs, cost.forward_pairs) == (0, sum(held.values()) * len(search.candidates))
    else:
        assert cost.pairs > 0
    workspace.rebuild(step.version.id)
    assert f"Search for {workspace.version().id}" in render_html(workspace.report()).html
