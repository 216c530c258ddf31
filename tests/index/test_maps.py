"""Maps of query vectors: equal to numpy's and scipy's, and what they recover where the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.special import rel_entr, softmax
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge

from continual.index.fitting import (
    Candidate,
    agreement,
    choose,
    fit,
)
from continual.index.maps import (
    QueryMap,
    Texts,
    affine,
    mlp,
    procrustes,
    texts_of,
)

SIZE = 12


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def rotated() -> tuple[Texts, np.ndarray]:
    """Rows whose new vectors are the old ones turned by an orthogonal matrix, and that matrix."""
    rng = np.random.default_rng(0)
    rotation = ortho_group.rvs(SIZE, random_state=1)
    old = unit(rng.normal(size=(200, SIZE)))
    queries = unit(old + 0.3 * rng.normal(size=old.shape)) @ rotation
    return Texts(queries, old, old @ rotation), rotation


def test_procrustes_is_scipys(rotated: tuple[Texts, np.ndarray]) -> None:
    texts, query_map = rotated
    noisy = texts.new + 0.1 * np.random.default_rng(2).normal(size=texts.new.shape)
    found = procrustes(texts.old, noisy, centre=False).layers[0].weight
    assert found == pytest.approx(orthogonal_procrustes(texts.old, noisy)[0], abs=1e-9)
    assert procrustes(texts.old, texts.new + 5.0).layers[0].weight == pytest.approx(query_map, abs=1e-9)


def test_affine_is_a_ridge_regression_of_the_change(rotated: tuple[Texts, np.ndarray]) -> None:
    texts, _ = rotated
    new = texts.new + 1.0
    centred = texts.old - texts.old.mean(axis=0)
    penalty = 0.3 * np.trace(centred.T @ centred) / SIZE
    expected = np.eye(SIZE) + Ridge(alpha=penalty).fit(texts.old, new - texts.old).coef_.T
    assert affine(texts.old, new, ridge=0.3).layers[0].weight == pytest.approx(expected, abs=1e-8)
    still = affine(texts.old, new, ridge=1e9).layers[0].weight
    assert still == pytest.approx(np.eye(SIZE), abs=1e-6)


def test_the_change_of_an_affine_map_has_the_rank_that_is_asked(rotated: tuple[Texts, np.ndarray]) -> None:
    texts, _ = rotated
    thin = np.outer(np.arange(SIZE), np.ones(SIZE)) / 20
    found = affine(texts.old, texts.old @ (np.eye(SIZE) + thin), ridge=0.0, rank=1).layers[0].weight - np.eye(SIZE)
    assert np.linalg.matrix_rank(found, tol=1e-8) == 1
    assert found == pytest.approx(thin, abs=1e-8)  # what has this rank is found as it is
    full = affine(texts.old, texts.new, ridge=0.1).layers[0].weight - np.eye(SIZE)
    cut = affine(texts.old, texts.new, ridge=0.1, rank=3).layers[0].weight - np.eye(SIZE)
    assert np.linalg.matrix_rank(cut, tol=1e-8) == 3 < np.linalg.matrix_rank(full, tol=1e-8)


def test_a_turned_space_is_turned_back(rotated: tuple[Texts, np.ndarray]) -> None:
    texts, _ = rotated
    fitted = fit(texts, "linear")
    assert fitted.map.method == "procrustes"
    assert (fitted.rows, fitted.held_out) == (160, 40)
    assert fitted.candidates[0].map.method == "identity"
    assert fitted.candidates[0].agreement < 0.5
    held = texts.take(np.arange(0, 200, 5))
    assert fitted.map(held.queries) @ held.old.T == pytest.approx(held.queries @ held.new.T, abs=1e-6)
    assert agreement(fitted.map, held, held).agreement == 1.0


def test_a_space_that_did_not_move_is_left_alone(rotated: tuple[Texts, np.ndarray]) -> None:
    texts, _ = rotated
    still = Texts(texts.queries, texts.old, texts.old)
    assert fit(still, "auto").map.method == "identity"
    # Noise that no map can know of: one of many will look better by luck, and is not taken.
    noisy = texts.old + 0.05 * np.random.default_rng(3).normal(size=texts.old.shape)
    assert fit(Texts(unit(texts.old), texts.old, unit(noisy)), "linear").map.method == "identity"


def test_the_simplest_within_one_standard_error_is_chosen() -> None:
    query_map = QueryMap("identity", {}, ())
    best = np.random.default_rng(0).random(100)
    noise = np.tile([0.1, -0.1], 50)  # of standard error 0.01
    tried = [
        Candidate(query_map, float(each.mean()), each) for each in (best - 0.02 + noise, best - 0.005 + noise, best)
    ]
    assert choose(tried) is tried[1]
    assert choose(tried[::2]) is tried[2]


def test_a_hidden_layer_starts_as_the_linear_map_and_learns_what_that_cannot(
    rotated: tuple[Texts, np.ndarray],
) -> None:
    texts, _ = rotated
    start = procrustes(texts.old, texts.new)
    same = mlp(texts, start, hidden=8, steps=0)
    assert same(texts.queries) == pytest.approx(start(texts.queries), abs=1e-6)
    curved = Texts(unit(np.abs(texts.queries)), texts.old, unit(np.abs(texts.old)))
    line = affine(curved.old, curved.new, ridge=0.01)
    hidden = mlp(curved, line, hidden=64, steps=300)
    assert divergence(hidden, curved) < 0.8 * divergence(line, curved)
    again = mlp(curved, line, hidden=64, steps=300)
    assert np.array_equal(again(curved.queries), hidden(curved.queries))


def divergence(query_map: QueryMap, texts: Texts) -> float:
    """Return the mean Kullback-Leibler divergence of the rankings at temperature 0.05, by scipy."""
    wanted = softmax(texts.queries @ texts.new.T / 0.05, axis=1)
    found = softmax(query_map(texts.queries) @ texts.old.T / 0.05, axis=1)
    return float(rel_entr(wanted, found).sum(axis=1).mean())


def test_lengths_count_only_where_vectors_are_compared_by_dot_product(rotated: tuple[Texts, np.ndarray]) -> None:
    texts, _ = rotated
    lengths = np.random.default_rng(4).uniform(0.5, 2, size=(200, 1))
    arrays = texts.queries, (texts.old * lengths).astype(np.float32), texts.new * lengths
    assert texts_of(*arrays, normalise=True).old == pytest.approx(texts.old, abs=1e-6)
    dot = fit(texts_of(*arrays, normalise=False), "procrustes").map
    assert dot(3 * texts.queries) == pytest.approx(3 * dot(texts.queries), abs=1e-5)
    cosine = fit(texts_of(*arrays, normalise=True), "procrustes").map
    assert cosine(3 * texts.queries) == pytest.approx(cosine(texts.queries), abs=1e-6)
    assert np.linalg.norm(cosine(texts.queries), axis=1) == pytest.approx(1)


def test_a_folder_encodes_queries_as_the_map_does(tiny_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from continual.errors import FoldError
    from continual.index.adapter import prove_adapter, write_adapter
    from continual.train.similarity import Similarity

    plain = SentenceTransformer(str(tiny_model), device="cpu")
    words = ["bat bet", "cal cel cil", "dot"]
    vectors = plain.encode_query(words)
    rng = np.random.default_rng(5)
    old = unit(rng.normal(size=(60, 32)))
    linear = affine(old, unit(old + 0.2 * rng.normal(size=old.shape)), ridge=0.1)
    maps = [QueryMap("identity", {}, ()), linear, mlp(Texts(old, old, old), linear, hidden=8, steps=3)]
    for query_map in maps:
        folder = tmp_path / query_map.method
        write_adapter(tiny_model, query_map, folder, {"old": "v0", "new": "v1"}, Similarity())
        assert prove_adapter(folder, words, query_map(vectors)) < 1e-6
        loaded = SentenceTransformer(str(folder), device="cpu")
        assert loaded.encode_query(words) == pytest.approx(query_map(vectors), abs=1e-6)
        assert loaded.prompts == plain.prompts
        assert "queries only" in (folder / "README.md").read_text(encoding="utf-8").lower().replace("*", "")
    with pytest.raises(FoldError, match="differs by"):
        prove_adapter(tmp_path / "affine", words, -linear(vectors))
