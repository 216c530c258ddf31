"""Updates whose merge is searched: on which rows, and what is recorded."""

from __future__ import annotations

import pytest

from continual import Workspace
from continual.errors import InputError
from tests.pairs import Write, make_pairs


def test_a_search_that_a_domain_has_no_say_in_is_refused_before_training(
    workspace: Workspace, write_pairs: Write
) -> None:
    workspace.ingest(write_pairs("few.parquet", make_pairs(15)), holdout=0)
    with pytest.raises(InputError, match=r"too few of few \(1\)"):
        workspace.update(merge="search")
    assert workspace.status().interrupted is None


@pytest.mark.parametrize("rule", ["search", "self-positioning"])
def test_coefficients_are_searched_on_rows_that_were_not_trained(
    workspace: Workspace, write_pairs: Write, rule: str
) -> None:
    from continual.report.html import render_html

    for number, name in enumerate(("first", "second")):
        workspace.ingest(write_pairs(f"{name}.parquet", make_pairs(160, seed=number)))
        step = workspace.update(replay=0.1, merge=rule)
    recipe = step.version.recipe
    held = {window["domain"]: window["rows"] for window in recipe["held"]}
    assert set(held) == {"first", "second"}
    new = next(batch for batch in workspace.registry.batches("second"))
    assert held["second"] == new.kept // 10
    assert recipe["new"][0]["rows"] == new.kept - held["second"]
    assert step.version.pairs_trained == recipe["new"][0]["rows"] + recipe["replay"][0]["rows"]
    assert set(recipe["search"]["reference"]["losses"]) == {"first", "second"}
    best = recipe["search"]["best"]
    assert best in recipe["search"]["candidates"]
    assert recipe["weight"] == best["coefficients"]["weight" if rule == "search" else "t1"]
    assert (
        best["loss"] <= min(point["loss"] for point in recipe["search"]["candidates"])
        or not recipe["search"]["floor_kept"]
    )
    cost, rows = recipe["search_cost"], sum(held.values())
    if rule == "search":  # forward alone: all held-out rows for each candidate, what is in service among them
        assert (cost["pairs"], cost["forward_pairs"]) == (0, rows * len(recipe["search"]["candidates"]))
    else:
        assert cost["pairs"] > 0
    workspace.rebuild(step.version.id)
    assert f"Search for {workspace.version().id}" in render_html(workspace.report()).html
