"""Versions are rebuilt bit for bit, dropped and kept, and compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from continual import Workspace
from continual.errors import (
    DataError,
    InputError,
    ModelError,
    RebuildError,
    WorkspaceBusy,
)
from continual.models.weights import weights_sha256
from continual.versions.diff import group_of
from tests.kills import kill_everywhere
from tests.rows import make_pairs
from tests.workspaces import Once, make_workspace


@pytest.fixture(scope="session")
def made(once: Once, tiny_model: Path) -> Path:
    """A workspace with four steps, each merged by another rule."""
    steps: list[dict[str, object]] = [
        {},
        {"merge": "ties", "settings": {"merge": {"parameters": {"density": 0.4}}}},
        {"merge": "dare_ties", "settings": {"merge": {"parameters": {"density": 0.7}}}, "seed": 5},
        {"merge": 0.3, "start": "base"},
    ]

    def make(folder: Path) -> None:
        workspace = make_workspace(folder / "w", tiny_model)
        for number, options in enumerate(steps):
            learn(workspace, folder, number, replay=0.3, **options)

    return once("four-rules", make) / "w"


def learn(workspace: Workspace, folder: Path, number: int, **options: object) -> None:
    file = folder / f"d{number}.parquet"
    pq.write_table(pa.Table.from_pylist(make_pairs(40, seed=number)), file)
    workspace.ingest(file)
    assert workspace.update(**options).passed  # type: ignore[arg-type]


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made, tmp_path / "w")
    return Workspace(tmp_path / "w")


def snapshots(workspace: Workspace) -> set[str]:
    return {path.name for path in workspace.registry.path("versions").iterdir()}


@pytest.mark.slow
def test_every_version_is_rebuilt_bit_for_bit_from_the_root_and_adapters(workspace: Workspace) -> None:
    for version in workspace.versions()[1:]:
        shutil.rmtree(workspace.registry.path(version.path))
    for version in workspace.versions()[1:]:
        workspace.rebuild(version.id)
        assert weights_sha256(workspace.registry.path(version.path)) == version.sha256
        shutil.rmtree(workspace.registry.path(version.path))
    with pytest.raises(InputError, match="root base"):
        workspace.rebuild("v0")


@pytest.mark.slow
def test_a_sharded_half_precision_base_with_a_dense_module_goes_through_steps_and_rebuilds(
    tiny_model: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense

    made = SentenceTransformer(str(tiny_model), device="cpu")
    transformer, pooling, normalize = made
    torch.manual_seed(1)
    dense = Dense(32, 16, activation_function=torch.nn.Tanh())
    made = SentenceTransformer(modules=[transformer, pooling, dense, normalize], prompts=made.prompts, device="cpu")
    made.half().save_pretrained(str(tmp_path / "base"))
    (tmp_path / "base" / "model.safetensors").unlink()
    made[0].auto_model.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    workspace = make_workspace(tmp_path / "w", tmp_path / "base")
    for number in range(2):
        learn(workspace, tmp_path, number, replay=0.3)
    versions = workspace.versions()
    assert len({version.sha256 for version in versions}) == 3
    for version in versions[1:]:
        shutil.rmtree(workspace.registry.path(version.path))
        workspace.rebuild(version.id)
        assert weights_sha256(workspace.registry.path(version.path)) == version.sha256
    workspace.export("v2", tmp_path / "out", dtype="fp32")
    texts = [str(pair["positive"]) for pair in make_pairs(10, seed=1)]
    found = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts)
    assert found.shape == (10, 16)
    assert np.abs(found - workspace.load("v2").encode(texts)).max() <= 1e-6
    assert np.abs(found - workspace.load("v0").encode(texts)).max() > 1e-3


def test_a_damaged_snapshot_is_mended_and_a_changed_adapter_is_noticed(workspace: Workspace) -> None:
    version = workspace.version("v2")
    weights = workspace.registry.path(version.path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
    workspace.rebuild("v2")
    assert weights_sha256(workspace.registry.path(version.path)) == version.sha256
    factors = workspace.registry.path("adapters/v1/adapter_model.safetensors")
    save_file({name: 2 * tensor for name, tensor in load_file(factors).items()}, factors)
    for name in ("v1", "v2"):
        with pytest.raises(DataError, match="the adapter of v1, was damaged or changed"):
            workspace.rebuild(name)
    with workspace.registry.catalog.transaction() as connection:
        connection.execute("DELETE FROM files WHERE artifact = 'adapters/v1'")  # as a release without digests left it
    with pytest.raises(RebuildError, match="Rebuilding v1 gives weights"):
        workspace.rebuild("v1")
    shutil.rmtree(factors.parent)
    with pytest.raises(ModelError, match="adapter of v1, is missing"):
        workspace.rebuild("v3")


def test_a_cut_snapshot_on_the_way_is_passed_by(workspace: Workspace) -> None:
    weights = workspace.registry.path("versions/v2/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    shutil.rmtree(workspace.registry.path("versions/v3"))
    workspace.load("v3")
    assert weights_sha256(workspace.registry.path("versions/v3")) == workspace.version("v3").sha256


def test_a_damaged_snapshot_is_refused_whatever_it_is_wanted_for(workspace: Workspace, tmp_path: Path) -> None:
    weights = workspace.registry.path("versions/v2/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
    with workspace.registry.catalog.transaction() as connection:
        connection.execute("DELETE FROM scores WHERE version = 'v2'")
    for use in (
        lambda: workspace.load("v2"),
        lambda: workspace.compare_weights("v1", "v2"),
        lambda: workspace.promote("v2"),
        lambda: workspace.export("v2", tmp_path / "out"),
        lambda: workspace.evaluate("v2"),
        lambda: workspace.compare("v1", "v2"),
        lambda: workspace.pin("v2"),
    ):
        with pytest.raises(DataError, match="versions rebuild v2"):
            use()
    root = workspace.registry.path("versions/v0/model.safetensors")
    root.write_bytes(root.read_bytes()[:-4] + b"\0\0\1\0")
    with pytest.raises(DataError, match="It is the root base"):  # from which both are measured
        workspace.compare_weights("v1", "v3")


def test_gc_keeps_what_is_asked_for_and_what_was_dropped_still_works(workspace: Workspace, tmp_path: Path) -> None:
    before = workspace.load("v1").encode(["bal cem"])
    workspace.pin("v3")
    planned = workspace.gc(dry_run=True)
    assert planned.dropped == ["v1", "v2"]
    assert snapshots(workspace) == {"v0", "v1", "v2", "v3", "v4"}
    done = workspace.gc()
    assert done.dropped == ["v1", "v2"]
    assert done.kept == {"v0": "root", "v3": "pinned", "v4": "current"}
    assert done.bytes == planned.bytes > 0
    assert snapshots(workspace) == {"v0", "v3", "v4"}
    assert workspace.gc().dropped == []

    np.testing.assert_array_equal(workspace.load("v1").encode(["bal cem"]), before)
    assert weights_sha256(workspace.export("v2", tmp_path / "out").directory) == workspace.version("v2").sha256
    assert workspace.gc(settings={"store": {"keep_every": 2}}).kept["v2"] == "store.keep_every = 2"
    workspace.pin("v3", pinned=False)
    assert workspace.gc().dropped == ["v2", "v3"]
    workspace.rollback()
    assert workspace.version().id == "v3"
    assert weights_sha256(workspace.registry.path("versions/v3")) == workspace.version().sha256


def test_gc_never_drops_what_it_cannot_build_again(workspace: Workspace) -> None:
    factors = workspace.registry.path("adapters/v2/adapter_model.safetensors")
    save_file({name: 2 * tensor for name, tensor in load_file(factors).items()}, factors)
    done = workspace.gc()
    assert "cannot be rebuilt" in done.kept["v2"]
    assert done.dropped == ["v1", "v3"]


@pytest.mark.slow
def test_an_update_goes_on_after_gc(workspace: Workspace, tmp_path: Path) -> None:
    workspace.gc()
    learn(workspace, tmp_path, 9, replay=0.3)
    version = workspace.version("v5")
    assert version.parent == "v4"
    shutil.rmtree(workspace.registry.path(version.path))
    workspace.rebuild("v5")
    assert weights_sha256(workspace.registry.path(version.path)) == version.sha256


def test_versions_that_were_dropped_are_compared(workspace: Workspace) -> None:
    before = workspace.compare_weights("v1", "v2")
    assert workspace.gc().dropped == ["v1", "v2", "v3"]
    assert workspace.compare_weights("v1", "v2") == before


@pytest.mark.slow
def test_opcm_steps_keep_their_state_and_are_rebuilt(tiny_model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", tiny_model)
    for number in range(2):
        learn(workspace, tmp_path, number, merge="opcm")
    state = workspace.version().provenance.state_next
    assert len(state["norms"]) == 2
    assert state["lambda"] > 0
    assert workspace.version().provenance.start == "v0"
    workspace.rebuild("v2")


@pytest.mark.slow
def test_rollback_walks_back_through_what_was_in_service(workspace: Workspace) -> None:
    workspace.promote("v1")  # by mistake: what was in service before is v4, not v1's parent
    assert workspace.rollback().version == "v4"
    assert [workspace.rollback().version for _ in range(4)] == ["v3", "v2", "v1", "v0"]
    with pytest.raises(InputError, match="nothing to roll back to"):
        workspace.rollback()


def test_diff_measures_task_vectors_and_drift(workspace: Workspace) -> None:
    found = workspace.compare_weights("v1", "v2")
    root, first, second = (
        load_file(workspace.registry.path(f"versions/{name}") / "model.safetensors") for name in ("v0", "v1", "v2")
    )
    groups = {group.group: group for group in found.groups}
    assert list(groups) == [
        "embeddings",
        *(f"layer {n} {part}" for n in (0, 1) for part in ("attention", "feed-forward", "norm")),
        "other",
        "whole model",
    ]
    for name, keys in (
        ("layer 1 attention", [key for key in root if ".layer.1.attention" in key and "LayerNorm" not in key]),
        ("whole model", list(root)),
    ):
        a, b = (
            np.concatenate([(model[key].double() - root[key].double()).numpy().ravel() for key in keys])
            for model in (first, second)
        )
        group = groups[name]
        np.testing.assert_allclose(
            [group.first, group.second, group.change],
            [np.linalg.norm(a), np.linalg.norm(b), np.linalg.norm(b - a)],
            rtol=1e-9,
        )
        angle = np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
        assert group.angle == pytest.approx(angle, abs=1e-6)
    assert groups["embeddings"].first == 0
    assert groups["embeddings"].angle is None
    assert found.drift is not None
    assert found.drift.texts > 100
    assert -1 <= found.drift.least <= found.drift.low <= found.drift.mean < 1
    same = workspace.compare_weights("v1", "v1").drift
    assert same is not None
    assert same.least == pytest.approx(1)


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("encoder.layer.3.attention.self.query.weight", "layer 3 attention"),
        ("encoder.layer.11.output.LayerNorm.bias", "layer 11 norm"),
        ("layers.7.mlp.gate_proj.weight", "layer 7 feed-forward"),
        ("h.2.attn.c_attn.weight", "layer 2 attention"),
        ("embed_tokens.weight", "embeddings"),
        ("2_Dense/linear.weight", "other"),
    ],
)
def test_tensors_are_grouped_by_their_names(key: str, group: str) -> None:
    assert group_of(key) == group


@pytest.mark.kill
def test_killed_rebuilds_leave_nothing_that_loads(workspace: Workspace) -> None:
    version = workspace.version("v2")
    folder = workspace.registry.path(version.path)

    def whole_or_nothing() -> None:
        if folder.exists():
            assert weights_sha256(folder) == version.sha256
        visible = {path.name for path in folder.parent.iterdir() if not path.name.startswith(".")}
        assert visible - {"v2"} == {"v0", "v1", "v3", "v4"}

    kill_everywhere(["versions", "rebuild", "v2", "-w", str(workspace.directory)], whole_or_nothing)
    assert {path.name for path in folder.parent.iterdir()} == {"v0", "v1", "v2", "v3", "v4"}


@pytest.mark.slow
def test_a_seeded_rule_drops_other_elements_at_every_step(tiny_model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", tiny_model)
    settings = {"merge": {"parameters": {"density": 0.5}}}
    for number in range(2):
        learn(workspace, tmp_path, number, merge="dare_linear", settings=settings, replay=0.0)
    root, first, second = (
        load_file(workspace.registry.path(version.path) / "model.safetensors") for version in workspace.versions()
    )
    name = "encoder.layer.0.attention.self.query.weight"
    kept = [first[name] != root[name], second[name] != first[name]]
    assert not kept[0].equal(kept[1])
    workspace.rebuild("v2")


def test_gc_waits_for_those_who_read(workspace: Workspace) -> None:
    from continual.versions.build import kept

    workspace.registry.catalog.busy_seconds = 0.1
    with kept(workspace.registry, "v1") as (folder,):
        with pytest.raises(WorkspaceBusy):
            workspace.gc()
        assert folder.is_dir()
    assert "v1" in workspace.gc().dropped


def test_model_stock_is_no_rule_of_a_stream(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="model_stock cannot be a merge rule"):
        workspace.update(merge="model_stock")


@pytest.mark.slow
def test_parameters_of_the_settings_belong_to_the_rule_of_the_settings(workspace: Workspace, tmp_path: Path) -> None:
    settings = workspace.directory / "continual.toml"
    settings.write_text(settings.read_text() + '[merge]\nmethod = "ties"\nparameters = {density = 0.4}\n')
    workspace = Workspace(workspace.directory)
    learn(workspace, tmp_path, 9)
    assert workspace.version().provenance.parameters == {"density": 0.4}
    learn(workspace, tmp_path, 10, merge=0.5)
    assert workspace.version().provenance.parameters == {}
    with pytest.raises(InputError, match="takes the parameters alpha, not 'previous'"):
        learn(workspace, tmp_path, 11, merge="opcm", settings={"merge": {"parameters": {"previous": 2.0}}})
    with pytest.raises(InputError, match="finds lambda itself"):
        workspace.update(merge="self-positioning", settings={"merge": {"parameters": {"lambda": 2.0}}})
