"""A model folder stores what the model computes with: nothing is random, and nothing is dropped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from continual import Workspace
from continual.errors import ModelError
from continual.merge.folders import merge_folders
from continual.models.complete import check_complete, has_all_names
from continual.models.encoder import inner_transformer, load_encoder

Tensors = dict[str, torch.Tensor]


def changed(source: Path, target: Path, change: Callable[[Tensors], Tensors], **settings: object) -> Path:
    """Copy a model, change its tensors, and set keys of its config.json."""
    shutil.copytree(source, target)
    file, config = target / "model.safetensors", target / "config.json"
    save_file(change(load_file(file)), file, {"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    return target


def renamed(tensors: Tensors) -> Tensors:
    return {name.replace("layer.0.output.dense.weight", "layer.0.out.weight"): t for name, t in tensors.items()}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (dict, {"num_hidden_layers": 3}, r"lacks 16 tensors .*: encoder\.layer\.2\..* and 13 more"),
        (dict, {"num_hidden_layers": 1}, r"stores 16 tensors .*: encoder\.layer\.1\..* and 13 more"),
        (renamed, {}, r"encoder\.layer\.0\.out"),
        (lambda t: {n: v for n, v in t.items() if "word_embeddings" not in n}, {}, r"lacks 1 tensor .*word_embeddings"),
    ],
)
def test_a_model_that_would_be_partly_random_is_refused_everywhere(
    tiny_model: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], settings: dict[str, object], message: str
) -> None:
    broken = changed(tiny_model, tmp_path / "broken", change, **settings)
    with pytest.raises(ModelError, match=message):
        load_encoder(broken, device="cpu")
    with pytest.raises(ModelError, match=message):
        Workspace.init(tmp_path / "w", str(broken))
    assert not (tmp_path / "w").exists()
    for models in ([broken, broken], [tiny_model, broken]):
        with pytest.raises(ModelError):
            merge_folders(models, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match=message):
        merge_folders([broken, broken], tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {n: v for n, v in t.items() if not n.startswith("pooler.")},
        lambda t: {f"bert.{n}": v for n, v in t.items()},
        lambda t: t | {"embeddings.position_ids": torch.arange(64)[None]},
        lambda t: {n.replace("LayerNorm.weight", "LayerNorm.gamma"): v for n, v in t.items()},
    ],
    ids=["no-pooler", "prefix", "position-ids", "gamma"],
)
def test_what_changes_nothing_is_accepted(
    tiny_model: Path, tmp_path: Path, change: Callable[[Tensors], Tensors]
) -> None:
    other = changed(tiny_model, tmp_path / "other", change)
    texts = ["bal cem", "fol gum haj"]
    expected = load_encoder(tiny_model, device="cpu").encode(texts)
    np.testing.assert_array_equal(load_encoder(other, device="cpu").encode(texts), expected)
    merge_folders([other, other], tmp_path / "out")


def test_a_missing_pooler_is_refused_if_the_embedding_is_its_output(tiny_model: Path, tmp_path: Path) -> None:
    model = changed(tiny_model, tmp_path / "m", lambda t: {n: v for n, v in t.items() if not n.startswith("pooler.")})
    settings = json.loads((model / "sentence_bert_config.json").read_text())
    settings["modality_config"]["text"]["method_output_name"] = "pooler_output"
    settings["module_output_name"] = "sentence_embedding"
    (model / "sentence_bert_config.json").write_text(json.dumps(settings))
    modules = json.loads((model / "modules.json").read_text())
    (model / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(ModelError, match=r"pooler\.dense"):
        load_encoder(model, device="cpu")


def test_names_are_compared_without_loading_weights(tiny_model: Path) -> None:
    assert has_all_names(tiny_model)


def test_a_dense_module_whose_weights_do_not_fit_is_named(tiny_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense

    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.append(Dense(32, 16))
    model.save_pretrained(str(tmp_path / "dense"))
    file = next((tmp_path / "dense").glob("*_Dense/model.safetensors"))
    save_file({"linear.weight": load_file(file)["linear.weight"]}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"linear\.bias"):
        load_encoder(tmp_path / "dense", device="cpu")


def test_what_only_some_texts_reach_may_not_be_missing(tiny_model: Path, tmp_path: Path) -> None:
    """As an expert of a mixture that a short text is not routed to."""
    model = load_encoder(tiny_model, device="cpu")
    inner = inner_transformer(model)
    expert = inner.encoder.layer[1]
    whole = expert.forward
    expert.forward = lambda hidden, *rest, **named: whole(hidden, *rest, **named) if hidden.shape[1] > 3 else hidden
    broken = changed(tiny_model, tmp_path / "m", lambda t: {n: v for n, v in t.items() if ".layer.1." not in n})
    with pytest.raises(ModelError, match=r"lacks 16 tensors that its model needs: encoder\.layer\.1\."):
        check_complete(model, inner, broken)


def test_weights_of_other_shapes_than_the_settings_say_are_named(tiny_model: Path, tmp_path: Path) -> None:
    broken = changed(tiny_model, tmp_path / "broken", dict, vocab_size=300)
    rows = load_file(tiny_model / "model.safetensors")["embeddings.word_embeddings.weight"].shape[0]
    for call in (
        lambda: load_encoder(broken, device="cpu"),
        lambda: Workspace.init(tmp_path / "w", str(broken)),
        lambda: merge_folders([broken, broken], tmp_path / "out"),
    ):
        with pytest.raises(ModelError, match=rf"embeddings is \[{rows}, 32\], but \[300, 32\]".replace(" is", ".* is")):
            call()
    assert not (tmp_path / "out").exists()
