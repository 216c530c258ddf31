"""`continual train` as a stranger meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from continual.recipes import recipes
from tests.commands import Run
from tests.rows import Write, make_pairs


def test_recipes_are_listed_with_what_they_cost(folder: Path, run: Run) -> None:
    said = run("train", "--list").out
    assert all(f"{name} (" in said for name in recipes())
    assert "--option ratios=0.4,0.6,0.8,1.0: share of each domain's rows in each subset" in said
    listed = json.loads(run("train", "--list", "--json").out)
    assert listed.keys() == recipes().keys()
    assert listed["continual"]["train"] is False
    assert listed["boom"]["update"] is True


def test_a_plan_and_its_training(stocked: Path, run: Run) -> None:
    plan = run("train", "--recipe", "boom", "--option", "ratios=0.5,0.9", "--plan")
    assert plan.code == 0
    assert "subset-1" in plan.out
    assert "Nothing was changed" in plan.out
    planned = json.loads(run("train", "--recipe", "boom", "--option", "ratios=0.5,0.9", "--plan", "--json").out)
    assert [phase["made"] for phase in planned["phases"]] == [None] * 3
    done = run("train", "--recipe", "boom", "--option", "ratios=0.5,0.9", "--set", "train.lora_rank=2")
    assert done.code == 0
    assert "v3 is the result of boom; v0 stays the current version." in done.out
    assert "pairs/s" in done.err
    words = [line.split() for line in done.out.splitlines()]
    assert ["pairs", "90", "64", "141%"] in words  # of 40 and 24 rows the half, and nine tenths
    tokens, time = (next(line for line in words if line[:1] == [name]) for name in ("tokens", "time"))
    assert tokens[2] == "about"
    assert tokens[-2:] == time[-2:] == ["about", "141%"]
    assert "`continual train --recipe joint` measures them" in done.out
    shown = run("versions", "show", "v3").out
    assert "multislerp of v1 x 1, v2 x 1" in shown
    again = json.loads(
        run("train", "--recipe", "boom", "--option", "ratios=0.5,0.9", "--set", "train.lora_rank=2", "--json").out
    )
    assert again["version"] == "v3"
    assert again["pairs"] == planned["pairs"]
    assert {phase["again"] for phase in again["phases"]} == {True}
    assert run("promote", "v3").code == 0
    assert "v3" in run("report").out


@pytest.mark.slow
def test_the_plan_of_a_run_that_is_partly_done(stocked: Path, run: Run) -> None:
    assert "To train: 64 pairs, about" in run("train", "--recipe", "sequential", "--plan").out
    assert run("train", "--recipe", "sequential").code == 0
    plan = run("train", "--recipe", "specialists", "--plan")
    assert "64 pairs in all, 100% of a joint training's 64." in plan.out
    assert "Still to train: 24 pairs, about" in plan.out
    done = run("train", "--recipe", "specialists")
    assert "Time counts trainings and searches, with the loading of the model for each." in done.out
    assert "Every phase exists already." in run("train", "--recipe", "specialists", "--plan").out
    left = run("train", "--recipe", "specialists", "--option", "method=linear", "--plan").out
    assert "Every training exists already." in left


@pytest.mark.slow
def test_a_plan_says_what_its_clusters_and_its_search_are(stocked: Path, run: Run) -> None:
    alone = run("train", "--recipe", "phased", "--plan").out
    assert "Clusters: each domain is one. `continual analyze conflicts` finds" in alone
    # 4 and 2 rows are held out, and take turns for a hundred steps; six times all of them are evaluated.
    assert "at most 300 pairs of held-out rows with gradients and 336 without, about" in alone
    file = stocked / "conflicts.toml"
    file.write_text('[clusters]\nall = ["big", "small"]\n')
    one = run("train", "--recipe", "phased", "--plan").out
    assert f"Clusters of {file}: all (big, small). With one cluster" in one
    assert "trains on the same rows at once, which costs less." in one
    named = stocked / "mine.toml"
    named.write_text('[clusters]\na = ["big"]\nb = ["small"]\n')
    call = ("train", "--recipe", "specialists", "--option", "by=cluster", "--clusters", str(named), "--plan")
    assert f"Clusters of {named}: a (big); b (small)." in run(*call).out
    assert "Clusters" not in run("train", "--recipe", "joint", "--plan").out


def test_rows_that_are_left_out_are_named(stocked: Path, run: Run, write_pairs: Write) -> None:
    pairs = [pair | {"negatives": []} if place < 3 else pair for place, pair in enumerate(make_pairs(24, seed=8))]
    file = str(write_pairs("labels.parquet", pairs))
    assert run("ingest", file, "--kind", "classification", "--holdout", "0").code == 0
    said = "rows without negatives, in domains whose rows use only their own negatives: labels 3."
    assert said in run("train", "--recipe", "joint", "--plan").out
    assert said in run("train", "--recipe", "joint").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Name a recipe with --recipe"),
        (("--recipe", "phase"), "Did you mean 'phased'"),
        (("--recipe", "boom", "--option", "ratios"), "--option takes NAME=VALUE"),
        (("--recipe", "boom", "--option", "ratios=1", "--option", "ratios=1"), "--option sets ratios twice"),
        (("--recipe", "boom", "--set", "merge.parameters.density=0.5"), "multislerp takes"),
        (("--recipe", "joint", "--set", "merge.parameters.density=0.5"), "joint has no merge"),
        (("--recipe", "boom", "--set", "epochs=1"), "--set takes SECTION.KEY=VALUE"),
        (("--recipe", "boom", "--set", "train.epochs=0"), "train.epochs"),
        (("--recipe", "boom", "--set", "train.epochs=1", "--set", "train.epochs=2"), "--set sets train.epochs twice"),
        (("--recipe", "boom", "--option", "method=slerp"), "with --option method=... or --option ratios=..."),
        (("--recipe", "two-stage"), "continual ingest --kind"),
    ],
)
def test_bad_calls_change_nothing(stocked: Path, run: Run, words: tuple[str, ...], message: str) -> None:
    result = run("train", *words)
    assert result.code == 2
    assert message in result.err
    assert json.loads(run("versions", "list", "--json").out)["versions"][-1]["id"] == "v0"


def test_an_update_by_a_recipe_says_so_in_its_plan(stocked: Path, run: Run) -> None:
    plan = json.loads(run("update", "--recipe", "boom", "--set", "train.temperature=0.02", "--plan", "--json").out)
    assert plan["spec"]["provenance"]["recipe"] == "boom"
    assert plan["spec"]["provenance"]["merge"] == "equal"
    assert plan["spec"]["provenance"]["config"]["train"]["temperature"] == 0.02
    refused = run("update", "--recipe", "phased")
    assert refused.code == 2
    assert "Run it with `continual train --recipe phased`" in refused.err
