"""Cluster queries by subject, and name each cluster by its most distinctive words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIZE = 25
"""Approximate number of queries per cluster; with fewer, a cluster's interval is too wide to be useful."""

MOST = 12
"""Maximum number of clusters of a task."""

TELLING = 2
"""How many times more common a word must be inside a cluster than outside to name it."""

WORDS = 3
"""Maximum number of words that name a cluster."""

_WORD = re.compile(r"[^\W\d_]{3,}")


def cluster_queries(vectors: NDArray[np.floating], most: int = MOST, size: int = SIZE) -> NDArray[np.int64]:
    """Return the cluster number of each vector, from 0, by k-means on their directions.

    The result is deterministic. With fewer than 2 * `size` vectors, there is one cluster.

    Args:
        vectors: Embeddings, of shape [queries, dimensions].
        most: Maximum number of clusters.
        size: Approximate number of vectors per cluster.

    Returns:
        Integers, of shape [queries].
    """
    count = min(most, len(vectors) // size)
    if count < 2:
        return np.zeros(len(vectors), np.int64)
    from sklearn.cluster import KMeans

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.asarray(vectors, np.float64) / np.maximum(lengths, 1e-12)
    count = min(count, len(np.unique(directions, axis=0)))  # k-means warns if there are fewer points than clusters
    return np.asarray(KMeans(count, n_init=4, random_state=0).fit_predict(directions), np.int64)


def name_query_clusters(texts: Sequence[str], labels: Sequence[int]) -> list[list[str]]:
    """Return the most distinctive words of each cluster, the most distinctive first; a cluster may have none.

    A word's weight is p * log(p / q). p is the share of the cluster's texts that contain the word; q is the share of
    all other texts, with one text added to both counts. Only words at least `TELLING` times as common inside count, so
    common words such as "the" drop out in any language.

    Args:
        texts: The texts of the queries.
        labels: The cluster of each text, from 0.

    Returns:
        For each cluster, up to `WORDS` lower-case words.
    """
    words = [set(_WORD.findall(text.lower())) for text in texts]
    clusters = 1 + max(labels, default=-1)
    counts = [Counter[str]() for _ in range(clusters)]
    sizes = Counter(labels)
    for text_words, label in zip(words, labels, strict=True):
        counts[label].update(text_words)
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
