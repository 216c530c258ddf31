"""Queries in clusters of one subject each, named by the words that set them apart."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIZE = 25
"""Queries to a cluster, about: fewer, and the interval of a cluster says nothing."""

MOST = 12
"""Clusters of a task, at most."""

TELLING = 2
"""How much more common a word must be inside a cluster than outside to name it."""

WORDS = 3
"""Words that name a cluster."""

_WORD = re.compile(r"[^\W\d_]{3,}")


def cluster_queries(vectors: NDArray[np.floating], most: int = MOST, size: int = SIZE) -> NDArray[np.int64]:
    """Return the cluster of each vector, from 0, by k-means of their directions.

    The same vectors give the same clusters. With fewer than two times `size` there is one.

    Args:
        vectors: Embeddings, of shape [queries, dimensions].
        most: Clusters, at most.
        size: Vectors to a cluster, about.

    Returns:
        Whole numbers, of shape [queries].
    """
    count = min(most, len(vectors) // size)
    if count < 2:
        return np.zeros(len(vectors), np.int64)
    from sklearn.cluster import KMeans

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.asarray(vectors, np.float64) / np.maximum(lengths, 1e-12)
    count = min(count, len(np.unique(directions, axis=0)))  # k-means warns of more clusters than there are points
    return np.asarray(KMeans(count, n_init=4, random_state=0).fit_predict(directions), np.int64)


def name_query_clusters(texts: Sequence[str], labels: Sequence[int]) -> list[list[str]]:
    """Return the words that set each cluster apart, the most telling first; a cluster may have none.

    A word weighs p * log(p / q): p is the share of the cluster's texts that have it, q that of all others, each with
    one text added. Only words that are twice as common inside count, so that "the" names nothing in any language.

    Args:
        texts: One a query.
        labels: Its cluster, from 0, in the same order.

    Returns:
        Lower-case words by cluster.
    """
    words = [set(_WORD.findall(text.lower())) for text in texts]
    clusters = 1 + max(labels, default=-1)
    counts = [Counter[str]() for _ in range(clusters)]
    sizes = Counter(labels)
    for found, label in zip(words, labels, strict=True):
        counts[label].update(found)
    total = sum(counts, Counter[str]())
    named = []
    for label, inside in enumerate(counts):
        size, rest = sizes[label], len(texts) - sizes[label]
        weights = {}
        for word, count in inside.items():
            share, others = count / size, (total[word] - count + 1) / (rest + 1)
            if count >= min(2, size) and (not rest or share >= TELLING * others):
                weights[word] = share * math.log(share / others) if rest else share
        ordered = sorted((-weight, word) for word, weight in weights.items())
        named.append([word for _, word in ordered[:WORDS]])
    return named
