"""LoRA: where it is put, that peft reads it, and that the fold is what was trained."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from continual.errors import FoldError, ModelError
from continual.models.encoder import inner_transformer, load_encoder
from continual.models.weights import weights_sha256
from continual.train.attention import attend_in_fp32
from continual.train.fused import FusedLora
from continual.train.lora import attach, fold, prove_fold, save_adapter
from tests.weights import make_adapter

TEXTS = ["bal cem dis", "fol gum haj", "kil lom nan per"]


def load_peft(model: Path, adapter: Path):
    """Return peft's own idea of the model with its adapter."""
    from peft import PeftModel
    from transformers import AutoModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(AutoModel.from_pretrained(model), str(adapter))


def test_lora_is_on_every_linear_layer_but_the_pooler(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    before = model.encode(TEXTS)
    parameters = attach(model, 4, 8, seed=0)
    layers = {name.split(".lora_")[0] for name, _ in parameters}
    parts = ["attention.self.query", "attention.self.key", "attention.self.value"]
    parts += ["attention.output.dense", "intermediate.dense", "output.dense"]
    assert layers == {f"encoder.layer.{number}.{part}" for number in range(2) for part in parts}
    assert len(parameters) == 2 * len(layers)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for _, p in parameters}
    np.testing.assert_array_equal(model.encode(TEXTS), before)  # B is zero


def test_start_values_follow_from_the_seed(tiny_model: Path) -> None:
    state = torch.get_rng_state()
    first, again, other = (attach(load_encoder(tiny_model, device="cpu"), 4, 8, seed)[0][1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_fused_layers_compute_what_peft_computes(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    parameters = [parameter for _, parameter in attach(model, 4, 8, seed=0)]
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.1)
    features = model.preprocess(TEXTS)

    def run() -> tuple[torch.Tensor, ...]:
        output = model(dict(features))["sentence_embedding"]
        return output.detach(), *torch.autograd.grad((output[:, :5].sum(1) ** 2).sum(), parameters)

    theirs = run()
    fused = FusedLora(inner_transformer(model))
    ours = run()
    fused.undo()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=2e-6, rtol=1e-4)
    assert torch.equal(run()[0], theirs[0])


def test_fused_layers_are_as_near_to_fp32_in_bf16_as_pefts(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    parameters = [parameter for _, parameter in attach(model, 4, 8, seed=0)]
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.1)
    features = model.preprocess(TEXTS)

    def gradient(dtype: torch.dtype) -> torch.Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            output = model(dict(features))["sentence_embedding"].float()
        found = torch.autograd.grad((output[:, :5].sum(1) ** 2).sum(), parameters)
        assert all(part.dtype == torch.float32 for part in found)
        return torch.cat([part.flatten() for part in found])

    exact, theirs = gradient(torch.float32), gradient(torch.bfloat16)
    FusedLora(inner_transformer(model), torch.bfloat16)
    attend_in_fp32(inner_transformer(model))
    ours = gradient(torch.bfloat16)
    assert not torch.equal(ours, exact)  # it does compute in bf16
    assert (ours - exact).norm() < 1.2 * (theirs - exact).norm()


def test_attention_in_fp32_is_the_models_own(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    before = model.encode(TEXTS)
    attend_in_fp32(inner_transformer(model))
    assert inner_transformer(model).config._attn_implementation != "sdpa"
    assert np.array_equal(model.encode(TEXTS), before)


def test_peft_loads_the_adapter(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    folded = tmp_path / "folded"
    fold(tiny_model, adapter, folded)
    merged = load_peft(tiny_model, adapter).merge_and_unload().state_dict()
    start, ours = load_file(tiny_model / "model.safetensors"), load_file(folded / "model.safetensors")
    assert start.keys() == ours.keys()
    changed = 0
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, merged[name], atol=1e-6, rtol=1e-6)
        changed += not torch.equal(tensor, start[name])
        assert name.endswith("weight") or torch.equal(tensor, start[name])
    assert changed == 12


def test_equal_factors_are_equal_bytes(tiny_model: Path, tmp_path: Path) -> None:
    one, two = (make_adapter(tiny_model, tmp_path / name) for name in ("one", "two"))
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_the_fold_keeps_everything_else(tiny_model: Path, tmp_path: Path) -> None:
    folded = tmp_path / "folded"
    fold(tiny_model, make_adapter(tiny_model, tmp_path / "adapter"), folded)
    files = {path.relative_to(tiny_model) for path in tiny_model.rglob("*") if path.is_file()}
    assert files == {path.relative_to(folded) for path in folded.rglob("*") if path.is_file()}
    for file in files - {Path("model.safetensors")}:
        assert (folded / file).read_bytes() == (tiny_model / file).read_bytes()


def test_the_fold_is_proved(tiny_model: Path, tmp_path: Path) -> None:
    adapter, folded = make_adapter(tiny_model, tmp_path / "adapter"), tmp_path / "folded"
    fold(tiny_model, adapter, folded)
    assert 0 <= prove_fold(tiny_model, adapter, folded, TEXTS) < 1e-5
    with pytest.raises(FoldError, match="embeddings differ"):
        prove_fold(tiny_model, adapter, tiny_model, TEXTS)


def test_an_adapter_that_changes_nothing_is_no_proof(tiny_model: Path, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_model, device="cpu")
    attach(encoder, 4, 8, seed=0)
    save_adapter(encoder, weights_sha256(tiny_model), tmp_path / "adapter")
    fold(tiny_model, tmp_path / "adapter", tmp_path / "folded")
    with pytest.raises(FoldError, match="changes no embedding"):
        prove_fold(tiny_model, tmp_path / "adapter", tmp_path / "folded", TEXTS)


def test_a_half_precision_start_is_folded_in_fp32(tiny_model: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    load_encoder(tiny_model, device="cpu").bfloat16().save_pretrained(str(half))
    adapter, folded = make_adapter(half, tmp_path / "adapter"), tmp_path / "folded"
    fold(half, adapter, folded)
    assert {tensor.dtype for tensor in load_file(folded / "model.safetensors").values()} == {torch.float32}
    assert json.loads((folded / "config.json").read_text())["dtype"] == "float32"
    assert prove_fold(half, adapter, folded, TEXTS) < 1e-5


def test_names_with_the_prefix_of_a_wrapper_are_found(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    prefixed = tmp_path / "prefixed"
    shutil.copytree(tiny_model, prefixed)
    tensors = load_file(prefixed / "model.safetensors")
    save_file(
        {f"bert.{name}": value for name, value in tensors.items()}, prefixed / "model.safetensors", {"format": "pt"}
    )
    adapter, folded = make_adapter(prefixed, tmp_path / "adapter"), tmp_path / "folded"
    fold(prefixed, adapter, folded)
    assert prove_fold(prefixed, adapter, folded, TEXTS) < 1e-5


def test_an_adapter_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    factors = load_file(adapter / "adapter_model.safetensors")
    wide = {name: torch.cat([value, value], 1) if ".lora_A." in name else value for name, value in factors.items()}
    save_file(wide, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="does not belong to"):
        fold(tiny_model, adapter, tmp_path / "folded")
    other = {name.replace("layer.1.", "layer.7."): value for name, value in factors.items()}
    save_file(other, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="no tensor for the layer"):
        fold(tiny_model, adapter, tmp_path / "folded")
    config = json.loads((adapter / "adapter_config.json").read_text())
    save_file(factors | {"base_model.model.pooler.dense.weight": torch.zeros(2)}, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="not a LoRA factor"):
        fold(tiny_model, adapter, tmp_path / "folded")
    embedding = {"base_model.model.embeddings.word_embeddings.lora_embedding_A": torch.zeros(4, 9)}
    save_file(factors | embedding, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="not a LoRA factor of a linear layer"):
        fold(tiny_model, adapter, tmp_path / "folded")
    for change, cause in (
        ({"peft_type": "IA3"}, "peft_type is IA3"),
        ({"init_lora_weights": "pissa_niter_4"}, "its initialisation"),
        ({"bias": "all"}, "biases were trained"),
        ({"modules_to_save": ["pooler"]}, r"modules_to_save: \['pooler'\]"),
        ({"kasa_config": {"beta": 1.0}}, "kasa_config"),
        ({"setting_of_a_later_peft": True}, "setting_of_a_later_peft: True"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=rf"cannot be folded here: .*{cause}.*merge_and_unload"):
            fold(tiny_model, adapter, tmp_path / "folded")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model.safetensors. Copy"):
        fold(tiny_model, adapter, tmp_path / "folded")
    (adapter / "adapter_model.bin").touch()
    with pytest.raises(ModelError, match="pickled adapters are never read"):
        fold(tiny_model, adapter, tmp_path / "folded")
    assert not (tmp_path / "folded").exists()


def test_settings_that_no_adapter_has_are_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"r": None}, "r is missing, but must be a whole number of 1 or more"),
        ({"r": 0}, "r is 0"),
        ({"r": "4"}, "r is '4'"),
        ({"lora_alpha": None}, "lora_alpha is missing, but must be a finite number"),
        ({"rank_pattern": ["query"]}, r"rank_pattern is \['query'\]"),
        ({"rank_pattern": {"query": 0}}, "rank_pattern of query is 0"),
        ({"alpha_pattern": {"(": 3}}, "alpha_pattern is '\\(', but must be names of layers"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=rf"adapter_config\.json: {message}.*Copy the file"):
            fold(tiny_model, adapter, tmp_path / "folded")
    for text, message in (("[]", "holds a list, but an object is expected"), ("{", "cannot be read as JSON")):
        path.write_text(text)
        with pytest.raises(ModelError, match=message):
            fold(tiny_model, adapter, tmp_path / "folded")
    for change in ({"r": 8}, {"rank_pattern": {"query": 2}}):  # peft refuses both
        path.write_text(json.dumps(config | change))
        rank = change.get("r", 2)
        with pytest.raises(ModelError, match=rf"says rank {rank} for encoder.*, but its factors have rank 4"):
            fold(tiny_model, adapter, tmp_path / "folded")
    path.write_text(json.dumps(config))
    factors = load_file(adapter / "adapter_model.safetensors")
    factors[min(factors)][0, 0] = float("nan")
    save_file(factors, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"encoder\.layer\.0.* of .*adapter holds values that are infinite"):
        fold(tiny_model, adapter, tmp_path / "folded")


def test_the_way_out_of_an_adapter_that_cannot_be_folded_here(tiny_model: Path, tmp_path: Path) -> None:
    """What the error message says to do with biases gives peft's model as a folder."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    config = LoraConfig(r=2, target_modules=["query"], bias="lora_only")
    theirs = get_peft_model(AutoModel.from_pretrained(tiny_model), config)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    theirs.save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match="biases were trained") as refusal:
        fold(tiny_model, tmp_path / "adapter", tmp_path / "folded")
    (call,) = re.findall("`(PeftModel.*)`, save", str(refusal.value))
    model = SentenceTransformer(str(tiny_model), device="cpu")
    eval(call, {"PeftModel": PeftModel, "ADAPTER": str(tmp_path / "adapter"), "model": model})
    model.save_pretrained(str(tmp_path / "folded"))
    expected = theirs.merge_and_unload().state_dict()
    found = load_file(tmp_path / "folded" / "model.safetensors")
    assert found.keys() == load_file(tiny_model / "model.safetensors").keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True},
        {"rank_pattern": {"query": 2, r"layer\.0\..*\.key": 3}, "alpha_pattern": {"value": 32}},
    ],
    ids=["rslora", "dora", "dora and rslora", "patterns"],
)
def test_adapters_of_peft_are_folded_as_peft_folds_them(
    tiny_model: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(0)
    targets = ["query", "key", "value", "dense"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, exclude_modules=["pooler.dense"], **options)
    model = get_peft_model(AutoModel.from_pretrained(tiny_model), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(str(tmp_path / "adapter"))
    fold(tiny_model, tmp_path / "adapter", tmp_path / "folded")
    assert prove_fold(tiny_model, tmp_path / "adapter", tmp_path / "folded", TEXTS) < 1e-5
    theirs = model.merge_and_unload().state_dict()
    start = load_file(tiny_model / "model.safetensors")
    for name, tensor in load_file(tmp_path / "folded" / "model.safetensors").items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=1e-5)
        assert torch.equal(tensor, start[name]) == (theirs[name].equal(start[name]))
