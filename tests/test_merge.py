"""Merge rules and the engine, against numpy in float64."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from continual.errors import InputError, ModelError
from continual.merge.engine import merge_models
from continual.merge.methods.interpolate import interpolate
from continual.merge.rules import check_rule, coefficient
from continual.registry.store import weights_sha256


@given(st.floats(0, 1), st.integers(0, 2**31))
def test_interpolation_is_the_formula(weight: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(3, 5, generator=generator), torch.randn(3, 5, generator=generator)
    expected = a.double().numpy() * (1 - weight) + b.double().numpy() * weight
    np.testing.assert_allclose(interpolate(a, b, weight).numpy(), expected, atol=1e-6)
    assert torch.equal(interpolate(a, b, 0.0), a)
    assert torch.equal(interpolate(a, b, 1.0), b)


def test_running_mean_over_steps_is_the_mean_of_all() -> None:
    updates = [torch.randn(4, 4, dtype=torch.float64) for _ in range(12)]
    merged, state = torch.zeros(4, 4, dtype=torch.float64), {}
    for update in updates:
        decision = coefficient("running-mean", 0.6, state)
        merged, state = interpolate(merged, update, decision.weight), decision.state
    np.testing.assert_allclose(merged, np.mean([update.numpy() for update in updates], axis=0), atol=1e-12)


def test_equal_halves_and_interpolate_takes_the_weight() -> None:
    assert coefficient("equal", 0.9, {}).weight == 0.5
    assert coefficient("interpolate", 0.9, {}).weight == 0.9


def test_rules_and_starts_that_do_not_go_together_are_refused() -> None:
    check_rule("running-mean", "base")
    check_rule("interpolate", "current")
    check_rule("interpolate", "base")
    for name in ("equal", "running-mean"):
        with pytest.raises(InputError, match="trained from the root base"):
            check_rule(name, "current")


@pytest.fixture
def update_model(tiny_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "update"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    moved = {name: tensor + 0.1 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_merged_folder_is_the_formula_and_keeps_everything_else(
    tiny_model: Path, update_model: Path, tmp_path: Path
) -> None:
    merge_models(tiny_model, update_model, 0.25, tmp_path / "merged")
    ours, theirs, merged = (
        load_file(folder / "model.safetensors") for folder in (tiny_model, update_model, tmp_path / "merged")
    )
    assert ours.keys() == merged.keys()
    for name, tensor in merged.items():
        expected = 0.75 * ours[name].double() + 0.25 * theirs[name].double()
        np.testing.assert_allclose(tensor.double(), expected, atol=1e-6)
        assert tensor.dtype == ours[name].dtype
    for path in tiny_model.rglob("*.json"):
        assert (tmp_path / "merged" / path.relative_to(tiny_model)).read_bytes() == path.read_bytes()


def test_weight_0_is_current_and_weight_1_the_update_bit_for_bit(
    tiny_model: Path, update_model: Path, tmp_path: Path
) -> None:
    for weight, expected in ((0.0, tiny_model), (1.0, update_model)):
        merge_models(tiny_model, update_model, weight, tmp_path / "merged")
        assert weights_sha256(tmp_path / "merged") == weights_sha256(expected)


def test_models_that_do_not_match_are_refused_by_tensor(tiny_model: Path, update_model: Path, tmp_path: Path) -> None:
    tensors = load_file(update_model / "model.safetensors")
    name = next(iter(tensors))
    for change, message in (
        ({name: tensors[name][:1].clone()}, name),
        ({"extra.weight": torch.zeros(1)}, "extra.weight"),
    ):
        save_file(tensors | change, update_model / "model.safetensors")
        with pytest.raises(ModelError, match=message):
            merge_models(tiny_model, update_model, 0.5, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()
