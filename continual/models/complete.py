"""Check that a model's folder stores every tensor that the model computes with, and no tensor that is left out.

transformers gives a tensor that is missing random values and only logs it, so two loads give two models. It also drops
a tensor that it doesn't know, such as a layer that the settings don't count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from continual.errors import ModelError
from continual.models.folder import CONFIG, INDEX, read_index, read_json, read_modules, whole_file
from continual.models.tensors import read_header

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor
    from transformers import PreTrainedModel

_NAMED = 3
"""Names of tensors that a message gives; the others are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the names in the weight files and in the model's transformer do not share.

    Attributes:
        missing: Tensors of the transformer that are not stored.
        unknown: Stored tensors of the transformer's own parts that it does not have.
        ignored: Stored tensors beside the transformer, such as the head of a language model.
        renamed: Whether transformers converts the stored tensors, so that matrices have other names once loaded.
    """

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    renamed: bool = False


def stored_names(transformer: Path) -> list[str]:
    """Return the names of the tensors that are loaded from the folder of a transformer."""
    for index in sorted(transformer.glob(INDEX)):
        if not whole_file(index).is_file():
            return sorted(read_index(index))
    return sorted(name for path in transformer.glob("*.safetensors") for name in read_header(path)[0])


def check_complete(model: SentenceTransformer, inner: PreTrainedModel, folder: Path) -> None:
    """Check that a loaded model has its weights from its folder and not from a random generator.

    Only a pooler may be missing, if no embedding depends on it, as in a BERT with mean pooling. Other parts are always
    needed: which ones a text reaches can depend on the text, such as the experts of a mixture.

    Args:
        model: The model, loaded from `folder`.
        inner: Its transformer.
        folder: A sentence-transformers folder.

    Raises:
        ModelError: A tensor is missing or unknown; the message names some.
    """
    found = difference(inner, folder)
    _refuse(folder, found.unknown, "does not have", "stores")
    if found.missing:
        parameters = dict(inner.named_parameters())
        poolers = {name for name in found.missing if name in parameters and "pooler" in name.split(".")}
        unused = poolers.difference(depends_on(model, {name: parameters[name] for name in sorted(poolers)}))
        _refuse(folder, [name for name in found.missing if name not in unused], "needs", "lacks")


def difference(inner: PreTrainedModel, folder: Path) -> Difference:
    """Compare the tensors stored in a model's folder with those of its transformer, which can be without weights.

    Names are compared first. Where they differ, transformers may convert the tensors as it loads them, and is asked
    which ones it then has too few or too many.
    """
    place = folder / read_modules(folder)[0].path
    stored = stored_names(place)
    missing, unknown, ignored = _compare(inner, stored)
    if not unknown or not type(inner).__module__.startswith("transformers."):
        return Difference(missing, unknown, ignored)
    report = _loading_report(inner, place)
    lost = tuple(sorted(report["missing_keys"]))
    _, unknown, ignored = _compare(inner, report["unexpected_keys"])
    matrices = {name for name, tensor in inner.state_dict().items() if tensor.ndim > 1}
    return Difference(lost, unknown, ignored, renamed=bool(matrices & set(missing) - set(lost)))


def has_all_names(folder: Path) -> bool:
    """Return whether the names and shapes stored in a folder are exactly those of its transformer, which is not loaded.

    If not, only loading the model tells whether it is complete: see `check_complete`.
    """
    place = folder / read_modules(folder)[0].path
    inner = _without_weights(place)
    if inner is None:
        return False
    missing, unknown, _ = _compare(inner, stored_names(place))
    return not missing and not unknown and not _other_shapes(inner, place)


def refuse_shapes(folder: Path) -> NoReturn:
    """Refuse a model that transformers doesn't load, because its settings ask for other shapes than are stored.

    Raises:
        ModelError: Always; the message names some tensors with both shapes, if their names are as stored.
    """
    place = folder / read_modules(folder)[0].path
    inner = _without_weights(place)
    shapes = _other_shapes(inner, place) if inner is not None else {}
    some = [f"{name} is {list(stored)}, but {list(asked)} is asked for" for name, (stored, asked) in shapes.items()]
    raise ModelError(
        f"The weights of {folder} do not have the shapes that its {CONFIG} asks for"
        f"{': ' + name_some(some, '; ') if some else ''}. Restore the {CONFIG} that was saved with these weights, for "
        "example its vocab_size, or copy the model again."
    )


def runs_own_code(folder: Path) -> bool:
    """Return whether a class of the model is neither of transformers nor of sentence-transformers."""
    modules = read_modules(folder)
    own_transformer = read_json(folder / modules[0].path / CONFIG, dict).get("auto_map")
    return bool(own_transformer) or not all(module.of_library for module in modules)


def depends_on(model: SentenceTransformer, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the parameters that an embedding depends on, found by its gradient."""
    import torch

    wanted = {name: tensor.requires_grad for name, tensor in tensors.items()}
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    features = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in model.preprocess(["a"]).items()
    }
    with torch.enable_grad():
        total = model(features)["sentence_embedding"].sum()
    reached: Sequence[Any] = ()
    if tensors and total.requires_grad:
        reached = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
    for name, tensor in tensors.items():
        tensor.requires_grad_(wanted[name])
    return [name for name, gradient in zip(tensors, reached, strict=False) if gradient is not None]


def name_some(names: Sequence[str], between: str = ", ") -> str:
    """Return a few names and the number of the others."""
    more = len(names) - _NAMED
    return between.join(sorted(names)[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _without_weights(place: Path) -> PreTrainedModel | None:
    """Return the transformer of a folder without memory for its weights; None if transformers doesn't make it."""
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
            inner: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError, RuntimeError):
        return None
    return inner


def _other_shapes(inner: PreTrainedModel, place: Path) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the stored and the asked shape of the tensors for which these differ, by the stored name."""
    asked = {name: tuple(tensor.shape) for name, tensor in inner.state_dict().items()}
    prefix = f"{inner.base_model_prefix}." if inner.base_model_prefix else ""
    found = {}
    for path in sorted(place.glob("*.safetensors")):
        for name, entry in read_header(path)[0].items():
            wanted = asked.get(name.removeprefix(prefix), entry.shape)
            if wanted != entry.shape:
                found[name] = (entry.shape, wanted)
    return found


def _compare(inner: PreTrainedModel, stored: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the missing, unknown and ignored names, if transformers converts none of them."""
    prefix = f"{inner.base_model_prefix}." if inner.base_model_prefix else ""
    plain = {name: name.removeprefix(prefix) for name in stored}
    has_prefix = any(name != short for name, short in plain.items())
    expected = set(inner.state_dict())
    missing = _without(expected - set(plain.values()), inner._keys_to_ignore_on_load_missing)
    tied: Mapping[str, str] = getattr(inner, "all_tied_weights_keys", None) or {}
    present = set(plain.values())
    for pair in tied.items():  # one of two tied tensors is enough
        if present & set(pair):
            missing -= set(pair)
    unknown = {name for name, short in plain.items() if short not in expected}
    unknown = _without(unknown, inner._keys_to_ignore_on_load_unexpected)
    # Buffers that older versions of transformers stored, and the half of an encoder-decoder that is not used.
    parts = {name for name, _ in inner.named_children()}
    old = [r"(^|\.)position_ids$", r"rotary_emb\.inv_freq$", *([] if "decoder" in parts else [r"^decoder\."])]
    unknown = _without(unknown, old)
    heads = {name for name in unknown if has_prefix and not name.startswith(prefix)}
    return tuple(sorted(missing)), tuple(sorted(unknown - heads)), tuple(sorted(heads))


def _loading_report(inner: PreTrainedModel, place: Path) -> dict[str, Any]:
    """Return what transformers finds missing and unexpected, from a load that reads no weights."""
    import copy

    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # the report is ours
    try:
        _, report = type(inner).from_pretrained(
            str(place),
            config=copy.deepcopy(inner.config),
            device_map="meta",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(level)
    return dict(report)


def _without(names: set[str], patterns: Iterable[str] | None) -> set[str]:
    return {name for name in names if not any(re.search(pattern, name) for pattern in patterns or ())}


def _refuse(folder: Path, names: Sequence[str], model: str, stored: str) -> None:
    if names:
        count = f"{len(names)} tensor{'s' * (len(names) != 1)}"
        why = (
            "They would get random values, so two loads would give two models."
            if stored == "lacks"
            else "They would be dropped, so another model would be loaded than was trained."
        )
        raise ModelError(
            f"{folder} {stored} {count} that its model {model}: {name_some(names)}. {why} Check that its {CONFIG} and "
            "its weights belong together, for example the number of layers, or copy the model again."
        )
