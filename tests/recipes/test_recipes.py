"""Recipes that run: every phase a version, built again bit for bit, and its cost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from continual import Workspace
from continual.errors import NothingToDoError
from continual.merge.sources import Adapted
from continual.models.weights import weights_sha256
from continual.recipes import find_recipe, recipes
from tests.recipes.stock import ingest, weights
from tests.workspaces import SETTINGS

MIXED = {
    "two-stage": [{"big": 60, "small": 20}, {"big": 60, "small": 20, "labels": 24}],
    "specialists by=kind": [{"big": 60, "small": 20}, {"labels": 24}, {}],
    "specialists by=cluster": [{"big": 60, "labels": 24}, {"small": 20}, {}],
}
"""What goes by kinds or clusters, with the rows of its phases where there is a third domain, of classification."""

TRAINED = [name for name, recipe in recipes().items() if recipe.phases is not None and name not in MIXED] + [*MIXED]
FAST = "joint"
"""A single training."""


@pytest.mark.parametrize(
    "call", [pytest.param(call, marks=[] if call == FAST else pytest.mark.slow) for call in TRAINED]
)
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
    cost = done.version.provenance.cost
    assert cost is not None
    assert planned.pairs + searched == done.pairs == cost.pairs
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.release
@pytest.mark.slow
def test_the_search_of_a_merge_is_part_of_its_cost(workspace: Workspace) -> None:
    # 6 and 2 rows are held out, a batch of each domain, and the domains take turns. Each of the 100 steps encodes its
    # batch with a gradient, and once more under the current version; that, and each of five candidates, is evaluated on
    # all 8 rows.
    plan = workspace.plan_training("phased", options={"matryoshka": "no"})
    done = workspace.train("phased", options={"matryoshka": "no"})
    merged = next(each for each in done.phases if each.name == "merged")
    version = workspace.version(merged.version)
    cost = version.provenance.search_cost
    assert (cost.pairs, cost.forward_pairs) == (50 * 6 + 50 * 2, 50 * 6 + 50 * 2 + 6 * 8)
    assert (plan.search_pairs, plan.search_forward_pairs) == (cost.pairs, cost.forward_pairs)
    assert plan.search_seconds > 0
    assert plan.clusters == {"big": ["big"], "small": ["small"]}
    assert min(cost.tokens, cost.forward_tokens, cost.seconds) > 0
    assert (version.pairs_trained, version.tokens_trained) == (0, 0)  # it trained nothing
    assert (merged.pairs, merged.tokens, merged.seconds) == (cost.pairs, cost.tokens, cost.seconds)
    for name in ("pairs", "tokens", "seconds"):
        total = sum(getattr(each, name) for each in done.phases)
        assert getattr(done.version.provenance.cost, name) == getattr(done.cost, name) == pytest.approx(total)
    assert done.cost.forward_pairs == cost.forward_pairs
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


@pytest.mark.slow
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
    # The parameters of continual.toml belong to the rule of updates, not to the merges of a recipe.
    toml = workspace.directory / "continual.toml"
    toml.write_text(toml.read_text() + '\n[merge]\nmethod = "dare_ties"\nparameters = {density = 0.5}\n')
    again = Workspace(workspace.directory).plan_training(
        "boom", options=options, settings={"merge": {"parameters": {"density": 0.2}}}
    )
    assert again.phases[-1].made == sparse.version.id
    lone = {"method": "task_arithmetic", "ratios": "0.5,1"}
    Workspace(workspace.directory).plan_training(
        "boom", options=lone, settings={"merge": {"parameters": {"lambda": 0.5}}}
    )


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_joint_version_is_the_report_s_ceiling(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, tmp_path, "third", 40, 3, holdout=0.3)
    joint = workspace.train("joint")
    workspace.update(replay=0.5)
    report = workspace.report(joint=joint.version.id)
    assert report.metrics["intransigence"][-1] == pytest.approx(
        joint.scores[joint.version.id]["third"] - report.versions[-1].scores["third"]
    )
    assert report.versions[-1].status != "trained"


@pytest.mark.slow
def test_joint_keeps_its_batches_apart_where_a_workspace_mixes_them(workspace: Workspace) -> None:
    (workspace.directory / "continual.toml").write_text(SETTINGS.replace("[train]\n", "[train]\nmix_domains = true\n"))
    mixing = Workspace(workspace.directory)
    assert mixing.config.train.mix_domains
    assert not mixing.train("joint").version.provenance.config["train"]["mix_domains"]
    assert mixing.train("naive").version.provenance.config["train"]["mix_domains"]


@pytest.mark.release
@pytest.mark.slow
def test_the_searched_merge_is_not_worse_than_any_of_eleven_on_the_line(workspace: Workspace) -> None:
    from continual.recipes.rows import read_training_rows
    from continual.train.objective import Objective

    done = workspace.train("phased", settings={"train": {"epochs": 3}})
    versions = {each.name: workspace.version(each.version) for each in done.phases}
    folders = {name: workspace.registry.path(version.path) for name, version in versions.items()}
    rows = read_training_rows(workspace.registry, workspace.registry.batches(), workspace.config.merge.search_rows)
    held = rows.held
    assert held is not None
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
