"""The result of a conflict analysis: the matrix of conflicts, its hierarchical clustering, and the verdict in words.

The conflict of two domains is the loss of joint training minus the loss of individual training. Domains are clustered
by their conflicts, as in BOOM (https://arxiv.org/abs/2602.05787). `continual.conflicts.run` does the trainings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual.errors import InputError

LAST = "conflicts/last.json"
"""File of the last analysis, relative to `.continual`."""

FEW = 3
"""Number of domains up to which the chance level, a root mean square over domains, is only a rough estimate."""

Merge = tuple[int, int, float]
"""Two groups and their mean conflict. With n domains, a number below n is a domain, and n + k is merge k, from 0."""


@dataclass(frozen=True)
class Conflicts:
    """A conflict analysis. Losses are per domain, on held-out rows.

    Attributes:
        domains: Names of the domains, in the order of the stream.
        start: Id of the version that the trainings start from.
        made: Time of the analysis, ISO 8601 in UTC.
        seed: Seed of the trainings.
        epochs: Passes over the rows in each training.
        rows: Number of training rows of each domain, the same in all its trainings.
        held: Number of held-out rows of each domain.
        before: Loss before training.
        alone: Loss after training on the domain alone.
        again: Loss after training on the domain alone, with the rows in reverse order.
        chance: How far chance moves a conflict about 19 times in 20, see `chance`.
        matrix: Row i, column j: loss of i trained with j, minus loss of i alone. Above 0, j hurts i. None on the
            diagonal.
        merges: The cluster tree, from the closest groups on.
        order: Indices of the domains in the order of the tree's leaves.
        clusters: Names of the domains by cluster, both in the order of the stream.
        cut: Mean conflict up to which groups are joined; None if the number of clusters was given.
        trainings: Number of trainings: single domains, in both orders, and pairs.
        pairs: Number of pairs trained in all of them.
        seconds: Time that all of them took.
        file: Where the clusters were written.
    """

    domains: list[str]
    start: str
    made: str
    seed: int
    epochs: int
    rows: dict[str, int]
    held: dict[str, int]
    before: dict[str, float]
    alone: dict[str, float]
    again: dict[str, float]
    chance: float
    matrix: list[list[float | None]]
    merges: list[Merge]
    order: list[int]
    clusters: dict[str, list[str]]
    cut: float | None
    trainings: int
    pairs: int
    seconds: float
    file: str

    def conflict(self, first: int, second: int) -> float:
        """Return the conflict of a pair of domains: the mean of both directions."""
        on_first, on_second = self.matrix[first][second], self.matrix[second][first]
        assert on_first is not None
        assert on_second is not None
        return (on_first + on_second) / 2

    @property
    def ranked(self) -> list[tuple[float, str, str]]:
        """(conflict, domain, domain) of every pair of domains, the largest conflict first."""
        count = len(self.domains)
        indices = [(i, j) for i in range(count) for j in range(i + 1, count)]
        pairs = [(self.conflict(i, j), self.domains[i], self.domains[j]) for i, j in indices]
        return sorted(pairs, key=lambda pair: -pair[0])

    @property
    def verdict(self) -> str:
        """The result in a few sentences."""
        return " ".join(filter(None, (self._pairs(), self._one_way(), self._rough())))

    def _pairs(self) -> str:
        """Say which pairs hurt or help each other, by the mean of both directions."""
        ranked = self.ranked
        hurting = sum(conflict > self.chance for conflict, _, _ in ranked)
        helping = sum(conflict < -self.chance for conflict, _, _ in ranked)
        by_chance = f"chance alone moves this average by about {self.chance:.3f}"
        if not hurting and not helping:
            return (
                "Averaged over both directions, no two domains hurt or help each other by more than chance: "
                f"{by_chance}."
            )
        findings = ["no two domains hurt each other"]
        if hurting:
            findings = [f"domains hurt each other in {hurting} of {len(ranked)} pairs, most of all {_pair(ranked[0])}"]
        if helping:
            most = _pair(ranked[-1])
            findings.append(f"domains help each other in {helping} of {len(ranked)} pairs, most of all {most}")
        return f"Averaged over both directions, {'; '.join(findings)}; {by_chance}."

    def _one_way(self) -> str:
        """Say what is above chance in one direction only, for pairs whose mean of both directions is not."""
        limit = math.sqrt(2) * self.chance  # of one difference instead of the mean of two
        count = range(len(self.domains))
        entries = [
            (entry, self.domains[i], self.domains[j])
            for i in count
            for j in count
            if (entry := self.matrix[i][j]) is not None
            and abs(entry) > limit
            and abs(self.conflict(i, j)) <= self.chance
        ]
        if not entries:
            return ""
        entry, affected, cause = max(entries, key=lambda item: (item[0] > 0, abs(item[0])))
        more = f", one of {len(entries)} such effects" if len(entries) > 1 else ""
        return (
            f"In one direction only, {cause} {'hurts' if entry > 0 else 'helps'} {affected} ({entry:+.3f}{more}); "
            f"chance alone moves one direction by about {limit:.3f}."
        )

    def _rough(self) -> str:
        """Say that the chance level is rough if it was measured on few domains."""
        count = len(self.domains)
        return f"With {count} domains, the chance level is itself a rough estimate." if count <= FEW else ""

    def to_json(self) -> dict[str, Any]:
        """Return the attributes, `conflicts` (of all pairs, the largest first) and `verdict` as plain data."""
        ranked = [{"domains": [first, second], "conflict": conflict} for conflict, first, second in self.ranked]
        merges = [list(merge) for merge in self.merges]
        return asdict(self) | {"merges": merges, "conflicts": ranked, "verdict": self.verdict}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conflicts:
        """Build an analysis from the result of `to_json`."""
        values = {name: data[name] for name in cls.__dataclass_fields__}
        values["merges"] = [(int(left), int(right), float(conflict)) for left, right, conflict in data["merges"]]
        return cls(**values)


def _pair(ranked: tuple[float, str, str]) -> str:
    conflict, first, second = ranked
    return f"{first} and {second} ({conflict:+.3f})"


def conflict_matrix(
    domains: Sequence[str], alone: Mapping[str, float], joint: Mapping[tuple[str, str], Mapping[str, float]]
) -> list[list[float | None]]:
    """Return joint minus individual loss: row i, column j is the effect of j on i; None on the diagonal.

    Args:
        domains: The domains of the rows and columns.
        alone: Loss of each domain after training on it alone.
        joint: For each pair of domains, in sorted order, the losses of both after training on both.
    """

    def entry(affected: str, cause: str) -> float | None:
        if affected == cause:
            return None
        return joint[min(affected, cause), max(affected, cause)][affected] - alone[affected]

    return [[entry(affected, cause) for cause in domains] for affected in domains]


def chance(alone: Mapping[str, float], again: Mapping[str, float]) -> float:
    """Return how far chance moves, about 19 times in 20, the conflict of two domains that don't affect each other.

    If another domain has no effect, a domain's loss with it differs from its loss alone as much as the losses of two
    orders of its rows differ. Let r be the root mean square of that difference over the domains. A conflict is the mean
    of two such differences, so twice its standard deviation is 2 r / sqrt(2). With few domains, r is a rough estimate.

    Args:
        alone: Loss of each domain after training on it alone.
        again: The same with the rows in another order.
    """
    gaps = np.array([alone[domain] - again[domain] for domain in alone])
    return float(np.sqrt(2 * np.mean(gaps**2)))


def cluster_domains(
    matrix: Sequence[Sequence[float | None]], count: int | None = None, *, cut: float = 0.0
) -> tuple[list[Merge], list[int], list[int]]:
    """Cluster domains by their conflicts, with average linkage.

    The distance of two domains is d_ij = (c_ij + c_ji) / 2, minus the smallest such mean of any pair, so the pair that
    helps each other most has distance 0. With average linkage, the distance of two groups is, up to that shift, the
    mean conflict of the pairs between them. So the tree can be cut at a meaningful conflict, such as the chance level:
    groups are joined as long as the pairs between them don't hurt each other by more than that on average. BOOM found
    joint training best where domains don't conflict.

    Args:
        matrix: The conflicts of at least two domains, from `conflict_matrix`.
        count: Number of clusters; None cuts the tree at `cut` instead.
        cut: Mean conflict up to which groups are joined.

    Returns:
        The merges, from the closest groups on; the domains in the order of the tree's leaves; and the cluster of each
        domain, numbered from 0 in the order of the clusters' first domains.

    Raises:
        InputError: `count` is below one or above the number of domains.
    """
    from scipy.cluster.hierarchy import cut_tree, fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    size = len(matrix)
    check_count(count, size)
    entries = np.array([[0.0 if entry is None else entry for entry in row] for row in matrix], np.float64)
    conflicts: NDArray[np.float64] = squareform((entries + entries.T) / 2, checks=False)
    smallest = float(conflicts.min())
    tree = linkage(conflicts - smallest, method="average")
    merges = [(int(left), int(right), float(height) + smallest) for left, right, height, _ in tree]
    labels = fcluster(tree, cut - smallest, "distance") if count is None else cut_tree(tree, n_clusters=count).ravel()
    numbers: dict[int, int] = {}
    return merges, leaves_list(tree).tolist(), [numbers.setdefault(int(label), len(numbers)) for label in labels]


def check_count(count: int | None, domains: int) -> None:
    """Check that a number of clusters fits the number of domains.

    Raises:
        InputError: `count` is below one or above the number of domains.
    """
    if count is not None and not 1 <= count <= domains:
        raise InputError(f"--clusters must be from 1 to {domains}, the number of domains, not {count}.")


def name_domain_clusters(domains: Sequence[str], labels: Sequence[int]) -> dict[str, list[str]]:
    """Return the domains of each cluster, by the names cluster-1, cluster-2, ..."""
    clusters: dict[str, list[str]] = {f"cluster-{label + 1}": [] for label in sorted(set(labels))}
    for domain, label in zip(domains, labels, strict=True):
        clusters[f"cluster-{label + 1}"].append(domain)
    return clusters


def last_conflicts(root: Path) -> Conflicts | None:
    """Return the last analysis of a workspace; None if there is none or its file can't be read.

    Args:
        root: The `.continual` folder.
    """
    try:
        return Conflicts.from_json(json.loads((root / LAST).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a report is useful without it, and the next analysis rewrites the file
