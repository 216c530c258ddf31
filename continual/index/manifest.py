"""What filled an index: the manifest that lies with its vectors, and whether a model's queries may ask it.

Importing this module loads neither torch nor a model, so an application can check at its start.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from continual.errors import DataError, InputError, SchemaError

SCHEMA = 1
UNLIMITED = 1e9
"""Lengths from here on are tokenizers' way to say that there is no limit."""

NAME = "continual"
"""Key of the manifest in the metadata of a store."""


@dataclass(frozen=True)
class Encoding:
    """All that decides a text's vector.

    Attributes:
        sha256: Digest of the model's weights; see `continual.models.weights`.
        dimension: Dimensions of a vector.
        similarity: "cosine" or "dot".
        normalised: Whether vectors have norm 1.
        document_prompt: Put before each document; None: nothing is.
        max_length: Tokens at which texts are cut.
    """

    sha256: str
    dimension: int
    similarity: str
    normalised: bool
    document_prompt: str | None
    max_length: int | None


@dataclass(frozen=True)
class Manifest:
    """The record of an index.

    Attributes:
        version: Id of the version that embedded the texts.
        encoding: All that decides a text's vector.
        query_prompt: What the version puts before each query; None: nothing.
        dtype: Type of the stored numbers, such as "float32".
        count: Number of vectors.
        created: When it was filled last, ISO 8601, UTC.
    """

    version: str
    encoding: Encoding
    query_prompt: str | None
    dtype: str
    count: int
    created: str

    def to_json(self) -> str:
        """Return the manifest as one line of JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Manifest:
        """Return the manifest that `to_json` wrote.

        Raises:
            SchemaError: A newer `continual` wrote it.
            DataError: It is damaged.
        """
        try:
            data = json.loads(text)
            schema = data.pop("schema")
            if schema > SCHEMA:
                raise SchemaError(f"{source} has a manifest of schema {schema}, but this continual reads {SCHEMA}.")
            return cls(**(data | {"encoding": Encoding(**data["encoding"])}))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"The manifest of {source} is damaged. Fill the index again.") from None


def describe(folder: str | Path) -> tuple[Encoding, str | None]:
    """Return how the model in a folder embeds documents, and the prompt of its queries. It is not loaded.

    Raises:
        ModelError: The folder is no sentence-transformers model.
    """
    from continual.models.folder import LIBRARY, read_json, read_modules
    from continual.models.weights import weights_sha256

    folder = Path(folder)
    modules = read_modules(folder)
    library: dict[str, Any] = read_json(folder / LIBRARY, dict) if (folder / LIBRARY).is_file() else {}
    prompts: dict[str, str] = library.get("prompts") or {}
    default = prompts.get(library.get("default_prompt_name") or "")
    document = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), default)
    kinds = [module.class_name for module in modules]
    truncated = library.get("truncate_dim")
    encoding = Encoding(
        sha256=weights_sha256(folder),
        dimension=int(truncated or _width(folder, modules)),
        similarity=str(library.get("similarity_fn_name") or "cosine"),
        normalised=kinds[-1] == "Normalize" and not truncated,
        document_prompt=document or None,
        max_length=_max_length(folder, modules),
    )
    return encoding, prompts.get("query", default) or None


def differences(manifest: Manifest, encoding: Encoding) -> list[str]:
    """Return what differs between how an index was filled and how a model embeds, in words; empty if nothing does."""
    stored = asdict(manifest.encoding)
    names = {
        "sha256": "the weights",
        "dimension": "the dimensions",
        "similarity": "the similarity",
        "normalised": "the normalisation",
        "document_prompt": "the prompt of documents",
        "max_length": "the maximum length",
    }
    said = []
    for name, value in asdict(encoding).items():
        if stored[name] != value:
            shown = [repr(each[:12]) if name == "sha256" else repr(each) for each in (stored[name], value)]
            said.append(f"{names[name]} ({shown[0]} in the index, {shown[1]} of the model)")
    return said


def require(manifest: Manifest, model: str | Path) -> None:
    """Check that queries of a model may ask an index: that it was filled by the same model with the same settings.

    Args:
        manifest: Of the index.
        model: Folder of the model that the application loads.

    Raises:
        InputError: It was filled otherwise; the message says what differs.
    """
    found = differences(manifest, describe(model)[0])
    if found:
        raise InputError(
            f"The index was filled by {manifest.version}, and {model} embeds texts otherwise: {'; '.join(found)}. Its "
            "queries would be compared with vectors of another space. Load the model that filled it, or fill it again "
            "with `continual index fill`."
        )


def _width(folder: Path, modules: Any) -> int:
    """Return the dimensions of a model's embeddings, from its settings."""
    from continual.errors import ModelError
    from continual.models.folder import CONFIG, read_json

    width = None
    for module in modules:
        settings = folder / module.path / CONFIG
        if not settings.is_file():
            continue
        data = read_json(settings, dict)
        if module.class_name == "Dense":
            width = data.get("out_features")
        elif module.class_name == "Pooling":
            own = data.get("word_embedding_dimension") or data.get("embedding_dimension") or width
            mode = data.get("pooling_mode")
            modes = sum(value is True for name, value in data.items() if name.startswith("pooling_mode_"))
            width = own * (len(mode) if isinstance(mode, list) else max(1, modes)) if own else None
        else:
            width = data.get("hidden_size") or data.get("d_model") or data.get("dim") or width
    if not isinstance(width, int):
        raise ModelError(f"The settings of {folder} don't say how many dimensions its embeddings have.")
    return width


def _max_length(folder: Path, modules: Any) -> int | None:
    """Return the number of tokens at which a model cuts texts, as stored; releases store it in two places."""
    from continual.models.folder import read_json

    place = folder / modules[0].path
    for path, key in (
        *((file, "max_seq_length") for file in sorted(place.glob("sentence_*_config.json"))),
        (place / "tokenizer_config.json", "model_max_length"),
    ):
        value = read_json(path, dict).get(key) if path.is_file() else None
        if isinstance(value, int | float) and value < UNLIMITED:
            return int(value)
    return None
