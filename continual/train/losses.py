"""Contrastive, graded and distillation losses, and the masks of false negatives. Pure tensor functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, log_softmax, normalize

from continual.config import TrainConfig
from continual.train.similarity import Similarity, SimilarityName


def info_nce(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor | None,
    mask: Tensor | None,
    temperature: float,
    both_ways: Tensor | None = None,
    similarity: SimilarityName = "cosine",
) -> Tensor:
    """Return the mean InfoNCE loss of a batch with in-batch and given negatives.

    With s_ij = sim(q_i, d_j) / temperature over all documents j of the batch that are not masked for row i, the loss is
    the mean over i of -s_ii + log sum_j exp(s_ij). A given negative is a negative of every row. Without a mask the loss
    equals sentence-transformers' MultipleNegativesRankingLoss with scale = 1 / temperature and the same similarity.

    For rows in `both_ways` the term is the mean of that and of -s_ii + log sum_j exp(s_ji), over the queries j that
    document i is not masked for. With all rows this equals MultipleNegativesRankingLoss with directions =
    ("query_to_doc", "doc_to_query") and partition_mode = "per_direction".

    Args:
        queries: Embeddings [b, d], any norm.
        positives: Embeddings [b, d]; positive i belongs to query i.
        negatives: Embeddings [m, d], m >= 0; None means m = 0.
        mask: Booleans [b, b + m], positives first, true where a document is not a negative of a row; the diagonal is
            ignored. None: no document is masked.
        temperature: Divisor of the similarities, above 0.
        both_ways: Booleans [b], rows with a loss in both directions; None: no row.
        similarity: sim, "cosine" or "dot".

    Returns:
        A scalar, in the type of the embeddings but at least fp32.

    Reference: https://arxiv.org/abs/1807.03748; both ways: https://arxiv.org/abs/2310.19923
    """
    scores = _scores(queries, positives, negatives, temperature, similarity)
    rows = torch.arange(len(queries), device=queries.device)
    if mask is not None:
        mask = mask.clone()
        mask[rows, rows] = False
        scores = scores.masked_fill(mask, -torch.inf)
    if both_ways is None:
        return cross_entropy(scores, rows)
    query_to_doc = cross_entropy(scores, rows, reduction="none")
    doc_to_query = cross_entropy(scores[:, : len(rows)].T, rows, reduction="none")
    return torch.where(both_ways, (query_to_doc + doc_to_query) / 2, query_to_doc).mean()


def contrastive(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor | None,
    mask: Tensor | None,
    in_batch: Tensor,
    config: TrainConfig,
    similarity: Similarity,
) -> Tensor:
    """Return the contrastive loss of a batch with the settings of the training.

    It is `info_nce` of the embeddings as given, or with `config.matryoshka` its mean over the whole embedding, the
    leading dimensions in the setting, and those that the model serves, all with the same mask: sentence-transformers'
    MatryoshkaLoss divided by the number of terms (https://arxiv.org/abs/2205.13147).

    Args:
        queries: Embeddings [b, d], any norm.
        positives: Embeddings [b, d]; positive i belongs to query i.
        negatives: Embeddings [m, d], m >= 0, or None.
        mask: Booleans [b, b + m], as in `info_nce`; it must include `only_given` for rows that are not in `in_batch`.
        in_batch: Booleans [b], whether a row has in-batch negatives. The other rows never have a loss in both
            directions: no other query is a negative of their documents.
        config: Uses bidirectional and matryoshka.
        similarity: How the model compares embeddings.
    """
    how = (similarity.temperature, in_batch if config.bidirectional else None, similarity.name)

    def loss(size: int | None) -> Tensor:
        parts = (queries[:, :size], positives[:, :size], None if negatives is None else negatives[:, :size])
        return info_nce(*parts, mask, *how)

    return _matryoshka(loss, config, similarity)


def cosent(
    queries: Tensor, texts: Tensor, scores: Tensor, temperature: float, similarity: SimilarityName = "cosine"
) -> Tensor:
    """Return the CoSENT loss of a batch of graded pairs: pairs with a higher score must be more similar.

    With s_i = sim(q_i, t_i) / temperature, the loss is log(1 + sum exp(s_i - s_j)) over all i, j with score_i <
    score_j. Only the order of the scores counts. It equals sentence-transformers' CoSENTLoss with scale = 1 /
    temperature and the same similarity.

    Args:
        queries: Embeddings [b, d], any norm.
        texts: Embeddings of the queries' texts, [b, d], any norm.
        scores: Score of each pair, [b].
        temperature: Divisor of the similarities, above 0.
        similarity: sim, "cosine" or "dot".

    Returns:
        A scalar, in the type of the embeddings but at least fp32; 0 if all scores are equal.

    Reference: https://kexue.fm/archives/8847
    """
    similar = _pair_similarity(queries, texts, similarity) / temperature
    misplaced = similar[:, None] - similar[None, :]  # [b, b]: above 0 if pair i is more similar than pair j ...
    wrong = scores[:, None] < scores[None, :]  # ... although its score is lower
    terms = misplaced.masked_fill(~wrong, -torch.inf).flatten()
    return torch.logsumexp(torch.cat([terms.new_zeros(1), terms]), dim=0)


def graded(queries: Tensor, texts: Tensor, scores: Tensor, config: TrainConfig, similarity: Similarity) -> Tensor:
    """Return the graded loss of a batch with the settings of the training: `cosent`, with Matryoshka as `contrastive`.

    Args:
        queries: Embeddings [b, d], any norm.
        texts: Embeddings [b, d], any norm.
        scores: Score of each pair, [b].
        config: Uses matryoshka.
        similarity: How the model compares embeddings.
    """

    def loss(size: int | None) -> Tensor:
        return cosent(queries[:, :size], texts[:, :size], scores, similarity.temperature, similarity.name)

    return _matryoshka(loss, config, similarity)


def _matryoshka(loss: Callable[[int | None], Tensor], config: TrainConfig, similarity: Similarity) -> Tensor:
    """Return the loss of the embeddings as given, or its mean with those of the leading dimensions that are trained."""
    losses = [loss(size) for size in [None, *matryoshka_sizes(config, similarity)]]
    return torch.stack(losses).mean() if config.matryoshka else losses[0]


def matryoshka_sizes(config: TrainConfig, similarity: Similarity) -> list[int]:
    """Return the leading dimensions that have a contrastive loss beside that of the embeddings as given."""
    served = [similarity.served] if similarity.truncated else []
    return list(dict.fromkeys([*config.matryoshka, *served])) if config.matryoshka else []


def drift(embeddings: Tensor, before: Tensor, scale: float | None, similarity: SimilarityName = "cosine") -> Tensor:
    """Return the mean drift of embeddings from those before training, 0 if no text moved.

    With x = 1 - cosine(now, before) and a scale s, the drift of a text is s log(1 + x / s): Cauchy's robust loss
    (https://arxiv.org/abs/1701.03077, alpha = 0). It is about x for x well below s, and grows only slowly above. So
    most texts are kept in place, while the few that must move far may do so. Dot products also depend on norms, so
    with them x = |now - before|^2 / (2 |before|^2), which is 1 - cosine if both norms are 1.

    This is distillation from the earlier model, as in learning without forgetting (https://arxiv.org/abs/1606.09282),
    but of embeddings instead of classes.

    Args:
        embeddings: Embeddings now, [texts, d], any norm.
        before: Embeddings before training, [texts, d], any norm.
        scale: s, a distance above 0; None: the drift is x itself.
        similarity: "cosine" or "dot".
    """
    now, then = embeddings.float(), before.float()
    if similarity == "dot":
        distance = (now - then).square().sum(dim=-1) / (2 * then.square().sum(dim=-1)).clamp_min(1e-12)
    else:
        distance = 1 - cosine_similarity(now, then, dim=-1)
    return (distance if scale is None else scale * torch.log1p(distance / scale)).mean()


def divergence(
    embeddings: tuple[Tensor, Tensor, Tensor | None],
    before: tuple[Tensor, Tensor, Tensor | None],
    rows: Tensor,
    mask: Tensor,
    temperature: float,
    similarity: SimilarityName = "cosine",
) -> Tensor:
    """Return the KL divergence of the queries' distributions over documents from those before training.

    With p_ij = softmax over j of sim(q_i, d_j) / temperature, over the documents that are not masked for row i, the
    result is the sum over `rows` of KL(p_i before || p_i now) = sum_j p_ij before (log p_ij before - log p_ij now),
    divided by b. This is distillation of a classifier (https://arxiv.org/abs/1503.02531) whose classes are the
    documents of the batch.

    Args:
        embeddings: Embeddings now, of queries [b, d], positives [b, d], and negatives [m, d] or None; any norm.
        before: Embeddings of the same texts before training.
        rows: Booleans [b], the rows in the sum.
        mask: Booleans [b, b + m], true where a document is left out; the diagonal is ignored.
        temperature: Divisor of the similarities, above 0.
        similarity: sim, "cosine" or "dot".

    Returns:
        A scalar, 0 if no distribution changed.
    """
    mask = mask.clone()
    mask.fill_diagonal_(False)
    then, now = (
        # Masked documents have probability 0; their log of minus infinity is replaced, because 0 times it is NaN.
        log_softmax(_scores(*texts, temperature, similarity).masked_fill(mask, -torch.inf), dim=-1).masked_fill(mask, 0)
        for texts in (before, embeddings)
    )
    shares = then.exp().masked_fill(mask, 0)
    return (shares * (then - now)).sum(dim=-1)[rows].sum() / len(rows)


def only_given(in_batch: Tensor, owner: Tensor) -> Tensor:
    """Mask the documents of other rows for rows that use only their own negatives.

    Args:
        in_batch: Booleans [b]; rows with true get no mask.
        owner: Place in the batch, 0 to b - 1, of the row that each given negative belongs to, [m].

    Returns:
        Booleans [b, b + m], true where a document is masked; the diagonal is false.
    """
    places = torch.arange(len(in_batch), device=in_batch.device)
    others = torch.cat([places, owner])[None, :] != places[:, None]  # [b, b + m]
    return others & ~in_batch[:, None]


def false_negatives(query: Tensor, positive: Tensor, negative: Tensor, document: Tensor) -> Tensor:
    """Mask documents of a batch that are relevant to a row, so that they don't count as its negatives.

    For a row this masks positives with the row's document id, and documents with the text of a positive of the row's
    query, be it the row's own positive or that of another row with the same query.

    Args:
        query: Integer code of each row's query text, [b]; equal codes mean equal texts.
        positive: Code of each row's positive text, [b].
        negative: Code of each given negative's text, [m], from the same codes as `positive`.
        document: Code of each row's document id, [b]; negative if a row has none.

    Returns:
        Booleans [b, b + m], true where a document is masked; the diagonal is false.
    """
    same_document = (document[:, None] == document[None, :]) & (document >= 0)[:, None]
    same_query = (query[:, None] == query[None, :]).float()
    same_text = (positive[:, None] == torch.cat([positive, negative])[None, :]).float()
    mask = same_query @ same_text > 0  # some row k has the query of row i, and its positive is document j
    mask[:, : len(query)] |= same_document
    mask.fill_diagonal_(False)
    return mask


def guided(
    queries: Tensor, positives: Tensor, negatives: Tensor | None, margin: float, similarity: SimilarityName = "cosine"
) -> Tensor:
    """Mask documents that are too close to a query under a guide model to be its negatives.

    Document j is masked for row i if cos(q_i, d_j) > cos(q_i, d_i) - margin (GISTEmbed,
    https://arxiv.org/abs/2402.16829, with its absolute margin). With dot products, if q_i d_j > q_i d_i - margin |q_i|
    |d_i|, which is the same if all norms are 1.

    Args:
        queries: The guide's embeddings, [b, d], any norm.
        positives: The guide's embeddings, [b, d], any norm.
        negatives: The guide's embeddings, [m, d], any norm, or None.
        margin: Margin in cosine, -2 to 2; a larger one masks more.
        similarity: "cosine" or "dot".

    Returns:
        Booleans [b, b + m], true where a document is masked; the diagonal is false.
    """
    scores = _scores(queries, positives, negatives, 1.0, similarity)
    margins = margin * queries.norm(dim=-1) * positives.norm(dim=-1) if similarity == "dot" else margin
    mask = scores > (scores.diagonal() - margins)[:, None]
    mask.fill_diagonal_(False)
    return mask


def same_embedder(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return for which documents one model embedded query, positive and document, so that cosines can be compared.

    Args:
        queries: Code of the model that embedded each query, [b].
        positives: Code of the model that embedded each positive, [b].
        negatives: Code of the model that embedded each given negative, [m].

    Returns:
        Booleans [b, b + m].
    """
    own = (queries == positives)[:, None]
    return own & (torch.cat([positives, negatives])[None, :] == queries[:, None])


def _pair_similarity(queries: Tensor, texts: Tensor, similarity: SimilarityName) -> Tensor:
    """Return the similarity of each query with its text, [b], in the embeddings' type but at least fp32."""
    dtype = torch.promote_types(queries.dtype, torch.float32)
    queries, texts = queries.to(dtype), texts.to(dtype)
    if similarity == "cosine":
        queries, texts = normalize(queries, dim=-1), normalize(texts, dim=-1)
    return (queries * texts).sum(dim=-1)


def _scores(
    queries: Tensor, positives: Tensor, negatives: Tensor | None, temperature: float, similarity: SimilarityName
) -> Tensor:
    """Return similarities divided by the temperature, [b, b + m], in the embeddings' type but at least fp32."""
    documents = positives if negatives is None or not len(negatives) else torch.cat([positives, negatives])
    dtype = torch.promote_types(queries.dtype, torch.float32)
    queries, documents = queries.to(dtype), documents.to(dtype)
    if similarity == "cosine":
        queries, documents = normalize(queries, dim=-1), normalize(documents, dim=-1)
    return queries @ documents.T / temperature
