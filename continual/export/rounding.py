"""What is lost by storing an export's weights in half precision, measured on a few texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from continual.registry import Registry, Version
from continual.replay import RowReader

PROOF_TEXTS = 16
"""Number of queries that are compared."""

PLAIN_TEXTS = ["a question", "a passage that answers it", "What is the capital of France?", "def f(x): return x + 1"]
"""Compared instead if the workspace has no rows."""


@dataclass(frozen=True)
class Rounding:
    """What storing weights in half precision changes.

    Attributes:
        largest: Largest cosine distance, 0 to 2, between a text's embeddings before and after.
        texts: Number of texts.
    """

    largest: float
    texts: int

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as plain data."""
        return asdict(self)


def proof_texts(registry: Registry, version: Version) -> list[str]:
    """Return queries that a version has learned, of all its domains; of any rows if it has learned none."""
    learned = registry.learned(version)
    stored = [batch for batch in registry.batches() if batch.kept]
    batches = [batch for batch in stored if batch.id in learned] or stored
    with RowReader(registry) as reader:
        counts = reader.count(batches)
        each = -(-PROOF_TEXTS // max(len(counts), 1))
        quotas = {domain: min(each, rows) for domain, rows in counts.items()}
        texts = reader.draw([], batches, quotas, {}).table["query"].to_pylist() if any(quotas.values()) else []
    return texts or PLAIN_TEXTS


def measure_rounding(before: Path, after: Path, texts: Sequence[str], *, trust_remote_code: bool = False) -> Rounding:
    """Load a rounded folder as its user would, and compare its embeddings with those of the folder in fp32.

    Args:
        before: The folder in fp32.
        after: The same model in half precision.
        texts: Queries to encode.
        trust_remote_code: Run code that the model brings with it.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    from continual.eval.run import quiet
    from continual.models.encoder import load_encoder

    with quiet():
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        rounded = SentenceTransformer(str(after), device="cpu", **options)
    exact = load_encoder(before, device="cpu", trust_remote_code=trust_remote_code)
    first, second = (
        torch.as_tensor(
            model.encode_query(list(texts), convert_to_tensor=True, show_progress_bar=False), dtype=torch.float64
        )
        for model in (exact, rounded)
    )
    distances = 1 - torch.nn.functional.cosine_similarity(first, second, dim=-1)
    return Rounding(max(0.0, float(distances.max())), len(texts))
