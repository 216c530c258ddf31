"""What linear layers get as inputs, against hooks on one text at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from continual.models.activations import Texts, input_grams, linear_layers
from continual.models.encoder import load_encoder
from tests.models.zoo import make_model

TEXTS = Texts(
    queries=["bal cem dis", "fol gum haj kil lom nan"],
    documents=["per bal", "cem dis fol gum haj kil lom nan per bal cem dis", "kil"],
)


def one_by_one(model, prompted: list[str]) -> dict[str, np.ndarray]:
    """Return X' X of each layer in float64, from texts without padding."""
    seen: dict[str, list[np.ndarray]] = {name: [] for name in linear_layers(model)}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, given, name=name: seen[name].append(given[0].detach().reshape(-1, given[0].shape[-1]).numpy())
        )
        for name, layer in linear_layers(model).items()
    ]
    with torch.no_grad():
        for text in prompted:
            model(model.preprocess([text]))
    for handle in handles:
        handle.remove()
    rows = {name: np.concatenate(parts).astype(np.float64) for name, parts in seen.items()}
    return {name: found.T @ found for name, found in rows.items()}


def test_every_layer_s_matrix_is_that_of_its_inputs_without_padding(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    expected = one_by_one(model, [*(f"query: {text}" for text in TEXTS.queries), *TEXTS.documents])
    found = dict(input_grams(model, TEXTS.tokens(model)))
    assert list(found) == list(linear_layers(model))
    for name, gram in found.items():
        assert gram.dtype == torch.float64
        np.testing.assert_allclose(gram.numpy(), expected[name], rtol=1e-4, atol=1e-3, err_msg=name)


def test_texts_with_their_prompt_get_no_other(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    asked, prompted = Texts(queries=["bal cem"]), Texts(prompted=["query: bal cem"])
    first, second = (dict(input_grams(model, texts.tokens(model))) for texts in (asked, prompted))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(asked) == len(prompted) == 1


def test_layers_can_be_chosen_and_computed_in_parts(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    tokens = TEXTS.tokens(model)
    whole = dict(input_grams(model, tokens))
    some = list(whole)[2:5]
    assert list(dict(input_grams(model, tokens, some))) == some
    parts = dict(input_grams(model, tokens, memory=1))  # a pass for every layer
    assert list(parts) == list(whole)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_the_number_of_cores_changes_no_bit(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    many = Texts(documents=[f"{word} " * length for word in ("bal", "cem", "dis") for length in range(1, 200, 7)])
    threads = torch.get_num_threads()
    try:
        found = []
        for cores in (1, 2):
            torch.set_num_threads(cores)
            found.append(dict(input_grams(model, many.tokens(model))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_padding_on_the_left_and_a_layer_after_pooling(tmp_path: Path) -> None:
    from sentence_transformers.models import Dense

    model = load_encoder(make_model(tmp_path, "llama", num_key_value_heads=4), device="cpu")
    model.tokenizer.padding_side = "left"
    model.append(Dense(32, 16, activation_function=torch.nn.Identity()))
    texts = Texts(documents=TEXTS.documents)
    expected = one_by_one(model, list(texts.documents))
    found = dict(input_grams(model, texts.tokens(model)))
    assert "2.linear" in found
    for name, gram in found.items():
        np.testing.assert_allclose(gram.numpy(), expected[name], rtol=1e-3, atol=1e-3, err_msg=name)
