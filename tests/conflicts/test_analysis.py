"""The matrix of conflicts, its clustering by hand, and its verdict."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.cluster.hierarchy import dendrogram, fcluster, linkage
from scipy.spatial.distance import squareform

from continual.conflicts.analysis import (
    Conflicts,
    chance,
    cluster_domains,
    conflict_matrix,
    name_domain_clusters,
)
from tests import ROOT
from tests.conflicts.results import MATRIX, NAMES, made


def test_the_matrix_is_joint_minus_alone() -> None:
    alone = {"b": 1.0, "a": 2.0}
    joint = {("a", "b"): {"a": 2.5, "b": 0.75}}
    assert conflict_matrix(["b", "a"], alone, joint) == [[None, -0.25], [0.5, None]]


def test_chance_is_how_far_the_losses_of_two_orders_take_a_conflict() -> None:
    """By simulation: a domain's loss with another one that does nothing differs as that of another order does."""
    rng = np.random.default_rng(0)
    gaps = rng.normal(0, 0.02, 400) * np.sqrt(2)
    names = [f"d{number}" for number in range(400)]
    found = chance(dict.fromkeys(names, 1.0), dict(zip(names, 1.0 + gaps, strict=True)))
    losses = rng.normal(0, 0.02, (20_000, 4))
    conflicts = (losses[:, 0] - losses[:, 1] + losses[:, 2] - losses[:, 3]) / 2
    assert np.mean(np.abs(conflicts) <= found) == pytest.approx(0.95, abs=0.015)


# The clustering.


def test_clusters_of_a_matrix_worked_by_hand() -> None:
    merges, order, labels = cluster_domains(MATRIX)
    # med-table first, then bash-law; between the two the mean of 0.20, 0.20, 0.20 and 0.30.
    assert [set(merge[:2]) for merge in merges] == [{0, 2}, {1, 3}, {4, 5}]
    assert [merge[2] for merge in merges] == pytest.approx([-0.10, -0.02, 0.225])
    assert labels == [0, 1, 0, 1]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert name_domain_clusters(NAMES, labels) == {"cluster-1": ["med", "table"], "cluster-2": ["bash", "law"]}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_number_of_clusters_is_kept_to_even_where_conflicts_are_equal(count: int) -> None:
    even = [[None if i == j else 0.1 for j in range(4)] for i in range(4)]
    for matrix in (MATRIX, even):
        labels = cluster_domains(matrix, count)[2]
        assert len(set(labels)) == count
        assert list(dict.fromkeys(labels)) == list(range(count))


def test_all_that_hurts_stays_alone_and_all_that_helps_is_one() -> None:
    worse = [[None if each is None else each + 1 for each in row] for row in MATRIX]
    better = [[None if each is None else each - 1 for each in row] for row in MATRIX]
    assert cluster_domains(worse)[2] == [0, 1, 2, 3]
    assert cluster_domains(better)[2] == [0, 0, 0, 0]
    assert cluster_domains([[None, -0.1], [0.05, None]])[2] == [0, 0]
    assert cluster_domains([[None, -0.1], [0.15, None]])[2] == [0, 1]
    assert cluster_domains([[None, -0.1], [0.15, None]], cut=0.03)[2] == [0, 0]
    assert cluster_domains(MATRIX, cut=0.25)[2] == [0, 0, 0, 0]


def test_the_tree_is_scipys() -> None:
    rng = np.random.default_rng(3)
    for size in (2, 5, 9):
        entries = rng.normal(size=(size, size))
        matrix = [[None if i == j else float(entries[i, j]) for j in range(size)] for i in range(size)]
        both = (entries + entries.T) / 2
        np.fill_diagonal(both, 0)
        conflicts = squareform(both)
        tree = linkage(conflicts - conflicts.min(), "average")
        merges, order, labels = cluster_domains(matrix)
        assert order == dendrogram(tree, no_plot=True)["leaves"]
        np.testing.assert_allclose([merge[2] for merge in merges], tree[:, 2] + conflicts.min(), atol=1e-12)
        wanted = fcluster(tree, -conflicts.min(), "distance")
        assert [[a == b for b in labels] for a in labels] == [[a == b for b in wanted] for a in wanted]


def test_the_verdict_says_what_came_out() -> None:
    found = made()
    assert found.ranked[0] == (pytest.approx(0.30), "table", "law")
    assert found.verdict == (
        "Averaged over both directions, domains hurt each other in 4 of 6 pairs, most of all table and law (+0.300); "
        "domains help each other in 1 of 6 pairs, most of all med and table (-0.100); chance alone moves this average "
        "by about 0.030."
    )
    moved = [[None if each is None else each + by for each in row] for by in (0.2, -0.5) for row in MATRIX]
    worse, better = made(matrix=moved[:4]).verdict, made(matrix=moved[4:]).verdict
    assert ", domains hurt each other in 6 of 6 pairs, most of all table and law (+0.500); chance" in worse
    assert (
        ", no two domains hurt each other; domains help each other in 6 of 6 pairs, most of all med and table" in better
    )
    assert ", no two domains hurt or help each other by more than chance: chance" in made(chance=0.31).verdict


def test_the_verdict_names_what_the_mean_of_two_directions_hides() -> None:
    matrix = [[None, 0.05, 0.0], [-0.06, None, 0.03], [0.0, 0.0, None]]
    # Chance is sqrt(2) times as far for one entry as for the mean of two: 0.0283.
    assert made(domains=NAMES[:3], matrix=matrix, chance=0.02).verdict == (
        "Averaged over both directions, no two domains hurt or help each other by more than chance: chance alone moves "
        "this average by about 0.020. In one direction only, bash hurts med (+0.050, one of 3 such effects); "
        "chance alone moves one direction by about 0.028. With 3 domains, the chance level is itself a rough estimate."
    )
    one = made(matrix=[[None, -0.06], [0.03, None]], domains=NAMES[:2], chance=0.03).verdict
    assert (
        "In one direction only, bash helps med (-0.060); chance alone moves one direction by about 0.042. With" in one
    )
    assert "rough" not in made().verdict
    assert "one direction" not in made().verdict


def test_the_json_form_is_the_documented_one() -> None:
    data = made().to_json()
    assert json.loads(json.dumps(data)) == data
    assert Conflicts.from_json(data) == made()
    page = (ROOT / "docs" / "conflicts.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in page for key in data)
