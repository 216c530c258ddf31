"""The phases that recipes lay out, counted by hand, and what they cannot be told."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import (
    ConfigError,
    InputError,
    NotFoundError,
    NothingToDoError,
)
from continual.recipes import find_recipe
from continual.recipes.recipe import (
    Merge,
    Portion,
    RecipeInput,
    Train,
)
from continual.recipes.systems import boom
from tests.rows import make_pairs


@pytest.mark.slow
def test_the_subsets_of_boom_have_the_shares_of_each_domain(workspace: Workspace) -> None:
    plan = workspace.plan_training("boom")
    rows = [(phase.name, phase.rows, phase.start) for phase in plan.phases]
    assert rows == [
        ("subset-1", {"big": 24, "small": 8}, "root"),
        ("subset-2", {"big": 36, "small": 12}, "root"),
        ("subset-3", {"big": 48, "small": 16}, "root"),
        ("subset-4", {"big": 60, "small": 20}, "root"),
        ("merged", {}, "root"),
    ]
    assert plan.phases[-1].members == ("subset-1", "subset-2", "subset-3", "subset-4")
    assert plan.pairs == 2.8 * 80 * plan.phases[0].epochs == 2.8 * plan.joint_pairs
    assert workspace.versions()[1:] == []  # a plan makes nothing


def test_subsets_are_drawn_without_replacement_and_each_anew(workspace: Workspace) -> None:
    from continual.recipes.rows import read_training_rows

    rows = read_training_rows(workspace.registry, workspace.registry.batches())
    all_rows = set(rows.tables["big"]["query"].to_pylist())
    draws = []
    for number in (1, 2):
        table, (window,) = rows.take([Portion("big", 30, draw=number)], seed=0)
        drawn = table["query"].to_pylist()
        assert len(set(drawn)) == len(drawn) == 30 == window.rows
        assert set(drawn) < all_rows
        again, _ = rows.take([Portion("big", 30, draw=number)], seed=0)
        assert again.equals(table)
        draws.append(set(drawn))
    assert 5 <= len(draws[0] & draws[1]) <= 25  # 15 are expected of two independent halves
    assert set(rows.take([Portion("big", 30, draw=1)], seed=1)[0]["query"].to_pylist()) != draws[0]


def test_a_subset_holds_a_row_of_each_domain_it_learns() -> None:
    inputs = RecipeInput({"big": 60, "small": 20}, {}, {}, lambda: 0)
    first, second, _ = boom.phases(inputs, {"ratios": (0.01, 0.5), "weights": "equal", "method": "mean"})
    assert [portion.rows for portion in first.portions] == [1, 1]
    assert [portion.rows for portion in second.portions] == [30, 10]


def test_the_phases_of_phased_training(workspace: Workspace, tmp_path: Path) -> None:
    # A tenth of each domain, 6 and 2 rows, is held out for the search: 54 and 18 are left. A fifth of these 72 rows is
    # 14 (14.4), 7 of each of two clusters.
    plan = workspace.plan_training("phased", options={"warm-up": "0.2", "matryoshka": "no"})
    rows = [(phase.name, phase.rows, phase.start, phase.members) for phase in plan.phases]
    assert rows == [
        ("warm-up", {"big": 7, "small": 7}, "root", ()),
        ("learn-big", {"big": 54}, "warm-up", ()),
        ("learn-small", {"small": 18}, "warm-up", ()),
        ("merged", {}, "warm-up", ("learn-big", "learn-small")),
        ("enhance", {"big": 7, "small": 7}, "merged", ()),
    ]
    assert plan.pairs == (14 + 54 + 18 + 14) * plan.phases[0].epochs
    assert plan.joint_pairs == 80 * plan.phases[0].epochs  # a joint training has no need to hold rows out
    one = tmp_path / "one.toml"
    one.write_text('[clusters]\nall = ["big", "small"]\n')
    merged = workspace.plan_training("phased", options={"warm-up": "0.5", "matryoshka": "no"}, clusters=one)
    assert [phase.name for phase in merged.phases] == ["warm-up", "learn-all", "merged", "enhance"]
    assert merged.phases[0].rows == {"big": 27, "small": 9}  # 36 of one cluster, three quarters of them big's


@pytest.mark.release
@pytest.mark.slow
def test_tokens_are_those_of_the_rows_of_each_phase(workspace: Workspace, tmp_path: Path) -> None:
    # A domain of few long rows: neither the tokens of a pair of the largest phase, nor those of all, are its own.
    long = [pair | {"positive": f"{pair['positive']} " * 3} for pair in make_pairs(24, seed=5)]
    pq.write_table(pa.Table.from_pylist(long), tmp_path / "long.parquet")
    workspace.ingest(tmp_path / "long.parquet", domain="long", holdout=0.0)
    epochs = {"train": {"epochs": 2}}
    plan = workspace.plan_training("sequential", settings=epochs)
    assert plan.new_pairs == 2 * (60 + 20 + 24)
    done = workspace.train("sequential", settings=epochs)
    counts = {each.name: each.tokens / each.pairs for each in done.phases}
    assert counts["learn-long"] > 1.4 * counts["learn-big"]
    assert plan.new_tokens == done.cost.tokens
    assert workspace.plan_training("joint", settings=epochs).new_tokens == plan.new_tokens
    partly = workspace.plan_training("specialists", settings=epochs)  # its first phase is that of `sequential`
    assert [each.made for each in partly.phases] == ["v1", None, None, None]
    assert (partly.new_pairs, partly.new_tokens) == (2 * 44, sum(each.tokens for each in done.phases[1:]))
    assert partly.new_seconds > 0
    # No two rows share a text, so that it does not matter which rows share a batch.
    assert workspace.plan_training("naive", settings=epochs).new_tokens == plan.new_tokens


@pytest.mark.slow
def test_a_text_that_rows_of_a_batch_share_is_one(workspace: Workspace, tmp_path: Path) -> None:
    shared = [pair | {"positive": "bal bel bil bol bul " * 3} for pair in make_pairs(32, seed=6)]
    pq.write_table(pa.Table.from_pylist(shared), tmp_path / "shared.parquet")
    workspace.ingest(tmp_path / "shared.parquet", domain="shared", holdout=0.0)
    plan = workspace.plan_training("specialists", domains=["shared", "small"])
    assert plan.new_tokens == workspace.train("specialists", domains=["shared", "small"]).cost.tokens


def test_a_warm_up_is_no_larger_than_the_smallest_cluster() -> None:
    inputs = RecipeInput({"a": 100, "b": 30, "c": 6}, {}, {"x": ["a", "b"], "y": ["c"]}, lambda: 8)
    phases = find_recipe("phased").phases
    assert phases is not None
    options = {"warm-up": 0.5, "base": "root", "matryoshka": "yes"}
    warm_up, *_, merge, enhance = phases(inputs, options)
    assert isinstance(warm_up, Train)
    assert isinstance(merge, Merge)
    assert isinstance(enhance, Train)
    assert warm_up.portions == (Portion("a", 5), Portion("b", 1), Portion("c", 6))
    assert merge.base == "root"
    assert enhance.same_rows == "warm-up"
    assert enhance.settings == {"matryoshka": [4, 2, 1]}


def test_small_domains_are_repeated_up_to_the_floor(workspace: Workspace) -> None:
    (phase,) = workspace.plan_training("upsample", options={"floor": "0.75"}).phases
    assert phase.rows == {"big": 60, "small": 45}
    from continual.recipes.rows import read_training_rows

    rows = read_training_rows(workspace.registry, workspace.registry.batches())
    table, _ = rows.take([Portion("small", 45)], seed=0)
    counts = table["query"].value_counts().field("counts").to_pylist()
    assert sorted(counts) == [2] * 15 + [3] * 5


def test_two_stages_are_retrieval_and_then_everything() -> None:
    recipe = find_recipe("two-stage")
    assert recipe.phases is not None
    inputs = RecipeInput({"a": 3, "b": 4}, {"a": "classification", "b": "retrieval"}, {}, lambda: 8)
    first, second = recipe.phases(inputs, {})
    assert isinstance(first, Train)
    assert isinstance(second, Train)
    assert first.portions == (Portion("b"),)
    assert second.portions == (Portion("a"), Portion("b"))
    assert second.start == first.name
    with pytest.raises(InputError, match="the 2 domains here are of kind retrieval"):
        recipe.phases(RecipeInput({"a": 3, "b": 4}, dict.fromkeys("ab", "retrieval"), {}, lambda: 8), {})


def test_sequential_goes_by_domain_or_kind() -> None:
    recipe = find_recipe("sequential")
    assert recipe.phases is not None
    inputs = RecipeInput({"a": 3, "b": 4, "c": 5}, {"a": "x", "b": "y", "c": "x"}, {}, lambda: 8)
    by_domain = recipe.phases(inputs, {"by": "domain"})
    assert [(each.name, each.start) for each in by_domain if isinstance(each, Train)] == [
        ("learn-a", "root"),
        ("learn-b", "learn-a"),
        ("learn-c", "learn-b"),
    ]
    by_kind = recipe.phases(inputs, {"by": "kind"})
    assert [each.portions for each in by_kind if isinstance(each, Train)] == [
        (Portion("a"), Portion("c")),
        (Portion("b"),),
    ]


@pytest.mark.parametrize("name", ["specialists", "sequential"])
def test_a_domain_may_be_called_as_a_phase_is(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.phases is not None
    phases = recipe.phases(RecipeInput({"root": 3, "merged": 4}, {}, {}, lambda: 8), recipe.resolve({}))
    assert len({"root", *(phase.name for phase in phases)}) == len(phases) + 1


def test_a_setting_of_the_call_goes_before_that_of_a_phase(workspace: Workspace) -> None:
    from continual.recipes.plan import lay_out

    matryoshka = []
    for settings in ({}, {"train": {"matryoshka": [8]}}):
        known = {"options": {}, "domains": None, "clusters": None, "settings": settings, "seed": 0}
        layout = lay_out(workspace.registry, workspace.config, find_recipe("phased"), **known)
        matryoshka.append([each.config.train.matryoshka for each in layout.phases if each.table is not None])
    assert matryoshka == [[[], [], [], [16, 8, 4]], [[8]] * 4]


@pytest.mark.slow
def test_rows_that_no_phase_trains_on_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    pairs = [pair | {"negatives": []} if place < 5 else pair for place, pair in enumerate(make_pairs(24, seed=8))]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "labels.parquet")
    workspace.ingest(tmp_path / "labels.parquet", domain="labels", kind="classification", holdout=0.0)
    plan = workspace.plan_training("joint")
    assert (plan.pairs, plan.skipped) == (60 + 20 + 19, {"labels": 5})
    assert workspace.train("joint").skipped == {"labels": 5}
    assert workspace.plan_training("joint", domains=["small"]).skipped == {}


# Refusals.


def test_what_a_recipe_cannot_be_told_is_refused(workspace: Workspace) -> None:
    for call, error, message in (
        ({"recipe": "bom"}, NotFoundError, "no recipe 'bom'. Did you mean 'boom'"),
        ({"recipe": "continual"}, InputError, "continual update --recipe continual"),
        ({"recipe": "boom", "options": {"ratio": "1"}}, InputError, "Did you mean 'ratios'"),
        ({"recipe": "boom", "options": {"ratios": "0.5,x"}}, InputError, "numbers separated by commas"),
        ({"recipe": "boom", "options": {"ratios": "1.5"}}, InputError, "from 0.01 to 1"),
        ({"recipe": "boom", "options": {"method": "slurp"}}, NotFoundError, "no merge method 'slurp'"),
        ({"recipe": "boom", "options": {"method": "sce", "weights": "size"}}, InputError, "sce takes no weights"),
        (
            {"recipe": "specialists", "options": {"method": "model_stock", "weights": "size"}},
            InputError,
            "model_stock takes no weights: they would have no effect. Leave --option weights=size out.",
        ),
        (
            {"recipe": "boom", "options": {"method": "slerp", "ratios": "0.5,1"}},
            InputError,
            "slerp merges 2 models, and the base is the first of them, but boom has 2 more (subset-1, subset-2). "
            "Choose another method or another number of models with --option method=... or --option ratios=...",
        ),
        (
            {"recipe": "specialists", "options": {"method": "model_stock"}, "domains": ["big"]},
            InputError,
            "model_stock merges 2 or more models, but specialists has 1 (learn-big). Choose another method or another "
            "number of models with --option method=... or --option by=...",
        ),
        (
            {"recipe": "joint", "settings": {"eval": {"batch_size": 8}}},
            InputError,
            "of the evaluation belong in continual.toml",
        ),
        ({"recipe": "sequential", "options": {"by": "cluster"}}, InputError, "domain or kind"),
        (
            {"recipe": "joint", "settings": {"merge": {"parameters": {"density": 0.5}}}},
            InputError,
            "joint has no merge, so merge.parameters would have no effect",
        ),
        (
            {"recipe": "phased", "settings": {"merge": {"parameters": {"lambda": 0.5}}}},
            InputError,
            "phased searches the parameters of its merge",
        ),
        ({"recipe": "boom", "settings": {"merge": {"parameters": {"density": 0.5}}}}, InputError, "multislerp takes"),
        (
            {"recipe": "boom", "options": {"method": "ties"}, "settings": {"merge": {"parameters": {"density": 2}}}},
            InputError,
            "ties: density = 2 is out of range",
        ),
        ({"recipe": "joint", "settings": {"trian": {}}}, ConfigError, "Did you mean 'train'"),
        ({"recipe": "joint", "settings": {"train": {"epoch": 1}}}, ConfigError, "train.epoch: unknown setting"),
        ({"recipe": "joint", "domains": ["bog"]}, NotFoundError, "no domain 'bog'"),
        ({"recipe": "joint", "seed": -1}, InputError, "0 or more"),
        ({"recipe": "phased", "clusters": "none.toml"}, NotFoundError, "no file none.toml"),
        ({"recipe": "joint", "clusters": "none.toml"}, InputError, "joint does not use clusters"),
        ({"recipe": "specialists", "clusters": "none.toml"}, InputError, "only with --option by=cluster"),
        (
            {"recipe": "joint", "settings": {"merge": {"floor": 1}}},
            InputError,
            "joint takes only the settings of [train].",
        ),
        ({"recipe": "phased", "settings": {"merge": {"search_rows": 1}}}, NothingToDoError, "no domain of big, small"),
    ):
        with pytest.raises(error, match=None) as raised:
            workspace.train(**call)  # type: ignore[arg-type]
        assert message in str(raised.value)
    with pytest.raises(InputError, match="Run it with `continual train --recipe joint`"):
        workspace.update(recipe="joint")
    assert len(workspace.versions()) == 1


def test_clusters_that_are_out_of_date_hinder_only_what_goes_by_them(workspace: Workspace) -> None:
    (workspace.directory / "conflicts.toml").write_text('[clusters]\none = ["big"]\n')
    assert workspace.plan_training("joint").pairs == 80
    for call in ({"recipe": "phased"}, {"recipe": "specialists", "options": {"by": "cluster"}}):
        with pytest.raises(ConfigError, match=r"in no cluster: small\. Add each to a cluster"):
            workspace.plan_training(**call)  # type: ignore[arg-type]
