"""The contrastive loss, and what must not count as a negative in it. Pure tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize


def info_nce(
    queries: Tensor, positives: Tensor, negatives: Tensor | None, mask: Tensor | None, temperature: float
) -> Tensor:
    """Return the mean InfoNCE loss of a batch with in-batch and given negatives.

    With s_ij = cos(q_i, d_j) / temperature over all documents j of the batch that are not masked for row i,
    the loss is the mean over i of -s_ii + log sum_j exp(s_ij). Every given negative is one for every row. Equal
    to sentence-transformers' MultipleNegativesRankingLoss with scale = 1 / temperature when nothing is masked.

    Args:
        queries: Of shape [b, d]; any norm.
        positives: Of shape [b, d]; row i belongs to query i.
        negatives: Of shape [m, d], m >= 0; None is the same as m = 0.
        mask: Booleans [b, b + m], true where a document is not to be a negative; positives come first. The
            diagonal is never masked, whatever it says. None: nothing is.
        temperature: Divisor of the cosine similarities, above 0.

    Returns:
        A scalar, in the type of the embeddings but at least fp32.

    Reference: https://arxiv.org/abs/1807.03748
    """
    documents = positives if negatives is None or not len(negatives) else torch.cat([positives, negatives])
    kind = torch.promote_types(queries.dtype, torch.float32)
    scores = normalize(queries.to(kind), dim=-1) @ normalize(documents.to(kind), dim=-1).T / temperature  # [b, b+m]
    rows = torch.arange(len(queries), device=queries.device)
    if mask is not None:
        mask = mask.clone()
        mask[rows, rows] = False
        scores = scores.masked_fill(mask, -torch.inf)
    return cross_entropy(scores, rows)


def drift(embeddings: Tensor, before: Tensor) -> Tensor:
    """Return the mean of 1 - cosine between texts' embeddings and those they had before: 0 where nothing moved.

    Distillation from the model before, as learning without forgetting has it (https://arxiv.org/abs/1606.09282), but
    of embeddings instead of classes.

    Args:
        embeddings: Of shape [texts, d]; any norm.
        before: Of shape [texts, d].
    """
    return (1 - cosine_similarity(embeddings.float(), before.float(), dim=-1)).mean()


def false_negatives(query: Tensor, positive: Tensor, negative: Tensor, document: Tensor) -> Tensor:
    """Return which documents of a batch are known not to be negatives of which row.

    Masked are: a positive of the same document id, and any document with the text of a positive of the row's query,
    its own or that of another row that asks the same.

    Args:
        query: Integer code of each row's query text, [b]; equal codes are equal texts.
        positive: Code of each row's positive text, [b].
        negative: Code of each given negative's text, [m], from the same codes as `positive`.
        document: Code of each row's document id, [b]; below 0 where there is none.

    Returns:
        Booleans [b, b + m]; the diagonal is false.
    """
    same_document = (document[:, None] == document[None, :]) & (document >= 0)[:, None]
    same_query = (query[:, None] == query[None, :]).float()
    same_text = (positive[:, None] == torch.cat([positive, negative])[None, :]).float()
    mask = same_query @ same_text > 0  # row i asks what some row k asks, and document j is the positive of k
    mask[:, : len(query)] |= same_document
    mask.fill_diagonal_(False)
    return mask


def guided(queries: Tensor, positives: Tensor, negatives: Tensor | None, margin: float) -> Tensor:
    """Return which documents a guide model finds too close to a query to be its negatives.

    Document j is masked for row i when cos(q_i, d_j) > cos(q_i, d_i) - margin (GISTEmbed,
    https://arxiv.org/abs/2402.16829, with its absolute margin).

    Args:
        queries: The guide's embeddings, [b, d]; any norm.
        positives: Of shape [b, d].
        negatives: Of shape [m, d], or None.
        margin: In cosine, -2 to 2; larger masks more.

    Returns:
        Booleans [b, b + m]; the diagonal is false.
    """
    documents = positives if negatives is None or not len(negatives) else torch.cat([positives, negatives])
    scores = normalize(queries, dim=-1) @ normalize(documents, dim=-1).T
    mask = scores > scores.diagonal()[:, None] - margin
    mask.fill_diagonal_(False)
    return mask
