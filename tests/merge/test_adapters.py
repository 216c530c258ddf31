"""Adapters are folded as peft folds them, for every setting that changes what is computed, or refused by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from continual.errors import ModelError
from continual.merge.adapters import read_adapter
from continual.merge.sources import Adapted
from continual.models.encoder import inner_transformer, load_encoder
from continual.train.lora import fold
from tests.models.zoo import make_model
from tests.weights import weights

LAYERS = ["query", "value", "intermediate.dense"]
RANKS: dict[str, Any] = {"rank_pattern": {"layer.0.attention.self.query": 2, "value": 3}}
ALPHAS: dict[str, Any] = {"alpha_pattern": {"encoder.layer.1.*query": 5, "value": 2.5}}


def adapter_of_peft(model: Path, folder: Path, **settings: Any) -> Path:
    """Save an adapter with random factors through peft."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": LAYERS} | settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(inner_transformer(load_encoder(model, device="cpu")), config)
        torch.manual_seed(0)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape) * 0.1 + ("magnitude" in name)
        adapted.save_pretrained(str(folder))
    return folder


def folded_by_peft(model: Path, adapter: Path) -> dict[str, torch.Tensor]:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = inner_transformer(load_encoder(model, device="cpu"))
        merged = PeftModel.from_pretrained(inner, str(adapter)).merge_and_unload()
    return {name: tensor.detach() for name, tensor in merged.state_dict().items()}


def assert_as_peft(model: Path, adapter: Path, out: Path) -> None:
    fold(model, adapter, out)
    expected, before = folded_by_peft(model, adapter), weights(model)
    changed = 0
    for name, tensor in weights(out).items():
        np.testing.assert_allclose(tensor, expected[name], atol=1e-6)
        changed += not torch.equal(tensor, before[name])
    assert changed


def change_settings(adapter: Path, **changes: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        RANKS,
        ALPHAS,
        RANKS | ALPHAS | {"use_rslora": True, "use_dora": True},
        {"layers_to_transform": [1]},
        {"layers_to_transform": 0, "layers_pattern": "layer"},
        {"exclude_modules": ["layer.0.attention.self.query"]},
        {"target_modules": r".*\.layer\.1\..*(query|key)"},
        {"target_modules": "all-linear"},
        {"init_lora_weights": "orthogonal"},
        {"fan_in_fan_out": True},
        {"fan_in_fan_out": True, "use_dora": True},
    ],
    ids=str,
)
def test_an_adapter_is_folded_as_peft_folds_it(tiny_model: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    adapter = adapter_of_peft(tiny_model, tmp_path / "adapter", **settings)
    change_settings(adapter, **{name: value for name, value in settings.items() if name == "fan_in_fan_out"})
    assert_as_peft(tiny_model, adapter, tmp_path / "out")


@pytest.mark.parametrize("stated", [True, False])
def test_the_layer_decides_what_is_transposed(tmp_path: Path, stated: bool, caplog: pytest.LogCaptureFixture) -> None:
    """GPT-2 has layers of [inputs, outputs], some of them square; peft corrects what the settings say."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 64}
    unused = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"))
    gpt = make_model(tmp_path / "gpt", "gpt2", **sizes, **unused)
    adapter = adapter_of_peft(gpt, tmp_path / "adapter", target_modules=["c_proj", "c_attn"])
    change_settings(adapter, fan_in_fan_out=stated)
    assert_as_peft(gpt, adapter, tmp_path / "out")
    assert ("fan_in_fan_out: false, but the layers" in caplog.text) == (not stated)
    change_settings(adapter, use_dora=True)
    with pytest.raises(ModelError, match=r"it is a DoRA, but .* stores its weights as \[inputs, outputs\]"):
        Adapted(gpt, adapter)


def test_a_setting_that_peft_corrects_is_said(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = adapter_of_peft(tiny_model, tmp_path / "adapter")
    Adapted(tiny_model, adapter)
    assert not caplog.records
    change_settings(adapter, fan_in_fan_out=True)
    Adapted(tiny_model, adapter)
    assert "fan_in_fan_out: true, but the layers" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": ["key"]}, r"does not select encoder\.layer\.0.*target_modules: \['key'\]"),
        ({"target_modules": None}, "target_modules is missing"),
        ({"target_modules": 3}, "does not select layers as peft does"),
        ({"target_modules": "("}, "does not select layers as peft does"),
        ({"exclude_modules": ["query"]}, r"does not select encoder.*query.*exclude_modules: \['query'\]"),
        ({"layers_to_transform": [0]}, r"does not select encoder\.layer\.1.*layers_to_transform: \[0\]"),
    ],
)
def test_factors_that_peft_would_ignore_are_refused(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    adapter = adapter_of_peft(tiny_model, tmp_path / "adapter")
    change_settings(adapter, **changes)
    with pytest.raises(ModelError, match=message):
        Adapted(tiny_model, adapter)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"modules_to_save": ["pooler"]},
        {"trainable_token_indices": [1, 2]},
        {"target_parameters": ["weight"]},
        {"layer_replication": [[0, 2]]},
        {"arrow_config": {"top_k": 3}},
        {"monteclora_config": {"x": 1}},
        {"use_bdlora": {"x": 1}},
        {"alora_invocation_tokens": [1]},
        {"use_qalora": True},
    ],
    ids=str,
)
def test_what_is_more_than_two_factors_is_refused_by_name(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    adapter = adapter_of_peft(tiny_model, tmp_path / "adapter")
    change_settings(adapter, **changes)
    with pytest.raises(ModelError, match=rf"cannot be folded here: .*{next(iter(changes))}"):
        read_adapter(adapter)


def test_biases_beside_the_factors_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    adapter = adapter_of_peft(tiny_model, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    layer = "base_model.model.encoder.layer.0.attention.self.query"
    for name in (f"{layer}.lora_B.bias", f"{layer}.bias"):
        save_file(load_file(file) | {name: torch.ones(32)}, file)
        with pytest.raises(ModelError, match="is not a LoRA factor"):
            Adapted(tiny_model, adapter)
