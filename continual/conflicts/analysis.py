"""Which domains hurt each other: the matrix of conflicts, its hierarchical clustering, and the verdict on it.

Conflict of two datasets = loss of joint training - loss of individual training, and a hierarchical clustering of the
matrix, after BOOM (https://arxiv.org/abs/2602.05787). Here are the numbers; `continual.conflicts.run` trains for them.
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
"""The last analysis, below `.continual`."""

FEW = 3
"""Domains up to which chance, a root mean square over them, is a rough figure."""

Merge = tuple[int, int, float]
"""Two groups, and the mean conflict between them: a number below n is a domain, and n + k the k-th merge, from 0."""


@dataclass(frozen=True)
class Conflicts:
    """An analysis.

    Attributes:
        domains: In the order of the stream.
        start: The version that was trained from.
        made: When, in UTC: ISO 8601.
        seed: Of the trainings.
        epochs: Passes over the rows in each of them.
        rows: Rows that each domain was trained on, in all its trainings the same.
        held: Rows that its loss was measured on.
        before: Loss of each domain before training.
        alone: After training on it alone.
        again: The same with the rows in another order.
        chance: How far chance moves a conflict, about 19 times in 20: see `chance`.
        matrix: Row i, column j: loss of i trained with j, minus i alone; above 0, j hurts i. None on the diagonal.
        merges: The tree, from the closest groups on.
        order: Places of the domains from one end of the tree to the other.
        clusters: Domains by the name of their cluster, both in the order of the stream.
        cut: Mean conflict up to which groups are one cluster; None where their number was given.
        trainings: Of single domains, in both orders, and of pairs.
        pairs: Pairs trained in all of them.
        seconds: That they took.
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
        """Return the conflict of a pair of domains: the mean of what each does to the other."""
        one, other = self.matrix[first][second], self.matrix[second][first]
        assert one is not None
        assert other is not None
        return (one + other) / 2

    @property
    def ranked(self) -> list[tuple[float, str, str]]:
        """Conflict of every pair of domains, the largest first."""
        count = len(self.domains)
        places = [(i, j) for i in range(count) for j in range(i + 1, count)]
        found = [(self.conflict(i, j), self.domains[i], self.domains[j]) for i, j in places]
        return sorted(found, key=lambda each: -each[0])

    @property
    def verdict(self) -> str:
        """What came out, in a few sentences."""
        return " ".join(filter(None, (self._pairs(), self._one_way(), self._rough())))

    def _pairs(self) -> str:
        """Say which pairs hurt or help each other: by the mean of both directions."""
        ranked = self.ranked
        hurting = sum(conflict > self.chance for conflict, _, _ in ranked)
        helping = sum(conflict < -self.chance for conflict, _, _ in ranked)
        by_chance = f"chance alone moves such a mean by about {self.chance:.3f}"
        if not hurting and not helping:
            return (
                "On average of both directions, no two domains hurt or help each other more than chance does: "
                f"{by_chance}."
            )
        of = f" of {len(ranked)} pairs"
        found = (
            f"{hurting}{of} hurt each other, most {_pair(ranked[0])}" if hurting else "no two domains hurt each other"
        )
        if helping:
            found += f"; {helping}{'' if hurting else of} help each other, most {_pair(ranked[-1])}"
        return f"On average of both directions, {found}; {by_chance}."

    def _one_way(self) -> str:
        """Say what is beyond chance in one direction alone: of a pair whose mean is not."""
        limit = math.sqrt(2) * self.chance  # of one difference rather than the mean of two
        count = range(len(self.domains))
        found = [
            (entry, self.domains[i], self.domains[j])
            for i in count
            for j in count
            if (entry := self.matrix[i][j]) is not None
            and abs(entry) > limit
            and abs(self.conflict(i, j)) <= self.chance
        ]
        if not found:
            return ""
        entry, one, other = max(found, key=lambda each: (each[0] > 0, abs(each[0])))
        more = f", one of {len(found)} such entries" if len(found) > 1 else ""
        return (
            f"In one direction alone, {other} {'hurts' if entry > 0 else 'helps'} {one} ({entry:+.3f}{more}), where "
            f"chance is about {limit:.3f}."
        )

    def _rough(self) -> str:
        """Say so where chance was measured on too few domains."""
        count = len(self.domains)
        return f"Measured on {count} domains, chance is a rough figure itself." if count <= FEW else ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data: the attributes, `conflicts` (a, b, conflict, the largest first), and `verdict`."""
        ranked = [{"domains": [first, second], "conflict": conflict} for conflict, first, second in self.ranked]
        merges = [list(merge) for merge in self.merges]
        return asdict(self) | {"merges": merges, "conflicts": ranked, "verdict": self.verdict}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conflicts:
        """Return what `to_json` gave."""
        values = {name: data[name] for name in cls.__dataclass_fields__}
        values["merges"] = [(int(left), int(right), float(conflict)) for left, right, conflict in data["merges"]]
        return cls(**values)


def _pair(ranked: tuple[float, str, str]) -> str:
    conflict, first, second = ranked
    return f"{first} and {second} ({conflict:+.3f})"


def conflict_matrix(
    domains: Sequence[str], alone: Mapping[str, float], joint: Mapping[tuple[str, str], Mapping[str, float]]
) -> list[list[float | None]]:
    """Return joint minus individual loss: row i, column j is what j does to i, None on the diagonal.

    Args:
        domains: Of the rows and the columns.
        alone: Loss of each domain after training on it alone.
        joint: Losses of both domains of a pair after training on both; the names of a pair are in sorted order.
    """

    def entry(one: str, other: str) -> float | None:
        return None if one == other else joint[min(one, other), max(one, other)][one] - alone[one]

    return [[entry(one, other) for other in domains] for one in domains]


def chance(alone: Mapping[str, float], again: Mapping[str, float]) -> float:
    """Return how far chance moves the conflict of a pair that does nothing to each other, about 19 times in 20.

    If another domain changed nothing, a domain's loss with it would differ from its loss alone as the losses of two
    orders of its rows do: by their root mean square difference r over the domains. A conflict is the mean of two such
    differences, and twice its standard deviation is 2 r / sqrt(2). Of few domains, r is a rough figure itself.

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

    The distance of two domains is d_ij = (c_ij + c_ji) / 2 - min over all pairs of the same, so that the pair that
    helps each other most has distance 0. With average linkage, the distance of two groups is the mean over the pairs
    between them: up to that shift, their mean conflict. So the tree can be cut at a conflict that
    means something, such as the one that chance brings about: groups are joined as long as the pairs between them do
    not hurt each other more than that on average. BOOM found joint training the best where nothing speaks against it.

    Args:
        matrix: Of conflicts, as `conflict_matrix` gives it, of two domains at least.
        count: Clusters to cut into; None: cut at a conflict.
        cut: Mean conflict up to which groups are joined.

    Returns:
        The merges, from the closest groups on; the domains from one end of the tree to the other; and the cluster of
        each domain, numbered from 0 in the order of their first domains.

    Raises:
        InputError: There are fewer domains than `count`.
    """
    from scipy.cluster.hierarchy import cut_tree, fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    size = len(matrix)
    check_count(count, size)
    entries = np.array([[0.0 if each is None else each for each in row] for row in matrix], np.float64)
    conflicts: NDArray[np.float64] = squareform((entries + entries.T) / 2, checks=False)
    least = float(conflicts.min())
    tree = linkage(conflicts - least, method="average")
    merges = [(int(left), int(right), float(height) + least) for left, right, height, _ in tree]
    labels = fcluster(tree, cut - least, "distance") if count is None else cut_tree(tree, n_clusters=count).ravel()
    numbers: dict[int, int] = {}
    return merges, leaves_list(tree).tolist(), [numbers.setdefault(int(label), len(numbers)) for label in labels]


def check_count(count: int | None, domains: int) -> None:
    """Refuse a number of clusters that there are not domains for.

    Raises:
        InputError: It is below one, or above the number of domains.
    """
    if count is not None and not 1 <= count <= domains:
        raise InputError(f"--clusters takes a number from 1 to {domains}, the number of domains; not {count}.")


def name_domain_clusters(domains: Sequence[str], labels: Sequence[int]) -> dict[str, list[str]]:
    """Return the domains of each cluster under the names cluster-1, cluster-2, ..."""
    found: dict[str, list[str]] = {f"cluster-{label + 1}": [] for label in sorted(set(labels))}
    for domain, label in zip(domains, labels, strict=True):
        found[f"cluster-{label + 1}"].append(domain)
    return found


def last_conflicts(root: Path) -> Conflicts | None:
    """Return the last analysis of a workspace; None if there was none, or its file cannot be read.

    Args:
        root: The `.continual` folder.
    """
    try:
        return Conflicts.from_json(json.loads((root / LAST).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a report is still worth having; the next analysis writes the file anew
