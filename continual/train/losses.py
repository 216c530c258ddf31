"""The contrastive loss, and what must not count as a negative in it. Pure tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, log_softmax, normalize

from continual.config import TrainConfig


def info_nce(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor | None,
    mask: Tensor | None,
    temperature: float,
    both_ways: Tensor | None = None,
) -> Tensor:
    """Return the mean InfoNCE loss of a batch with in-batch and given negatives.

    With s_ij = cos(q_i, d_j) / temperature over all documents j of the batch that are not masked for row i,
    the loss is the mean over i of -s_ii + log sum_j exp(s_ij). Every given negative is one for every row. Equal
    to sentence-transformers' MultipleNegativesRankingLoss with scale = 1 / temperature when nothing is masked.

    A row that goes both ways has instead the mean of that and of -s_ii + log sum_j exp(s_ji): its document is told
    from the other queries too, but for those that it is masked for. With all rows, equal to that class with directions
    = ("query_to_doc", "doc_to_query") and partition_mode = "per_direction".

    Args:
        queries: Of shape [b, d]; any norm.
        positives: Of shape [b, d]; row i belongs to query i.
        negatives: Of shape [m, d], m >= 0; None is the same as m = 0.
        mask: Booleans [b, b + m], true where a document is not to be a negative; positives come first. The
            diagonal is never masked, whatever it says. None: nothing is.
        temperature: Divisor of the cosine similarities, above 0.
        both_ways: Booleans [b], the rows that go both ways; None: none does.

    Returns:
        A scalar, in the type of the embeddings but at least fp32.

    Reference: https://arxiv.org/abs/1807.03748; both ways: https://arxiv.org/abs/2310.19923
    """
    scores = _scores(queries, positives, negatives, temperature)
    rows = torch.arange(len(queries), device=queries.device)
    if mask is not None:
        mask = mask.clone()
        mask[rows, rows] = False
        scores = scores.masked_fill(mask, -torch.inf)
    if both_ways is None:
        return cross_entropy(scores, rows)
    there = cross_entropy(scores, rows, reduction="none")
    back = cross_entropy(scores[:, : len(rows)].T, rows, reduction="none")
    return torch.where(both_ways, (there + back) / 2, there).mean()


def contrastive(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor | None,
    mask: Tensor | None,
    in_batch: Tensor,
    config: TrainConfig,
) -> Tensor:
    """Return the contrastive loss of a batch that the settings ask for.

    It is `info_nce`, or its mean over the whole embedding and each of its leading parts in `config.matryoshka`, with
    the same mask. That is sentence-transformers' MatryoshkaLoss divided by the number of parts
    (https://arxiv.org/abs/2205.13147).

    Args:
        queries: Of shape [b, d]; any norm.
        positives: Of shape [b, d]; row i belongs to query i.
        negatives: Of shape [m, d], m >= 0, or None.
        mask: Booleans [b, b + m], as in `info_nce`; of rows that are not in `in_batch`, see `only_given`.
        in_batch: Booleans [b], whether a row's negatives are also those of others; the others go one way only, for
            their documents have no other queries to be told from.
        config: Of it are used temperature, bidirectional and matryoshka.
    """
    both_ways = in_batch if config.bidirectional else None
    losses = [info_nce(queries, positives, negatives, mask, config.temperature, both_ways)]
    for size in config.matryoshka:
        parts = (queries[:, :size], positives[:, :size], None if negatives is None else negatives[:, :size])
        losses.append(info_nce(*parts, mask, config.temperature, both_ways))
    return torch.stack(losses).mean() if config.matryoshka else losses[0]


def drift(embeddings: Tensor, before: Tensor, scale: float | None) -> Tensor:
    """Return the mean over texts of how far their embeddings are from those they had before: 0 where nothing moved.

    With x = 1 - cosine and a scale s, it is of s log(1 + x / s): Cauchy's robust loss
    (https://arxiv.org/abs/1701.03077, alpha = 0). It is x where x is well below s, and hardly grows beyond: most texts
    have no reason to move and are held, while the few that have far to go are let.

    Distillation from the model before, as learning without forgetting has it (https://arxiv.org/abs/1606.09282), but
    of embeddings instead of classes.

    Args:
        embeddings: Of shape [texts, d]; any norm.
        before: Of shape [texts, d].
        scale: As a cosine distance, above 0; None: it is of x itself.
    """
    distance = 1 - cosine_similarity(embeddings.float(), before.float(), dim=-1)
    return (distance if scale is None else scale * torch.log1p(distance / scale)).mean()


def divergence(
    embeddings: tuple[Tensor, Tensor, Tensor | None],
    before: tuple[Tensor, Tensor, Tensor | None],
    rows: Tensor,
    mask: Tensor,
    temperature: float,
) -> Tensor:
    """Return how far queries share their probability otherwise among the documents than they did before.

    With p_ij = softmax over j of cos(q_i, d_j) / temperature, over the documents that are not masked for row i, it is
    the sum over some rows i of KL(p_i before || p_i now) = sum_j p_ij before (log p_ij before - log p_ij now),
    divided by b: the mean where it is of all rows. Distillation as of a classifier (https://arxiv.org/abs/1503.02531),
    whose classes are the documents of the batch.

    Args:
        embeddings: Of queries [b, d], positives [b, d], and negatives [m, d] or None; any norm.
        before: The same under the model before.
        rows: Booleans [b], the rows that it is of.
        mask: Booleans [b, b + m], true where a document is left out. The diagonal is never masked.
        temperature: Divisor of the cosine similarities, above 0.

    Returns:
        A scalar, 0 where nothing moved.
    """
    mask = mask.clone()
    mask.fill_diagonal_(False)
    then, now = (
        # Masked documents have probability 0, and a logarithm that is not asked for.
        log_softmax(_scores(*each, temperature).masked_fill(mask, -torch.inf), dim=-1).masked_fill(mask, 0)
        for each in (before, embeddings)
    )
    shares = then.exp().masked_fill(mask, 0)
    return (shares * (then - now)).sum(dim=-1)[rows].sum() / len(rows)


def only_given(in_batch: Tensor, owner: Tensor) -> Tensor:
    """Return which documents of a batch are no negatives of rows whose negatives are only those given with them.

    Args:
        in_batch: Booleans [b]; of the rows where it is true nothing is masked.
        owner: Place in the batch, 0 to b - 1, of the row that each negative was given with, [m].

    Returns:
        Booleans [b, b + m]; the diagonal is false.
    """
    places = torch.arange(len(in_batch), device=in_batch.device)
    others = torch.cat([places, owner])[None, :] != places[:, None]  # [b, b + m]
    return others & ~in_batch[:, None]


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
    scores = _scores(queries, positives, negatives, 1.0)
    mask = scores > scores.diagonal()[:, None] - margin
    mask.fill_diagonal_(False)
    return mask


def comparable(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return of which documents a guide can say whether they are closer to a query than its positive.

    A cosine means something only between embeddings of one model: query, positive and document must have the same code.

    Args:
        queries: Code of the model that embedded each query, [b].
        positives: Of each positive, [b].
        negatives: Of each given negative, [m].

    Returns:
        Booleans [b, b + m].
    """
    own = (queries == positives)[:, None]
    return own & (torch.cat([positives, negatives])[None, :] == queries[:, None])


def _scores(queries: Tensor, positives: Tensor, negatives: Tensor | None, temperature: float) -> Tensor:
    """Return cosines divided by the temperature, [b, b + m], in the type of the embeddings but at least fp32."""
    documents = positives if negatives is None or not len(negatives) else torch.cat([positives, negatives])
    kind = torch.promote_types(queries.dtype, torch.float32)
    return normalize(queries.to(kind), dim=-1) @ normalize(documents.to(kind), dim=-1).T / temperature
