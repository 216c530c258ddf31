"""Recipes: the phases that they lay out, counted by hand; every phase a version; and nothing made twice."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from continual import Workspace
from continual.errors import (
    ConfigError,
    InputError,
    ModelError,
    NotFoundError,
    NothingToDoError,
    WorkspaceBusy,
)
from continual.merge.sources import Adapted, Model
from continual.models.weights import weights_sha256
from continual.recipes import find_recipe, recipes
from continual.recipes.recipe import (
    Merge,
    Portion,
    RecipeInput,
    Train,
)
from continual.recipes.systems import boom
from continual.storage.locks import UPDATE_LOCK, exclusive
from tests.conftest import make_pairs
from tests.test_workspace import SETTINGS

ROWS = {"big": 60, "small": 20}
MIXED = {
    "two-stage": [{"big": 60, "small": 20}, {"big": 60, "small": 20, "labels": 24}],
    "specialists by=kind": [{"big": 60, "small": 20}, {"labels": 24}, {}],
    "specialists by=cluster": [{"big": 60, "labels": 24}, {"small": 20}, {}],
}
"""What goes by kinds or clusters, with the rows of its phases where there is a third domain, of classification."""

TRAINED = [name for name, recipe in recipes().items() if recipe.phases is not None and name not in MIXED] + [*MIXED]


def ingest(workspace: Workspace, folder: Path, name: str, rows: int, seed: int, **options: object) -> None:
    file = folder / f"{name}-{seed}.parquet"
    pq.write_table(pa.Table.from_pylist(make_pairs(rows, seed=seed)), file)
    workspace.ingest(file, domain=name, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stocked(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two domains of 60 and 20 rows, and a task of a third."""
    folder = tmp_path_factory.mktemp("recipes")
    workspace = Workspace.init(folder / "w", str(tiny_model))
    (folder / "w/continual.toml").write_text(SETTINGS)
    workspace = Workspace(folder / "w")
    for seed, (name, rows) in enumerate(ROWS.items()):
        ingest(workspace, folder, name, rows, seed, holdout=0.0)
    pairs = make_pairs(12, seed=9)
    task = folder / "task"
    task.mkdir()
    ids = [f"d{number}" for number in range(len(pairs))]
    texts = {key: [str(pair[key]) for pair in pairs] for key in ("query", "positive")}
    pq.write_table(pa.table({"doc_id": ids, "text": texts["positive"]}), task / "corpus.parquet")
    pq.write_table(pa.table({"query_id": ids, "text": texts["query"]}), task / "queries.parquet")
    pq.write_table(pa.table({"query_id": ids, "doc_id": ids, "score": [1] * len(ids)}), task / "qrels.parquet")
    workspace.add_task("other", task)
    return folder / "w"


@pytest.fixture
def workspace(stocked: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(stocked, tmp_path / "w")
    return Workspace(tmp_path / "w")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = Model(folder)
    return {key: model.read(key) for key in model.entries}


# The phases, counted by hand.


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
    with pytest.raises(InputError, match="all 2 are of kind retrieval"):
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


# Running them.


@pytest.mark.parametrize("call", TRAINED)
def test_every_recipe_trains_versions_that_are_built_again_bit_for_bit(
    workspace: Workspace, tmp_path: Path, call: str
) -> None:
    name, *words = call.split()
    options = dict(word.split("=") for word in words)
    if call in MIXED:
        ingest(workspace, tmp_path, "labels", 24, 7, holdout=0.0, kind="classification")
        (workspace.directory / "conflicts.toml").write_text('[clusters]\none = ["big", "labels"]\ntwo = ["small"]\n')
    done = workspace.train(name, options=options)
    assert call not in MIXED or [each.rows for each in done.phases] == MIXED[call]
    planned = workspace.plan_training(name, options=options)
    assert [(each.name, each.version) for each in done.phases] == [(each.name, each.made) for each in planned.phases]
    assert planned.new_pairs == 0
    searched = sum(each.pairs for each in done.phases if not each.rows)
    assert (searched > 0) == recipes()[name].searches
    assert planned.pairs + searched == done.pairs == done.version.provenance.cost["pairs"]
    assert (done.joint.version == done.version.id) == (name == "joint")
    assert done.version.status == "trained"
    assert workspace.version().id == "v0"  # nothing is put into service
    assert set(done.version.batches) == {batch.id for batch in workspace.registry.batches()}
    assert set(done.scores) == {"v0", done.version.id}
    assert done.roles == {"other": "OOD"}
    made = {each.id: each for each in workspace.versions()}
    assert len({each.sha256 for each in made.values()}) == len(made)  # every phase did something
    workspace.gc()
    left = {path.name for path in workspace.registry.path("versions").iterdir()}
    assert left == {"v0"}
    for version in made.values():
        if version.id != "v0":
            workspace.rebuild(version.id)
            assert weights_sha256(workspace.registry.path(version.path)) == version.sha256
            shutil.rmtree(workspace.registry.path(version.path))
    again = workspace.train(name, options=options)
    assert again.version.id == done.version.id
    assert all(each.again for each in again.phases)


@pytest.mark.parametrize("name", [name for name, recipe in recipes().items() if recipe.step is not None])
def test_every_recipe_with_steps_updates(workspace: Workspace, name: str) -> None:
    first = workspace.update(recipe=name, domains=["big"])
    second = workspace.update(recipe=name, domains=["small"])
    assert [step.spec.provenance.recipe for step in (first, second)] == [name, name]
    step = find_recipe(name).step
    assert step is not None
    for section, values in step.items():
        known = second.spec.provenance.config[section]
        assert {key: known.get(key) for key in values} == dict(values)
    if not step:
        assert second.spec.provenance.config == workspace.config.model_dump(mode="json")
    learned = workspace.versions()[-1]
    assert {window.domain for window in learned.provenance.replay} == (set() if name == "sequential" else {"big"})
    assert learned.provenance.weight == {"sequential": 1.0, "boom": 0.5, "continual": 0.8}[name]


def test_boom_takes_the_step_that_was_published(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, tmp_path, "third", 30, 3, holdout=0.0)
    workspace.config = workspace.config.change({"replay": {"rows": 10}})  # a limit for steps of ours
    versions = []
    for domain in ("big", "small", "third"):
        workspace.update(recipe="boom", domains=[domain])
        versions.append(workspace.versions()[-1])
    for number, version in enumerate(versions):
        before = workspace.versions()[number]
        assert version.provenance.start == "v0"
        update = Adapted(workspace.registry.path("versions/v0"), workspace.registry.path(str(version.adapter)))
        existing, merged = (weights(workspace.registry.path(each.path)) for each in (before, version))
        for key, tensor in merged.items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor, (existing[key] + update.read(key)) / 2, rtol=0, atol=1e-6)
    cores = [{window.domain: window for window in version.provenance.replay} for version in versions]
    assert [{name: window.rows for name, window in core.items()} for core in cores] == [
        {},
        {"big": 24},
        {"big": 24, "small": 8},
    ]
    assert cores[1]["big"] == cores[2]["big"]  # the same rows, by their digest
    config = versions[-1].provenance.config["train"]
    assert config["distillation"] == 0
    assert config["guide_margin"] == "off"


def test_subsets_of_all_rows_are_models_of_several_seeds(workspace: Workspace) -> None:
    from continual.recipes.plan import lay_out

    def layout(ratios: str, seed: int = 0):
        known = {"options": {"ratios": ratios}, "domains": None, "clusters": None, "settings": {}, "seed": seed}
        return lay_out(workspace.registry, workspace.config, find_recipe("boom"), **known).phases

    three = layout("1,1,1")
    assert len({each.key for each in three}) == 4  # three trainings and their merge
    assert len({each.seed for each in three[:3]}) == 3
    assert three[0].seed == 0
    (one,) = (each.key for each in layout("0.5,1")[1:2])
    assert three[0].key == one  # what needs no other seed has none, so that it is not made again
    assert {each.seed for each in layout("0.5,0.5")} == {0}
    assert {each.seed for each in three[1:3]}.isdisjoint(each.seed for each in layout("1,1,1", seed=1))

    folders = []

    def executor(train, jobs):
        folders.extend(job.run_dir for job in jobs)
        return map(train, jobs)

    done = workspace.train("boom", options={"ratios": "1,1"}, executor=executor)
    assert len(set(folders)) == 2  # each has its own checkpoint
    first, second = (workspace.version(each.version) for each in done.phases[:2])
    assert first.provenance.new == second.provenance.new
    assert first.sha256 != second.sha256
    assert [each.again for each in workspace.train("boom", options={"ratios": "1,1"}).phases] == [True] * 3


def test_a_merge_is_that_of_its_phases_by_the_method_that_was_asked_for(workspace: Workspace) -> None:
    done = workspace.train("specialists", options={"method": "linear", "weights": "size"})
    one, two, merged = (weights(workspace.registry.path(f"versions/{each.version}")) for each in done.phases)
    for key, tensor in merged.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.75 * one[key] + 0.25 * two[key], rtol=0, atol=1e-6)


def test_the_search_of_a_merge_is_part_of_its_cost(workspace: Workspace) -> None:
    # 6 and 2 rows are held out, a batch of each domain, and the domains take turns. Each of the 100 steps encodes its
    # batch with a gradient, and once more under what is in service; that, and each of five candidates, is evaluated on
    # all 8 rows.
    plan = workspace.plan_training("phased", options={"matryoshka": "no"})
    done = workspace.train("phased", options={"matryoshka": "no"})
    merged = next(each for each in done.phases if each.name == "merged")
    version = workspace.version(merged.version)
    cost = version.provenance.search_cost
    assert (cost["pairs"], cost["forward_pairs"]) == (50 * 6 + 50 * 2, 50 * 6 + 50 * 2 + 6 * 8)
    assert (plan.search_pairs, plan.search_forward_pairs) == (cost["pairs"], cost["forward_pairs"])
    assert plan.search_seconds > 0
    assert plan.clusters == {"big": ["big"], "small": ["small"]}
    assert min(cost["tokens"], cost["forward_tokens"], cost["seconds"]) > 0
    assert (version.pairs_trained, version.tokens_trained) == (0, 0)  # it trained nothing
    assert (merged.pairs, merged.tokens, merged.seconds) == (cost["pairs"], cost["tokens"], cost["seconds"])
    for name in ("pairs", "tokens", "seconds"):
        total = sum(getattr(each, name) for each in done.phases)
        assert done.version.provenance.cost[name] == getattr(done.cost, name) == pytest.approx(total)
    assert done.cost.forward_pairs == cost["forward_pairs"]
    # No joint training was measured here: its tokens are those of its 80 pairs at what the trainings took for theirs.
    trained = [each for each in done.phases if each.rows]
    pairs, tokens = sum(each.pairs for each in trained), sum(each.tokens for each in trained)
    assert (done.joint.pairs, done.joint.version) == (80, None)
    assert done.joint.tokens == round(80 * tokens / pairs)
    joint = workspace.train("joint")
    again = workspace.train("phased", options={"matryoshka": "no"}).joint
    assert (again.version, again.tokens, again.seconds) == (joint.version.id, joint.cost.tokens, joint.cost.seconds)
    other = workspace.train("sequential", settings={"train": {"max_length": 16}}).joint
    assert other.version is None  # of other settings, that one is no measure


def test_parameters_reach_the_merge_and_are_part_of_its_key(workspace: Workspace) -> None:
    options = {"ratios": "0.5,1", "method": "ties"}
    sparse = workspace.train("boom", options=options, settings={"merge": {"parameters": {"density": 0.2}}})
    assert sparse.version.provenance.parameters == {"density": 0.2}
    dense = workspace.train("boom", options=options, settings={"merge": {"parameters": {"density": 0.9}}})
    assert [each.again for each in dense.phases] == [True, True, False]
    assert dense.version.sha256 != sparse.version.sha256
    plan = workspace.plan_training("boom", options=options, settings={"merge": {"parameters": {"density": 0.2}}})
    assert plan.phases[-1].made == sparse.version.id
    plain = workspace.plan_training("boom", options=options)
    assert [phase.made for phase in plain.phases] == [*(each.version for each in dense.phases[:2]), None]
    workspace.gc()
    workspace.rebuild(sparse.version.id)


def test_phased_training_again_after_a_cluster_changed_trains_that_cluster_alone(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = workspace.train("phased")
    ingest(workspace, tmp_path, "small", 10, 5, holdout=0.0)
    second = workspace.train("phased")
    kept = {each.name for each in second.phases if each.again}
    assert kept == {"warm-up", "learn-big"}
    versions = [{each.name: each.version for each in done.phases} for done in (first, second)]
    assert all(versions[0][name] == versions[1][name] for name in kept)
    assert second.version.id != first.version.id


def test_a_warm_up_is_kept_as_long_as_its_clusters_are(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, tmp_path, "third", 30, 3, holdout=0.0)
    file = tmp_path / "clusters.toml"

    def phases(clusters: str, **call: object) -> dict[str, str | None]:
        file.write_text(f"[clusters]\n{clusters}\n")
        plan = workspace.plan_training("phased", clusters=file, **call)  # type: ignore[arg-type]
        return {phase.name: phase.made for phase in plan.phases}

    file.write_text('[clusters]\nx = ["big", "small"]\ny = ["third"]\n')
    made = {each.name: each.version for each in workspace.train("phased", clusters=file).phases}
    assert phases('x = ["big", "small"]\ny = ["third"]') == made
    # The same names, other clusters; and a domain of the warm-up that is not asked for.
    assert set(phases('x = ["big"]\ny = ["small", "third"]').values()) == {None}
    fewer = phases('x = ["big", "small"]\ny = ["third"]', domains=["big", "third"])
    assert set(fewer.values()) == {None}
    ingest(workspace, tmp_path, "fourth", 30, 4, holdout=0.0)
    grown = phases('x = ["big", "small", "fourth"]\ny = ["third"]')
    assert {name: version for name, version in grown.items() if version} == {
        name: made[name] for name in ("warm-up", "learn-y")
    }


def test_a_phase_that_cannot_be_built_again_is_made_again(workspace: Workspace) -> None:
    done = workspace.train("specialists")
    versions = {each.name: workspace.version(each.version) for each in done.phases}
    for name, version in versions.items():
        shutil.rmtree(workspace.registry.path(version.path))
        if name == "learn-small":
            shutil.rmtree(workspace.registry.path(str(version.adapter)))
    again = workspace.train("specialists")
    assert [each.again for each in again.phases] == [True, False, False]
    assert again.version.sha256 == done.version.sha256


def test_a_damaged_phase_is_not_trained_on_from(workspace: Workspace) -> None:
    first = workspace.train("sequential", domains=["big"])
    (file,) = workspace.registry.path(first.version.path).glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="was damaged or changed"):
        workspace.train("sequential")


def test_one_job_at_a_time_and_the_other_is_named(workspace: Workspace) -> None:
    lock = workspace.registry.root / UPDATE_LOCK
    with exclusive(lock, "train"), pytest.raises(WorkspaceBusy, match="A `continual train` is running"):
        workspace.update()
    with exclusive(lock, "gc"), pytest.raises(WorkspaceBusy, match="A `continual gc` is running"):
        workspace.train("joint")


KILLED = """
import os, signal, sys
from continual import Workspace

class Killer:
    trainings = 0
    def start(self, label, total, unit, done=0):
        self.trainings += label == "training"
        if self.trainings == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    def finish(self): pass
    def advance(self, count): pass

Workspace(sys.argv[1]).train("boom", options={"ratios": "0.5,1"}, progress=Killer())
"""


def test_a_killed_recipe_goes_on_with_the_phase_that_it_was_in(workspace: Workspace, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(workspace.directory)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
    (left,) = workspace.versions()[1:]
    for lost in ("adapters/v9", "versions/v9"):  # published, and not recorded
        workspace.registry.path(lost).mkdir()
    done = workspace.train("boom", options={"ratios": "0.5,1"})
    assert [each.again for each in done.phases] == [True, False, False]
    assert done.phases[0].version == left.id
    assert list(workspace.registry.path("runs").glob("train-*")) == []
    for folder in ("adapters", "versions"):
        assert not workspace.registry.path(f"{folder}/v9").exists()


class Interrupted:
    """A progress bar that is interrupted in its third batch, or else remembers where trainings went on."""

    def __init__(self, *, after: int | None = 3) -> None:
        self.left, self.label, self.began = after, "", list[int]()

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label
        if label == "training":
            self.began.append(done)

    def advance(self, count: int) -> None:
        if self.left is not None and self.label == "training":
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    def finish(self) -> None:
        pass


def test_a_recipe_goes_on_though_another_ran_in_between(workspace: Workspace) -> None:
    def begun() -> list[str]:
        return sorted(path.name for path in workspace.registry.path("runs").glob("train-*"))

    with pytest.raises(KeyboardInterrupt):
        workspace.train("joint", progress=Interrupted())
    (checkpoint,) = begun()
    workspace.train("boom", options={"ratios": "0.5"})
    workspace.update(domains=["big"])
    assert workspace.gc(dry_run=True).checkpoints == 1
    assert begun() == [checkpoint]
    seen = Interrupted(after=None)
    done = workspace.train("joint", progress=seen)
    assert len(seen.began) == 1
    assert seen.began[0] >= 2 * 16  # two batches were done at least
    assert [each.resumed for each in done.phases] == [3]
    assert begun() == []
    workspace.registry.path(f"runs/{checkpoint}").mkdir()  # of one that was killed after it was recorded
    workspace.train("boom", options={"ratios": "0.5"})
    assert begun() == []
    with pytest.raises(KeyboardInterrupt):
        workspace.train("naive", progress=Interrupted())
    assert workspace.gc().checkpoints == len(begun()) + 1 == 1


def test_trainings_can_be_given_to_any_executor(workspace: Workspace, stocked: Path, tmp_path: Path) -> None:
    options = {"ratios": "0.5,1"}
    shutil.copytree(stocked, tmp_path / "other")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        elsewhere = Workspace(tmp_path / "other").train("boom", options=options, executor=pool.map)
    here = workspace.train("boom", options=options)
    assert elsewhere.version.sha256 == here.version.sha256


def test_a_result_can_be_promoted_learned_on_from_and_reported(workspace: Workspace, tmp_path: Path) -> None:
    done = workspace.train("sequential")
    assert workspace.report().versions[-1].id == done.version.id
    workspace.promote(done.version.id)
    with pytest.raises(NothingToDoError, match="has learned all"):
        workspace.update()
    ingest(workspace, tmp_path, "third", 30, 3, holdout=0.2)
    step = workspace.update(replay=0.5)
    assert step.parent.id == done.version.id
    assert {window.domain: window.rows for window in step.spec.provenance.replay} == {"big": 30, "small": 10}
    report = workspace.report()
    assert [(row.id, row.parent) for row in report.versions] == [
        ("v0", None),
        (done.version.id, "v0"),
        (step.version.id, done.version.id),
    ]
    row = report.versions[1]
    assert row.domains == ["big", "small"]
    assert row.pairs_trained == done.pairs == sum(each.pairs for each in done.phases)
    workspace.export(done.version.id, tmp_path / "model")
    assert "big" in (tmp_path / "model/README.md").read_text()
    workspace.export("v1", tmp_path / "phase")  # one that nobody scored


def test_a_joint_version_is_the_report_s_ceiling(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, tmp_path, "third", 40, 3, holdout=0.3)
    joint = workspace.train("joint")
    workspace.update(replay=0.5)
    report = workspace.report(joint=joint.version.id)
    assert report.metrics["intransigence"][-1] == pytest.approx(
        joint.scores[joint.version.id]["third"] - report.versions[-1].scores["third"]
    )
    assert report.versions[-1].verdict != "trained"


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
            "model_stock takes no weights, because it computes them from the models. Leave --option weights=size out.",
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
            "ties: density = 2 is outside",
        ),
        ({"recipe": "joint", "settings": {"trian": {}}}, ConfigError, "Did you mean 'train'"),
        ({"recipe": "joint", "settings": {"train": {"epoch": 1}}}, ConfigError, "train.epoch: unknown setting"),
        ({"recipe": "joint", "domains": ["bog"]}, NotFoundError, "no domain 'bog'"),
        ({"recipe": "joint", "seed": -1}, InputError, "from 0 up"),
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
    with pytest.raises(InputError, match="`continual train --recipe joint` runs it"):
        workspace.update(recipe="joint")
    assert len(workspace.versions()) == 1


def test_joint_keeps_its_batches_apart_where_a_workspace_mixes_them(workspace: Workspace) -> None:
    (workspace.directory / "continual.toml").write_text(SETTINGS.replace("[train]\n", "[train]\nmix_domains = true\n"))
    mixing = Workspace(workspace.directory)
    assert mixing.config.train.mix_domains
    assert not mixing.train("joint").version.provenance.config["train"]["mix_domains"]
    assert mixing.train("naive").version.provenance.config["train"]["mix_domains"]


def test_clusters_that_are_out_of_date_hinder_only_what_goes_by_them(workspace: Workspace) -> None:
    (workspace.directory / "conflicts.toml").write_text('[clusters]\none = ["big"]\n')
    assert workspace.plan_training("joint").pairs == 80
    for call in ({"recipe": "phased"}, {"recipe": "specialists", "options": {"by": "cluster"}}):
        with pytest.raises(ConfigError, match=r"in no cluster: small\. Add each to one"):
            workspace.plan_training(**call)  # type: ignore[arg-type]


def test_the_searched_merge_is_not_worse_than_any_of_eleven_on_the_line(workspace: Workspace) -> None:
    from continual.recipes.rows import read_training_rows
    from continual.train.objective import Objective

    done = workspace.train("phased", settings={"train": {"epochs": 3}})
    versions = {each.name: workspace.version(each.version) for each in done.phases}
    folders = {name: workspace.registry.path(version.path) for name, version in versions.items()}
    rows = read_training_rows(workspace.registry, workspace.registry.batches(), workspace.config.merge.search_rows)
    assert rows.held is not None
    held = rows.held
    assert rows.held_windows == versions["merged"].provenance.held
    config = workspace.config.train
    objective = Objective(folders["warm-up"], held, config)
    one, two = (Objective(folders[name], held, config).parameters() for name in ("learn-big", "learn-small"))
    line = [objective.evaluate({name: one[name].lerp(two[name], step / 10) for name in one}) for step in range(11)]
    search = versions["merged"].provenance.search
    assert search is not None
    assert search.best.losses.keys() == {"big", "small"}
    assert search.best.loss <= min(sum(losses.values()) / 2 for losses in line) + 1e-6
    merged = Objective(folders["merged"], held, config)  # what was searched is what was merged
    assert merged.evaluate(merged.parameters()) == pytest.approx(search.best.losses, abs=1e-5)
