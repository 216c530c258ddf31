"""Load sentence-transformers models in fp32 from safetensors, and access the parts that training needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import LogRecord
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.errors import ModelError
from continual.models.base import resolve_base
from continual.models.complete import check_complete, refuse_shapes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the order in which encode_document looks


def load_encoder(
    path: str | Path, *, trust_remote_code: bool = False, device: str | None = None
) -> SentenceTransformer:
    """Load a sentence-transformers model in fp32, from safetensors only.

    Args:
        path: A folder, a Hub id, or "packaged".
        trust_remote_code: Whether to run Python code that comes with the model.
        device: For example "cpu" or "cuda:1"; None: CUDA if available, otherwise the CPU.

    Raises:
        ModelError: The model cannot be found, is not a sentence-transformers model, or cannot be loaded; or its folder
            lacks a tensor that it computes with.
    """
    folder = resolve_base(str(path))
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with quiet():
            model = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                model_kwargs={"dtype": torch.float32, "use_safetensors": True},
            )
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError, RuntimeError, SafetensorError) as e:
        if "ignore_mismatched_sizes" in str(e):
            refuse_shapes(folder)
        # torch names the tensors of a module that do not fit in the lines after the first.
        lines = [line.strip() for line in str(e).strip().splitlines()] or [type(e).__name__]
        reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise ModelError(
            f"{path} cannot be loaded as a sentence-transformers model: {reason.rstrip('.')}. Check that "
            "`SentenceTransformer(PATH)` loads it, or choose another model."
        ) from e
    model = model.float().eval()  # Dense modules are loaded in their stored type
    if isinstance(inner := getattr(model[0], "auto_model", None), PreTrainedModel):
        check_complete(model, inner, folder)
    return model


def inner_transformer(model: SentenceTransformer) -> PreTrainedModel:
    """Return the Hugging Face model inside the first module: the part that is trained.

    Raises:
        ModelError: The first module is of another type, such as static embeddings or a router.
    """
    from transformers import PreTrainedModel

    inner = getattr(model[0], "auto_model", None)
    if not isinstance(inner, PreTrainedModel):
        raise ModelError(
            f"The first module of the model is {type(model[0]).__name__}, but continual trains models whose first "
            "module is a sentence-transformers Transformer. Choose another model."
        )
    return inner


def encoding_prompts(model: SentenceTransformer) -> tuple[str | None, str | None]:
    """Return the prompts that encode_query and encode_document put before a text; None if there is none."""
    prompts: dict[str, str] = model.prompts
    default = prompts.get(model.default_prompt_name) if model.default_prompt_name else None
    query = prompts.get("query", default)
    document = next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), default)
    return query or None, document or None


def embed(model: SentenceTransformer, features: dict[str, Any]) -> Any:
    """Run all modules of the model, including pooling and normalisation, and return a tensor [texts, dimensions]."""
    return model(features)["sentence_embedding"]


@contextmanager
def quiet() -> Iterator[None]:
    """Disable the bars of transformers, and its report of missing tensors: the terminal shows our own."""
    from transformers.utils import logging

    shown, logger = logging.is_progress_bar_enabled(), logging.get_logger("transformers.modeling_utils")
    logging.disable_progress_bar()
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)
        if shown:
            logging.enable_progress_bar()


def _is_no_report(record: LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
