"""The merge engine: tensors from files to files, against the formula and the safetensors library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from continual.errors import InputError, ModelError, NotFoundError
from continual.merge.engine import merge_models, save_model
from continual.merge.methods import find_method
from continual.merge.rules import check_rule, find_rule
from continual.merge.sequence import merge_next, merge_sequence
from continual.merge.sources import Model
from continual.models.tensors import DTYPES, Writer, read_header
from continual.models.weights import weights_sha256
from tests.weights import moved, shard, task_norm, weights

WISE = find_method("wise")


@pytest.fixture
def update_model(tiny_model: Path, tmp_path: Path) -> Path:
    return moved(tiny_model, tmp_path / "update", seed=1)


@pytest.mark.parametrize("metadata", [None, {"format": "pt", "note": "übung"}])
def test_files_are_the_library_s_byte_for_byte(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    tensors = {
        "b.half": torch.randn(3, 5).half(),
        "a.brain": torch.randn(7).bfloat16(),
        "z.float": torch.randn(2, 2, 2),
        "ids": torch.arange(9)[None],
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(3.5),
        "mask": torch.tensor([True, False]),
        "übung": torch.randn(1, dtype=torch.float64),
    }
    save_file(tensors, tmp_path / "theirs", metadata)
    declared = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with Writer(tmp_path / "ours", declared, metadata) as writer:
        for name in sorted(tensors):
            writer.write(name, tensors[name])
    entries, found = read_header(tmp_path / "theirs")
    assert found == (metadata or {})
    assert all(torch.equal(entries[name].read(), tensor) for name, tensor in tensors.items())
    ours = load_file(tmp_path / "ours")
    assert all(torch.equal(ours[name], tensor) for name, tensor in tensors.items())
    if metadata is None or len(metadata) < 2:  # the library writes metadata in an order of its own
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_every_dtype_is_laid_out_as_the_library_does(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.zeros(2, 3).to(dtype) for dtype in DTYPES.values()}
    save_file(tensors, tmp_path / "theirs")
    with Writer(tmp_path / "ours", {name: (tensor.dtype, (2, 3)) for name, tensor in tensors.items()}) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", b"\xff" * 64, whole[:8] + b"[1]" + whole[11:]):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="cannot be read as safetensors"):
            read_header(path)


def test_merged_folder_is_the_formula_and_keeps_everything_else(
    tiny_model: Path, update_model: Path, tmp_path: Path
) -> None:
    merge_models([Model(tiny_model), Model(update_model)], WISE, tmp_path / "merged", weights=[0.75, 0.25])
    ours, theirs, merged = (weights(folder) for folder in (tiny_model, update_model, tmp_path / "merged"))
    assert ours.keys() == merged.keys()
    for name, tensor in merged.items():
        expected = 0.75 * ours[name].double() + 0.25 * theirs[name].double()
        np.testing.assert_allclose(tensor.double(), expected, atol=1e-6)
        assert tensor.dtype == ours[name].dtype
    for path in tiny_model.rglob("*.json"):
        assert (tmp_path / "merged" / path.relative_to(tiny_model)).read_bytes() == path.read_bytes()


def test_weight_0_is_the_first_and_weight_1_the_second_bit_for_bit(
    tiny_model: Path, update_model: Path, tmp_path: Path
) -> None:
    for weight, expected in ((0.0, tiny_model), (1.0, update_model)):
        models = [Model(tiny_model), Model(update_model)]
        merge_models(models, WISE, tmp_path / "merged", weights=[1 - weight, weight])
        assert weights_sha256(tmp_path / "merged") == weights_sha256(expected)


def test_task_vectors_are_measured_from_the_base(tiny_model: Path, update_model: Path, tmp_path: Path) -> None:
    other = moved(tiny_model, tmp_path / "other", seed=2)
    merge_models(
        [Model(update_model), Model(other)],
        find_method("task_arithmetic"),
        tmp_path / "merged",
        weights=[0.5, 0.25],
        base=Model(tiny_model),
        parameters={"lambda": 2.0},
    )
    base, first, second = (weights(folder) for folder in (tiny_model, update_model, other))
    for name, tensor in weights(tmp_path / "merged").items():
        a, b, origin = (each[name].double() for each in (first, second, base))
        expected = origin + 2 * (0.5 * (a - origin) + 0.25 * (b - origin))
        np.testing.assert_allclose(tensor.double(), expected, atol=1e-5)


def test_shards_do_not_matter_and_are_kept(tiny_model: Path, update_model: Path, tmp_path: Path) -> None:
    sharded = shard(update_model, tmp_path / "sharded")
    linear = find_method("linear")
    merge_models([Model(tiny_model), Model(update_model)], linear, tmp_path / "plain")
    merge_models([Model(sharded), Model(tiny_model)], linear, tmp_path / "merged", dtype=torch.float16)
    files = sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors"))
    assert files == sorted(path.name for path in sharded.glob("*.safetensors"))
    plain, merged = weights(tmp_path / "plain"), {}
    for file in files:
        merged |= load_file(tmp_path / "merged" / file)
    assert merged.keys() == plain.keys()
    for name, tensor in merged.items():
        assert torch.equal(tensor, plain[name].half() if plain[name].is_floating_point() else plain[name])
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in merged.values())
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float16"
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(tmp_path / "merged"), device="cpu").encode(["bat"])


def test_mixed_types_give_the_widest(tiny_model: Path, update_model: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    save_model(Model(update_model), half, torch.bfloat16)
    with safe_open(half / "model.safetensors", "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no mapping
    assert "BF16" in kinds
    assert "F32" not in kinds
    merge_models([Model(half), Model(tiny_model)], WISE, tmp_path / "merged", weights=[0.5, 0.5])
    assert {tensor.dtype for tensor in weights(tmp_path / "merged").values() if tensor.is_floating_point()} == {
        torch.float32
    }


def test_models_that_do_not_match_are_refused_by_tensor(tiny_model: Path, update_model: Path, tmp_path: Path) -> None:
    tensors = weights(update_model)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    for change, message in (
        ({name: tensors[name][:1].clone()}, name),
        ({"extra.weight": torch.ones(1)}, "extra.weight"),
        ({name: tensors[name].long()}, name),
    ):
        save_file(tensors | change, update_model / "model.safetensors")
        with pytest.raises(ModelError, match=message):
            merge_models([Model(tiny_model), Model(update_model)], WISE, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()
    left_out = {key: tensor for key, tensor in tensors.items() if key != name}
    save_file(left_out, update_model / "model.safetensors")
    with pytest.raises(ModelError, match=name):
        merge_models([Model(tiny_model), Model(update_model)], WISE, tmp_path / "merged")


def test_tied_copies_and_integer_buffers_may_be_missing(tiny_model: Path, update_model: Path, tmp_path: Path) -> None:
    tensors = weights(update_model)
    extra = {"head.weight": tensors["embeddings.word_embeddings.weight"].clone(), "ids": torch.arange(3)}
    save_file(tensors | extra, update_model / "model.safetensors", {"format": "pt"})
    merge_models([Model(update_model), Model(tiny_model)], WISE, tmp_path / "merged", weights=[0.5, 0.5])
    assert weights(tmp_path / "merged").keys() == weights(tiny_model).keys()


def test_integers_must_be_equal(tiny_model: Path, update_model: Path, tmp_path: Path) -> None:
    for folder, ids in ((tiny_model, torch.arange(3)), (update_model, torch.arange(3) + 1)):
        copy = tmp_path / f"with-ids-{folder.name}"
        shutil.copytree(folder, copy)
        save_file(weights(folder) | {"ids": ids}, copy / "model.safetensors", {"format": "pt"})
    models = [Model(tmp_path / f"with-ids-{folder.name}") for folder in (tiny_model, update_model)]
    with pytest.raises(ModelError, match="ids holds integers that differ"):
        merge_models(models, WISE, tmp_path / "merged", weights=[0.5, 0.5])
    merge_models([models[0], models[0]], WISE, tmp_path / "merged", weights=[0.5, 0.5])
    assert torch.equal(weights(tmp_path / "merged")["ids"], torch.arange(3))


@pytest.mark.parametrize("method", ["dare_ties", "multislerp", "ties"])
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_workers(
    tiny_model: Path, update_model: Path, tmp_path: Path, method: str
) -> None:
    shas = []
    for run, (workers, seed) in enumerate([(1, 3), (4, 3), (4, 4)]):
        merge_models(
            [Model(update_model), Model(moved(tiny_model, tmp_path / f"other{run}", seed=2))],
            find_method(method),
            tmp_path / f"merged{run}",
            base=Model(tiny_model),
            parameters={"density": 0.5} if "ties" in method else {},
            seed=seed,
            workers=workers,
        )
        shas.append(weights_sha256(tmp_path / f"merged{run}"))
    assert shas[0] == shas[1]
    assert (shas[1] == shas[2]) == (method != "dare_ties")


def test_running_mean_over_steps_is_the_mean_of_all(tiny_model: Path, tmp_path: Path) -> None:
    updates = [moved(tiny_model, tmp_path / f"u{number}", seed=number) for number in range(12)]
    rule, state, current = find_rule("running-mean"), {}, tiny_model
    for number, update in enumerate(updates):
        decision = rule.decide(0.6, state)
        state = merge_next(
            Model(current),
            Model(update),
            Model(tiny_model),
            find_method(rule.method),
            tmp_path / f"m{number}",
            weight=decision.weight,
            parameters={},
            state=decision.state,
            seed=0,
        )
        current = tmp_path / f"m{number}"
    merge_models([Model(update) for update in updates], find_method("linear"), tmp_path / "at-once")
    at_once = weights(tmp_path / "at-once")
    everything = [weights(update) for update in updates]
    for name, tensor in weights(current).items():
        mean = np.mean([each[name].double().numpy() for each in everything], axis=0)
        np.testing.assert_allclose(tensor.double(), mean, atol=1e-6)
        np.testing.assert_allclose(at_once[name].double(), mean, atol=1e-6)


def test_opcm_has_the_mean_norm_of_the_updates_and_goes_on_from_its_state(tiny_model: Path, tmp_path: Path) -> None:
    opcm, keep = find_method("opcm"), {"weight": 0.5, "parameters": {}, "seed": 0}
    updates = [moved(tiny_model, tmp_path / f"u{number}", number, 0.05 * (number + 1)) for number in range(3)]
    state, current = {}, tiny_model
    for number, update in enumerate(updates):
        target = tmp_path / f"m{number}"
        state = merge_next(Model(current), Model(update), Model(tiny_model), opcm, target, state=state, **keep)
        current = target
        norms = [task_norm(each, tiny_model) for each in updates[: number + 1]]
        assert task_norm(current, tiny_model) == pytest.approx(np.mean(norms), rel=1e-5)
        np.testing.assert_allclose(state["norms"], norms, rtol=1e-5)
    assert weights_sha256(tmp_path / "m0") != weights_sha256(tmp_path / "m2")
    merge_sequence([Model(update) for update in updates], Model(tiny_model), opcm, tmp_path / "all", parameters={})
    assert weights_sha256(tmp_path / "all") == weights_sha256(tmp_path / "m2")


@given(st.floats(0, 1))
def test_rules_decide_the_weight(weight: float) -> None:
    assert find_rule("interpolate").decide(weight, {}).weight == weight
    assert find_rule("ties").decide(weight, {}).weight == weight
    assert find_rule("equal").decide(weight, {}).weight == 0.5


def test_rules_and_starts_that_do_not_go_together_are_refused() -> None:
    check_rule("running-mean", "base")
    check_rule("interpolate", "current")
    check_rule("interpolate", "base")
    for name in ("equal", "running-mean", "opcm"):
        with pytest.raises(InputError, match="trained from the root base"):
            check_rule(name, "current")
    with pytest.raises(InputError, match="--from current"):
        check_rule("search", "base")
    with pytest.raises(NotFoundError, match="Did you mean 'interpolate'"):
        find_rule("interpolat")
