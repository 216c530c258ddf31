"""Model folders from strangers: no code of theirs runs, and no file outside of the folder is read."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from continual import Workspace
from continual.errors import ModelError
from continual.merge.folders import merge_folders
from continual.models.encoder import load_encoder
from tests.commands import Run
from tests.weights import moved

EVIL = """
from pathlib import Path
from sentence_transformers.models import Dense, Normalize, Pooling

Path(__file__).with_name("ran").touch()
"""


@pytest.fixture
def stranger(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model with a module of code that can be imported from its folder, and from the working directory."""
    model = moved(tiny_model, tmp_path / "stranger", 1)
    (model / "evil.py").write_text(EVIL)
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield model
    ran = list(tmp_path.rglob("ran"))
    for name in ("evil", "stranger.evil", "stranger"):
        sys.modules.pop(name, None)
    assert not ran


def name_class(model: Path, number: int, path: str) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules[number]["type"] = path
    (model / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize("path", ["evil.Normalize", "stranger.evil.Normalize"])
def test_a_module_of_a_stranger_is_never_imported(stranger: Path, tiny_model: Path, tmp_path: Path, path: str) -> None:
    name_class(stranger, 2, path)
    for order in ([tiny_model, stranger], [stranger, tiny_model]):
        with pytest.raises(ModelError, match=rf"module 2: .*{path}"):
            merge_folders(order, tmp_path / "out")
    for call in (lambda: load_encoder(stranger), lambda: Workspace.init(tmp_path / "w", str(stranger))):
        with pytest.raises(ModelError, match="evil"):
            call()
    merge_folders([stranger, stranger], tmp_path / "out")


def test_a_transformer_of_a_stranger_is_another_one(stranger: Path, tiny_model: Path, tmp_path: Path) -> None:
    name_class(stranger, 0, "evil.Transformer")
    with pytest.raises(ModelError, match=r"module 0: Transformer and evil\.Transformer"):
        merge_folders([tiny_model, stranger], tmp_path / "out")


@pytest.mark.parametrize("name", ["sentence_transformers.util.torch", "sentence_transformers.util.misc.importlib"])
def test_a_name_within_the_library_is_loaded_only_if_it_is_a_module(
    stranger: Path, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    name_class(stranger, 2, name)
    with pytest.raises(ModelError, match="module 2: Normalize and "):
        merge_folders([tiny_model, stranger], tmp_path / "out")


def test_a_router_and_an_activation_of_a_stranger_are_not_imported(
    stranger: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense

    encoder = SentenceTransformer(str(tiny_model), device="cpu")
    encoder.append(Dense(32, 16))
    encoder.save_pretrained(str(tmp_path / "dense"))
    other = moved(tmp_path / "dense", tmp_path / "other", 1)
    place = next(other.glob("*Dense"))
    settings = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(settings | {"activation_function": "evil.Normalize"}))
    merge_folders([other, other], tmp_path / "out")
    with pytest.raises(ModelError, match="activation_function"):
        merge_folders([tmp_path / "dense", other], tmp_path / "two")
    modules = json.loads((other / "modules.json").read_text())
    modules[3]["type"] = "sentence_transformers.models.Router"
    (other / "modules.json").write_text(json.dumps(modules))
    router = {"types": {"a": "evil.Dense"}, "structure": {"query": ["a"], "document": ["a"]}, "parameters": {}}
    (place / "router_config.json").write_text(json.dumps(router))
    with pytest.raises(ModelError, match="module 3: Dense and Router"):
        merge_folders([tmp_path / "dense", other], tmp_path / "two")
    with pytest.raises(ModelError):
        load_encoder(other)


def test_a_module_whose_weights_do_not_fit_is_no_traceback(stranger: Path, tiny_model: Path, tmp_path: Path) -> None:
    modules = json.loads((stranger / "modules.json").read_text())
    (stranger / "3_Dense").mkdir()
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (stranger / "modules.json").write_text(json.dumps(modules))
    file = stranger / "3_Dense" / "model.safetensors"
    save_file({"linear.weight": load_file(tiny_model / "model.safetensors")["pooler.dense.weight"]}, file)
    sizes = {"in_features": 32, "out_features": 10**12, "bias": True, "activation_function": "torch.nn.Tanh"}
    (stranger / "3_Dense" / "config.json").write_text(json.dumps(sizes))
    with pytest.raises(ModelError, match="module 3: nothing and Dense"):
        merge_folders([tiny_model, stranger], tmp_path / "out")


def test_the_code_of_a_stranger_s_transformer_and_tokenizer_is_not_run(
    stranger: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for file, change in (
        ("config.json", {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}, "model_type": "evil"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "tokenizer_class": "T"}),
    ):
        model = Path(shutil.copytree(stranger, tmp_path / f"with-{file}"))
        (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | change))
        with suppress(ModelError):
            load_encoder(model)
        merge_folders([model, model], tmp_path / f"out-{file}")


def test_a_link_out_of_the_folder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "secret.txt").write_text("secret")
    for name, target in (
        ("NOTES.txt", tmp_path / "secret" / "secret.txt"),
        ("notes", tmp_path / "secret"),
        ("1_Pooling/NOTES.txt", Path("../../secret/secret.txt")),
        ("loop", model),
        ("gone", tmp_path / "gone"),
    ):
        (model / name).symlink_to(target)
        for call in (
            lambda: Workspace.init(tmp_path / "w", str(model)),
            lambda: merge_folders([model, model], tmp_path / "out"),
            lambda: load_encoder(model),
        ):
            with pytest.raises(ModelError, match=rf"{model / name} is a link to .*`cp -rL"):
                call()
        (model / name).unlink()
    os.mkfifo(model / "config_x.json")
    with pytest.raises(ModelError, match="is neither a file nor a folder"):
        merge_folders([model, model], tmp_path / "out")
    (model / "config_x.json").unlink()
    (model / "copy.md").symlink_to("README.md")
    assert (merge_folders([model, model], tmp_path / "out") / "copy.md").is_file()


def test_the_links_of_the_hub_s_cache_are_followed(tiny_model: Path, tmp_path: Path) -> None:
    """Its files are links from snapshots/REVISION to blobs."""
    cache = tmp_path / "models--org--name"
    snapshot, blobs = cache / "snapshots" / "0123", cache / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(path for path in sorted(tiny_model.rglob("*")) if path.is_file()):
        shutil.copy(file, blobs / str(number))
        link = snapshot / file.relative_to(tiny_model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path("../" * len(link.relative_to(cache).parts[1:])) / "blobs" / str(number))
    out = merge_folders([snapshot, tiny_model], tmp_path / "out")
    assert not any(path.is_symlink() for path in out.rglob("*"))
    (snapshot / "NOTES.txt").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="is a link to"):
        merge_folders([snapshot, tiny_model], tmp_path / "two")


def test_hidden_files_are_left_out_and_the_workspace_is_healthy(tiny_model: Path, tmp_path: Path, run: Run) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (model / "1_Pooling" / ".hidden").write_text("x")
    (model / "._model.safetensors").write_bytes(b"made by a file browser")
    (model / ".cache" / "huggingface").mkdir(parents=True)
    (model / ".cache" / "huggingface" / "model.safetensors").write_bytes(b"x")
    workspace = Workspace.init(tmp_path / "w", str(model))
    assert not list((workspace.directory / ".continual" / "versions" / "v0").rglob(".*"))
    for words in ([], ["--full"]):
        result = run("doctor", "-w", workspace.directory, *words)
        assert result.code == 0, result.out + result.err


def test_a_module_in_a_hidden_folder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "1_Pooling").rename(model / ".pooling")
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["path"] = ".pooling"
    (model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"names \.pooling, a hidden folder"):
        merge_folders([model, model], tmp_path / "out")
