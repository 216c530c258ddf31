"""The small files of a model folder: what loading needs is checked before a model is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense

from continual import Workspace
from continual.errors import ModelError
from continual.merge.folders import merge_folders
from continual.merge.sources import Model
from continual.models.base import check_model, resolve_base
from continual.models.encoder import load_encoder
from continual.models.weights import weights_sha256
from tests.weights import make_adapter, shard, weights


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model with every kind of file: a dense module, and a setting that only its makers read."""
    encoder = SentenceTransformer(str(tiny_model), device="cpu")
    encoder.append(Dense(32, 16))
    encoder.save_pretrained(str(tmp_path / "model"))
    (tmp_path / "model" / "data_config.json").write_text("[{}]")
    return tmp_path / "model"


def settings_files(model: Path) -> list[Path]:
    found = [path for path in sorted(model.rglob("*.json")) if path.name != "data_config.json"]
    assert len(found) > 6
    return found


def test_every_settings_file_is_checked_before_anything_is_written(
    model: Path, tiny_model: Path, tmp_path: Path
) -> None:
    check_model(model)
    for path in settings_files(model):
        whole = path.read_text()
        for text, message in (('{"broken', "cannot be read as JSON"), ('"text"', "holds a text, but ")):
            path.write_text(text)
            for call in (
                lambda: merge_folders([model, model], tmp_path / "out"),
                lambda: load_encoder(model),
                lambda: Workspace.init(tmp_path / "w", str(model)),
            ):
                with pytest.raises(ModelError, match=f"{path} {message}") as refusal:
                    call()
                assert "save_pretrained" in str(refusal.value)
        path.write_text(whole)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "w").exists()
    merge_folders([model, model], tmp_path / "out")
    SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(["bal"])


def test_a_missing_file_is_called_missing(model: Path, tiny_model: Path, tmp_path: Path) -> None:
    dense = next(model.glob("*Dense"))
    pooling = next(model.glob("*Pooling"))
    for gone, message in (
        (model / "config.json", f"{model / 'config.json'} is missing; it holds the settings of Transformer"),
        (pooling, f"{pooling / 'config.json'} is missing; it holds the settings of Pooling"),
        (dense / "config.json", "is missing; it holds the settings of Dense"),
        (model / "tokenizer.json", f"{model} has no tokenizer: neither tokenizer.json nor a vocabulary"),
        (model / "modules.json", "it has no modules.json"),
    ):
        gone.rename(tmp_path / "away")
        with pytest.raises(ModelError, match=message.replace("(", r"\(")):
            merge_folders([model, model], tmp_path / "out")
        (tmp_path / "away").rename(gone)
    shutil.copytree(tiny_model, tmp_path / "slow")
    vocabulary = json.loads((tmp_path / "slow" / "tokenizer.json").read_text())["model"]["vocab"]
    (tmp_path / "slow" / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    (tmp_path / "slow" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"slow has no tokenizer\.json, but .* has one"):
        merge_folders([tiny_model, tmp_path / "slow"], tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "names no module"),
        ('["a"]', "is not a list of modules with a type and a path"),
        ('[{"type": "sentence_transformers.models.Transformer"}]', "is not a list of modules"),
        ('[{"type": "sentence_transformers.models.Transformer", "path": 3}]', "is not a list of modules"),
        ('[{"type": "sentence_transformers.models.Transformer", "path": "../other"}]', "outside the model's folder"),
        ('[{"type": "sentence_transformers.models.Router", "path": ""}]', "whose first module is a Transformer"),
    ],
)
def test_modules_that_are_none_are_refused(model: Path, text: str, message: str) -> None:
    (model / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        check_model(model)


def test_shards_are_all_that_their_index_names(tiny_model: Path, tmp_path: Path) -> None:
    model = shard(tiny_model, tmp_path / "sharded")
    index = model / "model.safetensors.index.json"
    whole, first = index.read_text(), min(model.glob("model-*"))
    first.rename(tmp_path / "away")
    with pytest.raises(ModelError, match=rf"{model} is missing {first.name}, which {index.name} names"):
        merge_folders([tiny_model, model], tmp_path / "out")
    (tmp_path / "away").rename(first)
    found = json.loads(whole)
    for weight_map in ({}, ["a"], {"a": 3}, None):
        index.write_text(json.dumps(found | {"weight_map": weight_map}))
        with pytest.raises(ModelError, match="is not an index of weight files"):
            Model(model)
    index.write_text(json.dumps(found | {"weight_map": found["weight_map"] | {"extra.weight": first.name}}))
    with pytest.raises(ModelError, match=f"says that the tensor extra.weight is in {first.name}, but it is not there"):
        Model(model)
    index.write_text("{")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        merge_folders([tiny_model, model], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_index_left_beside_a_whole_file_is_passed_by(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    out = merge_folders([model, tiny_model], tmp_path / "out")
    assert not (out / "model.safetensors.index.json").exists()
    SentenceTransformer(str(out), device="cpu").encode(["bal"])


def test_values_that_are_no_numbers_are_refused_by_tensor_and_model(tiny_model: Path, tmp_path: Path) -> None:
    name = "encoder.layer.1.output.dense.weight"
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        for value in (float("nan"), float("inf"), -float("inf")):
            model = tmp_path / f"{dtype}{value}"
            shutil.copytree(tiny_model, model)
            tensors = {key: tensor.to(dtype) for key, tensor in weights(model).items()}
            tensors[name][3, 5] = value
            save_file(tensors, model / "model.safetensors", {"format": "pt"})
            with pytest.raises(ModelError, match=f"{name} of {model} holds values that are infinite or not a number"):
                merge_folders([tiny_model, model], tmp_path / "out")
            assert not (tmp_path / "out").exists()
    tensors = load_file(tiny_model / "model.safetensors") | {name: torch.full((32, 64), 1e38)}  # their sum is infinite
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    merge_folders([model, tiny_model], tmp_path / "out")
    with pytest.raises(ModelError, match=rf"{name} has values up to 5e\+37, too large for torch.float16"):
        merge_folders([model, tiny_model], tmp_path / "half", dtype="fp16")


def test_an_empty_name_is_no_model() -> None:
    with pytest.raises(ModelError, match="is empty"):
        resolve_base("")


def test_weights_without_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="no safetensors"):
        weights_sha256(tmp_path)


def test_an_adapter_is_not_mistaken_for_a_model(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"is a peft adapter, not a full model\. Fold it .*`continual merge"):
        resolve_base(str(adapter))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "org/base"}))
    with pytest.raises(ModelError, match=r"trained on org/base.* --base org/base --out DIR"):
        resolve_base(str(adapter))
    # sentence-transformers saves an adapter among the files of a model
    inside = shutil.copytree(tiny_model, tmp_path / "inside")
    shutil.copy(adapter / "adapter_config.json", inside)
    with pytest.raises(ModelError, match="is a peft adapter"):
        resolve_base(str(inside))
