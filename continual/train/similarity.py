"""How a model compares embeddings: its similarity, its leading dimensions, and the temperature that follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from continual.config import TrainConfig
from continual.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SimilarityName = Literal["cosine", "dot"]


@dataclass(frozen=True, slots=True)
class Similarity:
    """The comparison of embeddings in the losses, which is the one that the model is used with.

    Attributes:
        name: "cosine" or "dot".
        temperature: Divisor of the similarities in the losses, above 0.
        whole: Dimensions that the model's modules return.
        served: Leading dimensions that `encode` returns; equal to `whole` without `truncate_dim`.
    """

    name: SimilarityName = "cosine"
    temperature: float = 0.05
    whole: int = 0
    served: int = 0

    @property
    def truncated(self) -> bool:
        """Whether `encode` cuts embeddings."""
        return self.served < self.whole

    def cut(self, embeddings: Tensor) -> Tensor:
        """Return the dimensions that `encode` returns, [texts, served], of embeddings [texts, whole or served]."""
        return embeddings[:, : self.served] if self.truncated else embeddings


def similarity_of(
    model: SentenceTransformer, config: TrainConfig | None = None, *, folder: str | Path = "The model"
) -> Similarity:
    """Return how a model compares embeddings.

    A dot product of embeddings without a fixed norm is divided by `train.dot_temperature`. That of embeddings of norm 1
    is the cosine, so a model that ends with a Normalize module has the temperature of cosines.

    Args:
        model: The model.
        config: Uses temperature and dot_temperature; None: their defaults.
        folder: The model's folder, for the message.

    Raises:
        ModelError: The model compares by a distance, for which there is no training loss.
    """
    from sentence_transformers.sentence_transformer.modules import Normalize

    config, name = config or TrainConfig(), str(model.similarity_fn_name)
    if name not in ("cosine", "dot"):
        raise ModelError(
            f"{folder} compares embeddings by {name} distance (similarity_fn_name), but continual trains models that "
            "compare by cosine or dot product. Choose another model, or set similarity_fn_name to cosine or dot in its "
            "config_sentence_transformers.json."
        )
    with model.truncate_embeddings(None):
        whole = int(model.get_embedding_dimension() or len(model.encode("a", show_progress_bar=False)))
    served = min(whole, model.truncate_dim or whole)
    unit = any(isinstance(module, Normalize) for module in list(model)[-1:])
    if name == "cosine" or (unit and served == whole):
        return Similarity("cosine", config.temperature, whole, served)
    return Similarity("dot", config.temperature if unit else config.dot_temperature, whole, served)
