"""Updates that are held back where they would change texts to keep."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from continual.merge.adapters import ADAPTER_PREFIX, read_adapter
from continual.merge.methods.regmean import regmean
from continual.models.activations import Texts, input_grams
from continual.models.encoder import load_encoder
from continual.train.keep import keep_texts, projected
from continual.train.lora import fold, prove_fold
from tests.rows import WORDS
from tests.weights import make_adapter, weights

HALF = len(WORDS) // 2


def sentences(words: list[str], seed: int, count: int = 40) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(words, size=6)) for _ in range(count)]


NEW, KEEP = (Texts(documents=sentences(words, seed)) for seed, words in enumerate((WORDS[:HALF], WORDS[HALF:])))


@pytest.fixture
def update(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    fold(tiny_model, adapter, tmp_path / "trained")
    return adapter, tmp_path / "trained"


def hold(start: Path, update: tuple[Path, Path], weight: float) -> float:
    adapter, trained = update
    return keep_texts(start, trained, adapter, NEW, KEEP, weight, max_length=48)


@pytest.mark.parametrize("weight", [0.1, 1.0, 10.0])
def test_the_projected_update_is_the_merge_by_regmean(weight: float) -> None:
    generator = torch.Generator().manual_seed(3)
    w, a, b = (torch.randn(shape, generator=generator) for shape in ((5, 8), (2, 8), (5, 2)))
    seen = [torch.randn(50, 8, generator=generator).double() * scale for scale in (1.0, 30.0)]
    new, keep = (rows.T @ rows for rows in seen)
    merged = regmean([w + b @ a, w], [1.0, weight], [new, keep])
    np.testing.assert_allclose(w + b @ projected(a, new, keep, weight).float(), merged, atol=1e-5)


def test_the_adapter_of_a_model_is_projected_layer_by_layer(tiny_model: Path, update: tuple[Path, Path]) -> None:
    adapter, trained = update
    before = load_file(adapter / "adapter_model.safetensors")
    learned, start = (load_encoder(folder, device="cpu") for folder in (trained, tiny_model))
    new = dict(input_grams(learned, NEW.tokens(learned)))
    keep = dict(input_grams(start, KEEP.tokens(start)))
    norm = hold(tiny_model, update, 0.5)
    after = load_file(adapter / "adapter_model.safetensors")
    assert after.keys() == before.keys()
    changed, squares = 0, np.zeros(2)
    for name in before:
        if ".lora_B" in name:
            assert torch.equal(after[name], before[name])
            continue
        layer = name.removeprefix(ADAPTER_PREFIX).removesuffix(".lora_A.weight")
        (full,) = [known for known in new if known.endswith(f".{layer}")]
        expected = projected(before[name], new[full], keep[full], 0.5)
        np.testing.assert_allclose(after[name], expected, atol=1e-6)
        b = before[name.replace("lora_A", "lora_B")].double()
        squares += [float((b @ a[name].double()).pow(2).sum()) for a in (after, before)]
        changed += 1
    assert changed == 12
    assert norm == pytest.approx(np.sqrt(squares[0] / squares[1]), rel=1e-6)
    assert read_adapter(adapter).rank == 4  # the settings are as they were


def moved(start: Path, other: Path, texts: Texts) -> float:
    first, second = (
        load_encoder(folder, device="cpu").encode(list(texts.documents), prompt="", show_progress_bar=False)
        for folder in (start, other)
    )
    return float(np.linalg.norm(first - second, axis=1).mean())


def test_texts_to_keep_move_less_at_the_same_move_of_the_new_ones(
    tiny_model: Path, update: tuple[Path, Path], tmp_path: Path
) -> None:
    adapter, trained = update
    factors = load_file(adapter / "adapter_model.safetensors")
    norm = hold(tiny_model, update, 2.0)
    assert 0 < norm < 1
    fold(tiny_model, adapter, tmp_path / "held")
    ratio = moved(tiny_model, tmp_path / "held", KEEP) / moved(tiny_model, tmp_path / "held", NEW)
    assert factors
    assert ratio < 0.8 * moved(tiny_model, trained, KEEP) / moved(tiny_model, trained, NEW)
    prove_fold(tiny_model, adapter, tmp_path / "held", list(NEW.documents[:4]))  # peft reads it as we do


def test_equal_texts_give_equal_bytes_on_any_number_of_cores(
    tiny_model: Path, update: tuple[Path, Path], tmp_path: Path
) -> None:
    adapter, trained = update
    found = []
    for cores in (1, 2):
        copy = Path(shutil.copytree(adapter, tmp_path / f"copy-{cores}"))
        torch.set_num_threads(cores)
        hold(tiny_model, (copy, trained), 1.0)
        found.append((copy / "adapter_model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_a_weight_near_zero_changes_almost_nothing(tiny_model: Path, update: tuple[Path, Path], tmp_path: Path) -> None:
    adapter, trained = update
    assert hold(tiny_model, update, 1e-9) == pytest.approx(1.0, abs=1e-4)
    fold(tiny_model, adapter, tmp_path / "held")
    ours, theirs = weights(tmp_path / "held"), weights(trained)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)
