"""`continual merge`: any models, checked against each other, outside a workspace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from continual.cli import app
from continual.errors import (
    ContinualError,
    InputError,
    ModelError,
    NotFoundError,
)
from continual.merge.folders import merge_folders
from continual.merge.methods.regmean import regmean
from continual.models.activations import Texts, input_grams
from continual.models.encoder import load_encoder
from continual.models.weights import weights_sha256
from continual.progress import Silent
from continual.train.lora import fold
from tests.kills import kill_everywhere
from tests.models.zoo import make_model
from tests.weights import make_adapter, moved, task_norm, weights

TEXTS = ["bal cem dis", "fol gum haj"]


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> list[Path]:
    return [moved(tiny_model, tmp_path / name, seed) for seed, name in enumerate(("one", "two", "three"))]


def test_the_result_is_a_model_with_a_card_that_names_its_parents(models: list[Path], tmp_path: Path) -> None:
    out = merge_folders(models[:2], tmp_path / "out", method="linear", weights=[0.25, 0.75])
    one, two = (weights(model) for model in models[:2])
    for name, tensor in weights(out).items():
        expected = 0.25 * one[name].double() + 0.75 * two[name].double()
        np.testing.assert_allclose(tensor.double(), expected, atol=1e-6)
    before, after = (SentenceTransformer(str(path), device="cpu") for path in (models[0], out))
    assert after.prompts == before.prompts
    assert after.max_seq_length == before.max_seq_length
    assert [type(module) for module in after] == [type(module) for module in before]
    np.testing.assert_allclose(np.linalg.norm(after.encode(TEXTS), axis=1), 1, atol=1e-5)
    card = (out / "README.md").read_text()
    assert all(str(model) in card for model in models[:2])
    assert "| 0.25 |" in card
    assert "linear" in card
    from huggingface_hub import ModelCard

    assert ModelCard(card).data.base_model == [str(model) for model in models[:2]]


def test_adapters_are_folded_into_the_base_as_they_are_read(tiny_model: Path, tmp_path: Path) -> None:
    adapters = [make_adapter(tiny_model, tmp_path / f"a{seed}", seed) for seed in range(2)]
    for number, adapter in enumerate(adapters):
        fold(tiny_model, adapter, tmp_path / f"f{number}")
    options = {"method": "ties", "base": tiny_model, "parameters": {"density": 0.3}}
    merge_folders([tmp_path / "f0", tmp_path / "f1"], tmp_path / "folded", **options)
    merge_folders(adapters, tmp_path / "direct", **options)
    assert weights_sha256(tmp_path / "direct") == weights_sha256(tmp_path / "folded")
    with pytest.raises(InputError, match="is an adapter"):
        merge_folders(adapters, tmp_path / "out")


def test_a_single_weight_goes_from_the_base_to_the_model(tiny_model: Path, models: list[Path], tmp_path: Path) -> None:
    for weight, expected in ((0.0, tiny_model), (1.0, models[0])):
        out = merge_folders([models[0]], tmp_path / f"w{weight}", method="wise", base=tiny_model, weights=[weight])
        assert weights_sha256(out) == weights_sha256(expected)
    with pytest.raises(InputError, match="from 0"):
        merge_folders([models[0]], tmp_path / "out", method="wise", base=tiny_model, weights=[1.5])


def test_opcm_merges_any_number_in_their_order(tiny_model: Path, models: list[Path], tmp_path: Path) -> None:
    out = merge_folders(models, tmp_path / "out", method="opcm", base=tiny_model)
    mean = np.mean([task_norm(model, tiny_model) for model in models])
    assert task_norm(out, tiny_model) == pytest.approx(mean, rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_the_card_has_weights_only_where_they_do_something(
    tiny_model: Path, models: list[Path], tmp_path: Path
) -> None:
    for method, roles in (
        ("opcm", ["base", "merged as number 1", "merged as number 2"]),
        ("magmax", ["base", "merged", "merged"]),
        ("ties", ["base", "1", "1"]),
    ):
        card = (merge_folders(models[:2], tmp_path / method, method=method, base=tiny_model) / "README.md").read_text()
        assert ("| parent | weight |" in card) == (method == "ties")
        assert "previous" not in card
        for parent, role in zip([tiny_model, *models[:2]], roles, strict=True):
            assert f"| {parent} | {role} |" in card


def test_what_the_result_does_not_keep_is_said_once(
    tiny_model: Path, models: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    merge_folders([models[0], models[1]], tmp_path / "alike")
    merge_folders([adapter], tmp_path / "ours", base=tiny_model)  # its weights say what it was trained on
    assert not caplog.records
    change_json(models[1] / "config_sentence_transformers.json", prompts={"query": "search: ", "document": ""})
    merge_folders([*models[:2], models[1]], tmp_path / "prompts")
    (record,) = caplog.records
    assert f"{models[1]} has {{'query': 'search: '}}" in record.getMessage()
    caplog.clear()
    factors = load_file(adapter / "adapter_model.safetensors")
    save_file(factors, adapter / "adapter_model.safetensors", {"format": "pt"})  # as peft saves them
    for named, said in (("org/else", 1), (f"org/{tiny_model.name}", 0), (None, 0)):
        change_json(adapter / "adapter_config.json", base_model_name_or_path=named)
        merge_folders([adapter], tmp_path / f"out-{said}-{named is None}", base=tiny_model)
        assert len(caplog.records) == said
        assert all("says that it was trained on org/else" in record.getMessage() for record in caplog.records)
        caplog.clear()


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_that_mean_something_else_are_refused_with_the_difference(models: list[Path], tmp_path: Path) -> None:
    one, other = models[:2]
    pooling = next(path for path in other.iterdir() if path.name.endswith("Pooling"))
    settings = json.loads((pooling / "config.json").read_text())
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[5:7]
    swapped = vocabulary | {first: vocabulary[second], second: vocabulary[first]}
    for file, changes, message in (
        (pooling / "config.json", {"pooling_mode": "cls"}, "pooling_mode: mean and cls"),
        (other / "config.json", {"num_attention_heads": 2}, "num_attention_heads: 4 and 2"),
        (other / "tokenizer.json", {"model": tokenizer["model"] | {"vocab": swapped}}, "tokenizer tokenizer.json"),
    ):
        if "pooling_mode" in changes and "pooling_mode" not in settings:  # as older versions write it
            changes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
            message = "pooling_mode_cls_token: False and True"
        before = file.read_text()
        change_json(file, **changes)
        with pytest.raises(ModelError, match=message):
            merge_folders([one, other], tmp_path / "out")
        file.write_text(before)
    change_json(other / "tokenizer.json", truncation=None, padding=None)  # settings of a call
    merge_folders([one, other], tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_lower_case": False}, "do_lower_case: True and False"),
        ({"strip_accents": True}, "strip_accents: nothing and True"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars: True and False"),
        ({"padding_side": "left"}, "padding_side: right and left"),
        ({"something_new": 3}, "something_new: nothing and 3"),
    ],
)
def test_a_tokenizer_s_setting_that_one_model_lacks_is_its_default(
    models: list[Path], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    settings = json.loads((models[0] / "tokenizer_config.json").read_text())
    lacking = {key: value for key, value in settings.items() if key not in (*changes, "mask_token")}
    (models[0] / "tokenizer_config.json").write_text(json.dumps(lacking))
    change_json(models[1] / "tokenizer_config.json", **changes)
    with pytest.raises(ModelError, match=f"tokenizer_config.json {message}"):
        merge_folders(models[:2], tmp_path / "out")
    defaults = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None, "padding_side": "right"}
    (models[1] / "tokenizer_config.json").write_text(json.dumps(settings | defaults))
    merge_folders(models[:2], tmp_path / "out")


def test_a_type_that_is_not_kept_is_said(
    tiny_model: Path, models: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = merge_folders(models[:1] * 2, tmp_path / "half", dtype="bf16")
    assert not caplog.records
    merge_folders([half, models[1]], tmp_path / "out")
    (record,) = caplog.records
    assert f"different types ({half}: bfloat16; {models[1]}: float32)" in record.getMessage()
    merge_folders([half, models[1]], tmp_path / "chosen", dtype="bf16")
    merge_folders([half, half], tmp_path / "alike")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"hidden_act": "relu"}, r"config\.json hidden_act: gelu and relu"),
        ("config.json", {"layer_norm_eps": 0.1}, r"config\.json layer_norm_eps: 1e-12 and 0\.1"),
        (
            "config.json",
            {"position_embedding_type": "relative_key"},
            "position_embedding_type: absolute and relative_key",
        ),
        ("config.json", {"is_decoder": True}, "is_decoder: False and True"),
        ("config.json", {"something_new": 3}, "something_new: nothing and 3"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, "similarity_fn_name: cosine and dot"),
        ("config_sentence_transformers.json", {"truncate_dim": 16}, "truncate_dim: nothing and 16"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case: False and True"),
        ("sentence_bert_config.json", {"module_output_name": "x"}, "module_output_name: token_embeddings and x"),
        ("tokenizer_config.json", {"do_lower_case": False}, "do_lower_case: True and False"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt: True and False"),
    ],
)
def test_one_changed_setting_that_decides_what_is_computed_is_refused(
    models: list[Path], tmp_path: Path, file: str, changes: dict[str, object], message: str
) -> None:
    change_json(models[1] / file, **changes)
    for order in (models[:2], models[1::-1]):
        with pytest.raises(ModelError, match=message if order == models[:2] else next(iter(changes))):
            merge_folders(order, tmp_path / "out")


def test_the_base_of_the_rotary_positions_must_be_the_same(tmp_path: Path) -> None:
    one = make_model(tmp_path / "one", "qwen3", pooling="lasttoken", num_key_value_heads=2, head_dim=8)
    two = moved(one, tmp_path / "two", 1)
    config = json.loads((two / "config.json").read_text())
    rope = config.get("rope_parameters") or config
    rope["rope_theta"] = 1234.0
    (two / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"rope_theta: .* and 1234"):
        merge_folders([one, two], tmp_path / "out")


def test_settings_that_decide_nothing_may_differ(
    models: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"_name_or_path": "x", "architectures": ["BertForMaskedLM"], "transformers_version": "4.1.0"}
    change_json(models[1] / "config.json", **names, hidden_dropout_prob=0.3, gradient_checkpointing=True)
    change_json(models[1] / "config_sentence_transformers.json", __version__={}, similarity_fn_name=None)
    merge_folders(models[:2], tmp_path / "out")
    assert not caplog.records
    change_json(models[1] / "sentence_bert_config.json", max_seq_length=32)
    merge_folders(models[:2], tmp_path / "other")
    (record,) = caplog.records
    assert "the maximum length 48" in record.getMessage()
    assert f"{models[1]} has 32" in record.getMessage()


def test_models_that_other_versions_of_the_library_saved_match(tiny_model: Path, tmp_path: Path) -> None:
    """As sentence-transformers before 6 wrote them: other words for the pooling, its own folder, a wrapper's name."""
    old = moved(tiny_model, tmp_path / "old", 1)
    pooling = next(path for path in old.iterdir() if path.name.endswith("Pooling"))
    flags = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (pooling / "config.json").write_text(json.dumps(flags))
    place = old / "0_Transformer"
    place.mkdir()
    kept = {"modules.json", "config_sentence_transformers.json", "README.md"}
    for path in [path for path in old.iterdir() if path.is_file() and path.name not in kept]:
        path.rename(place / path.name)
    modules = json.loads((old / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (old / "modules.json").write_text(json.dumps(modules))
    tensors = load_file(place / "model.safetensors")
    save_file(
        {f"bert.{name}": tensor for name, tensor in tensors.items()}, place / "model.safetensors", {"format": "pt"}
    )

    new = moved(tiny_model, tmp_path / "new", 2)
    out = merge_folders([old, new], tmp_path / "out")
    theirs = weights(new)
    for name, tensor in load_file(out / "0_Transformer" / "model.safetensors").items():
        expected = (tensors[name.removeprefix("bert.")].double() + theirs[name.removeprefix("bert.")].double()) / 2
        np.testing.assert_allclose(tensor.double(), expected, atol=1e-6)
    SentenceTransformer(str(out), device="cpu").encode(TEXTS)


def test_a_result_inside_a_model_that_is_merged_is_refused(models: list[Path]) -> None:
    with pytest.raises(InputError, match="lies inside"):
        merge_folders(models[:2], models[0] / "merged")


def test_a_place_that_cannot_be_written_is_named(models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        merge_folders(models[:2], tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "multislurp"}, NotFoundError, "Did you mean 'multislerp'"),
        ({"method": "ties"}, InputError, "Name the base with --base"),
        ({"method": "opcm"}, InputError, "Name the base with --base"),
        ({"method": "slerp", "models": 3}, InputError, "slerp merges 2 models, but 3 were given"),
        (
            {"method": "slerp", "base": True},
            InputError,
            "counts --base as the first, but 2 more were given",
        ),
        ({"names": ["", "x"]}, InputError, "A model name is empty"),
        ({"seed": -1}, InputError, "--seed is -1, but takes an integer of 0 or more"),
        (
            {"method": "opcm", "base": True, "parameters": {"previous": 2.0}},
            InputError,
            "takes the parameters alpha, not 'previous'",
        ),
        ({"weights": [1.0, -1.0]}, InputError, "1, -1 sum to 0"),
        ({"method": "magmax", "base": True, "weights": [1.0, 2.0]}, InputError, "takes no weights"),
        ({"weights": [1.0]}, InputError, "2 models need 2 weights, but --weights has 1"),
        ({"method": "ties", "base": True, "parameters": {"densty": 0.5}}, InputError, "Did you mean 'density'"),
        ({"method": "ties", "base": True, "parameters": {"density": 1.5}}, InputError, "density = 1.5 is out of range"),
        ({"dtype": "fp8"}, InputError, "fp32, fp16, bf16"),
        ({"weights": [float("nan"), 1.0]}, InputError, "finite"),
        ({"base": True}, InputError, "linear uses no base"),
    ],
)
def test_bad_calls_are_refused_before_anything_is_written(
    models: list[Path],
    tiny_model: Path,
    tmp_path: Path,
    options: dict[str, object],
    error: type[ContinualError],
    message: str,
) -> None:
    number = options.pop("models", 2)
    assert isinstance(number, int)
    if options.get("base"):
        options["base"] = tiny_model
    started: list[str] = []

    class Bars(Silent):
        def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
            started.append(label)

    names = options.pop("names", models[:number])
    with pytest.raises(error, match=message):
        merge_folders(names, tmp_path / "out", progress=Bars(), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    assert not started
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="is not empty"):
        merge_folders(models[:2], tmp_path / "full")


def test_the_command(models: list[Path], tmp_path: Path) -> None:
    run = CliRunner()
    words = ["merge", *map(str, models[:2]), "-m", "linear", "--weights", "1,3", "-o", str(tmp_path / "out")]
    done = run.invoke(app, [*words, "--json", "--dtype", "fp16"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sha256"] == weights_sha256(tmp_path / "out")
    assert {str(tensor.dtype) for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        "torch.float16"
    }
    listed = json.loads(run.invoke(app, ["merge", "--list", "--json"]).stdout)
    assert {method["name"] for method in listed} >= {"linear", "ties", "opcm", "karcher"}
    assert "density=0.5" in run.invoke(app, ["merge", "--list"]).stdout
    for bad, message in (
        (["merge", str(models[0])], "continual merge MODEL MODEL --out DIR"),
        ([*words[:-1], str(tmp_path / "x"), "-p", "density"], "NAME=VALUE"),
        ([*words[:-1], str(tmp_path / "x"), "-p", "normalize=1", "-p", "normalize=0"], "-p sets normalize twice"),
        ([*words[:5], "--weights", "a,b", "-o", str(tmp_path / "x")], "numbers with commas"),
    ):
        failed = run.invoke(app, bad)
        assert isinstance(failed.exception, InputError)
        assert message in str(failed.exception)


@pytest.mark.kill
def test_killed_merges_leave_nothing_that_loads(models: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "result" / "out"
    command = ["merge", *map(str, models), "-m", "linear", "-o", str(out)]
    expected = weights_sha256(merge_folders(models, tmp_path / "whole"))

    def whole_or_nothing() -> None:
        visible = [path for path in out.parent.iterdir() if not path.name.startswith(".")]
        assert visible in ([], [out])
        if visible:
            assert weights_sha256(out) == expected

    kill_everywhere(command, whole_or_nothing, lambda: shutil.rmtree(out, ignore_errors=True))
    assert [path.name for path in out.parent.iterdir()] == ["out"]  # what the killed ones left is swept


@pytest.mark.release
@pytest.mark.kill
def test_a_merge_that_is_told_to_stop_leaves_nothing(models: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "result" / "out"
    words = [sys.executable, "-c", STOPPED, "merge", *map(str, models), "-o", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert list(out.parent.iterdir()) == []
    assert "writing weights" not in done.stderr  # they were not


STOPPED = """
import os, signal, sys
from continual.cli import main
from continual.models.tensors import Writer

def stop(*args):
    os.kill(os.getpid(), signal.SIGTERM)

Writer.write = stop
main()
"""


def test_an_adapter_goes_on_the_model_it_was_trained_on_and_no_other(
    tiny_model: Path, models: list[Path], tmp_path: Path
) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    fold(tiny_model, adapter, tmp_path / "folded")
    # The default method takes no base: here the base only says what the adapter belongs to.
    one = merge_folders([adapter, tmp_path / "folded"], tmp_path / "sum", base=tiny_model)
    for name, tensor in weights(tmp_path / "folded").items():
        assert np.abs(weights(one)[name] - tensor).max() < 1e-6
    with pytest.raises(ModelError, match=r"was trained on a model with the weights"):
        merge_folders([adapter], tmp_path / "none", base=models[0], method="task_arithmetic")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "prefix", ["base_model.model.0.auto_model.", "base_model.model.bert.", "base_model.model.model.", ""]
)
def test_the_names_of_wrappers_in_an_adapter_are_understood(tiny_model: Path, tmp_path: Path, prefix: str) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    fold(tiny_model, adapter, tmp_path / "expected")
    file = adapter / "adapter_model.safetensors"
    factors = load_file(file)
    save_file({prefix + name.removeprefix("base_model.model."): t for name, t in factors.items()}, file)
    merge_folders([adapter], tmp_path / "out", base=tiny_model)
    assert weights_sha256(tmp_path / "out") == weights_sha256(tmp_path / "expected")


@pytest.mark.parametrize("prefix", ["vision_model.", "decoder."])
def test_an_adapter_of_another_part_is_not_put_on_the_encoder(tiny_model: Path, tmp_path: Path, prefix: str) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    factors = load_file(file)
    save_file({name.replace(".encoder.", f".{prefix}encoder."): t for name, t in factors.items()}, file)
    with pytest.raises(ModelError, match="no tensor for the layer"):
        merge_folders([adapter], tmp_path / "out", base=tiny_model)


def test_an_adapter_with_two_updates_of_one_layer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    factors = load_file(file)
    again = {name.replace("base_model.model.", "base_model.model.bert."): 2 * t for name, t in factors.items()}
    save_file(factors | again, file)
    with pytest.raises(ModelError, match="has two updates for"):
        merge_folders([adapter], tmp_path / "out", base=tiny_model)


def test_an_adapter_of_the_hub_is_folded(
    tiny_model: Path, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    monkeypatch.setattr("continual.models.base._download", lambda name: {"org/adapter": adapter}[name])
    merge_folders(["org/adapter", models[0]], tmp_path / "out", base=tiny_model)  # linear takes no base
    merge_folders([adapter, models[0]], tmp_path / "expected", base=tiny_model)
    assert weights_sha256(tmp_path / "out") == weights_sha256(tmp_path / "expected")
    with pytest.raises(InputError, match="org/adapter is an adapter"):
        merge_folders(["org/adapter", models[0]], tmp_path / "none")


def test_regmean_merges_by_what_each_model_sees(models: list[Path], tiny_model: Path, tmp_path: Path) -> None:
    texts = [Texts(documents=[text]) for text in TEXTS]
    out = merge_folders(models[:2], tmp_path / "out", method="regmean", weights=[1.0, 0.5], texts=texts)
    encoders = [load_encoder(model, device="cpu") for model in models[:2]]
    grams = [dict(input_grams(encoder, own.tokens(encoder))) for encoder, own in zip(encoders, texts, strict=True)]
    one, two, merged = (weights(folder) for folder in (*models[:2], out))
    linear = 0
    for name, tensor in merged.items():
        layer = f"0.{{}}.{name.removesuffix('.weight')}"
        (full, *_) = [known for known in grams[0] if known.endswith(f".{name.removesuffix('.weight')}")] or [layer]
        own = [known.get(full) if "pooler" not in name else None for known in grams]
        expected = regmean([one[name], two[name]], [1.0, 0.5], own)
        np.testing.assert_allclose(tensor, expected, atol=1e-6, err_msg=name)
        linear += own[0] is not None
    assert linear == 12
    assert "regmean" in (out / "README.md").read_text()


def test_regmean_reads_adapters_and_one_set_of_texts_for_all(tiny_model: Path, tmp_path: Path) -> None:
    adapters = [make_adapter(tiny_model, tmp_path / f"a{seed}", seed) for seed in range(2)]
    for number, adapter in enumerate(adapters):
        fold(tiny_model, adapter, tmp_path / f"f{number}")
    texts = [Texts(queries=TEXTS)]
    folded = merge_folders([tmp_path / "f0", tmp_path / "f1"], tmp_path / "folded", method="regmean", texts=texts)
    direct = merge_folders(adapters, tmp_path / "direct", method="regmean", base=tiny_model, texts=texts)
    assert weights_sha256(direct) == weights_sha256(folded)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_texts_are_asked_for_only_where_they_are_read(models: list[Path], tmp_path: Path) -> None:
    texts = [Texts(queries=TEXTS)]
    with pytest.raises(InputError, match="--texts FILE, once for each model"):
        merge_folders(models, tmp_path / "out", method="regmean")
    with pytest.raises(InputError, match="3 models were given, and --texts 2 times"):
        merge_folders(models, tmp_path / "out", method="regmean", texts=texts * 2)
    with pytest.raises(InputError, match="linear reads no texts"):
        merge_folders(models, tmp_path / "out", texts=texts)
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS))
    names = [str(model) for model in models[:2]]
    call = ["merge", *names, "--method", "regmean", "--texts", str(file), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "texts.txt: 2 documents." in done.output.replace("\n", "")
