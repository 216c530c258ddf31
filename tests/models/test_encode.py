"""Encoding gives the embeddings of sentence-transformers' own `encode`, whatever the batches and the threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from continual.models.encode import encode
from continual.models.encoder import load_encoder
from continual.models.precision import store_for
from continual.models.tokens import Tokens
from tests.models.zoo import make_model
from tests.progress import Count
from tests.rows import WORDS

TEXTS = [" ".join(WORDS[place : place + length]) for place, length in enumerate([1, 30, 7, 60, 2, 3, 4, 9] * 5)]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def encoded(model: Any, prompt: str | None = None, task: str | None = None, max_tokens: int = 128) -> np.ndarray:
    tokens = Tokens(model)
    tokens.add(TEXTS, prompt, task)
    return encode(model, tokens, max_tokens=max_tokens, task=task)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "mpnet", "qwen2"])
def test_embeddings_are_those_of_the_library(kind: str, tmp_path: Path, two_threads: None) -> None:
    more: dict[str, Any] = {"qwen2": {"num_key_value_heads": 2}, "modernbert": {"global_attn_every_n_layers": 2}}
    model = load_encoder(make_model(tmp_path / "m", kind, **more.get(kind, {})), device="cpu")
    if kind == "qwen2":  # with absolute positions, padding on the left would change the embeddings
        model.tokenizer.padding_side = "left"
    expected = model.encode(TEXTS, show_progress_bar=False)
    for max_tokens in (1, 128, 100_000):
        np.testing.assert_allclose(encoded(model, max_tokens=max_tokens), expected, atol=2e-6)


def test_bf16_rounds_matrix_products_only(tiny_model: Path, two_threads: None) -> None:
    model = load_encoder(tiny_model, device="cpu")
    exact = encoded(model)
    store_for(model, "bf16")
    tokens = Tokens(model)
    tokens.add(TEXTS, None, None)
    rounded = encode(model, tokens, max_tokens=128, precision="bf16")
    assert rounded.dtype == np.float32
    assert 1e-5 < np.abs(rounded - exact).max() < 0.02
    kept = {name for name, weight in model.named_parameters() if weight.dtype == torch.float32}
    assert any("LayerNorm" in name for name in kept)
    assert any("embeddings" in name for name in kept)


def test_prompts_and_dimensions_are_the_models(tiny_model: Path, two_threads: None) -> None:
    model = load_encoder(tiny_model, device="cpu")
    model.set_pooling_include_prompt(False)
    model.truncate_dim = 8
    expected = model.encode_query(TEXTS, show_progress_bar=False)
    assert expected.shape == (len(TEXTS), 8)
    np.testing.assert_allclose(encoded(model, "query: ", "query"), expected, atol=1e-6)


def test_the_number_of_threads_changes_no_bit(tiny_model: Path, two_threads: None) -> None:
    model = load_encoder(tiny_model, device="cpu")
    two = encoded(model)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert np.array_equal(encoded(model), two)


def test_threads_share_the_batches_and_count_all_texts(
    tiny_model: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_encoder(tiny_model, device="cpu")
    tokens, progress = Tokens(model), Count()
    tokens.add(TEXTS, None, None)
    meet, cores = threading.Barrier(2, timeout=60), set()
    original, lock = Tokens.features, threading.Lock()
    met: list[str] = []

    def features(self: Tokens, *more: Any) -> Any:
        with lock:
            cores.add(torch.get_num_threads())
            met.append(threading.current_thread().name)
        if len(met) <= 2:
            meet.wait()  # passes only if another thread comes while this one is here
        return original(self, *more)

    monkeypatch.setattr(Tokens, "features", features)
    encode(model, tokens, max_tokens=64, progress=progress)
    assert (len(set(met)), cores, progress.done) == (2, {1}, len(TEXTS))


def test_code_of_others_runs_in_one_thread(tiny_model: Path, two_threads: None) -> None:
    class Stateful(torch.nn.Module):
        """A module such as a model brings with it, which may keep something from call to call."""

        names: set[str] = set()  # noqa: RUF012

        def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
            self.names.add(threading.current_thread().name)
            return features

    model = load_encoder(tiny_model, device="cpu")
    model.append(Stateful())
    encoded(model)
    assert Stateful.names == {threading.current_thread().name}


def test_an_error_in_a_thread_is_raised(tiny_model: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_encoder(tiny_model, device="cpu")

    def features(self: Tokens, *more: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Tokens, "features", features)
    with pytest.raises(MemoryError):
        encoded(model)
    assert torch.get_num_threads() == 2


def test_no_texts(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    assert len(encode(model, Tokens(model), max_tokens=64)) == 0
