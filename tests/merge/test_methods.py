"""Merge methods: formulae in numpy float64, invariants, and what degenerates."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from continual.errors import InputError, NotFoundError
from continual.merge.methods import Method, find_method, methods
from continual.merge.methods._blocks import BLOCK
from continual.merge.methods._geometry import gram
from continual.merge.methods._sparse import largest
from continual.merge.methods.dare_linear import thinned
from continual.merge.methods.karcher import mean_direction
from continual.merge.methods.pairwise_slerp import pairwise_slerp_coefficients, positions
from tests import ROOT

DOCS = ROOT / "docs"
ALL = sorted(methods())
SHAPES = [(), (0,), (0, 3), (1,), (1, 1), (7,), (5, 4), (3, 2, 2), (BLOCK + 3,)]


def draw(shape: tuple[int, ...], count: int, seed: int = 0, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for _ in range(count)]


def call(method: Method, vectors: list[Tensor], weights: list[float], seed: int = 0, **parameters: float) -> Tensor:
    more: dict[str, object] = {"generator": torch.Generator().manual_seed(seed)} if method.seeded else {}
    if method.needs_texts:  # every model sees inputs of its own
        more["grams"] = [vector.double().T @ vector.double() if vector.ndim == 2 else None for vector in vectors]
    return method(vectors, weights, **method.resolve(parameters), **more)


def numbers(vectors: list[Tensor]) -> list[np.ndarray]:
    return [vector.double().numpy() for vector in vectors]


def count_for(method: Method, wanted: int = 3) -> int:
    return 2 if method.rescaled else min(wanted, method.most or wanted)  # what is merged so far, and one more


def test_every_method_is_found() -> None:
    assert set(ALL) == {
        "breadcrumbs",
        "dare_linear",
        "dare_ties",
        "karcher",
        "linear",
        "magmax",
        "model_stock",
        "multislerp",
        "opcm",
        "pairwise_slerp",
        "regmean",
        "sce",
        "slerp",
        "task_arithmetic",
        "ties",
        "wise",
    }
    with pytest.raises(NotFoundError, match="Did you mean 'karcher'"):
        find_method("karchr")


@pytest.mark.parametrize("name", ALL)
def test_contract_says_what_and_where_from(name) -> None:
    method = methods()[name]
    assert method.reference.startswith("https://")
    assert method.summary.endswith(".")
    assert method.merge.__doc__
    for parameter in method.parameters.values():
        assert parameter.low <= parameter.default <= parameter.high
    with pytest.raises(InputError, match="takes"):
        method.resolve({"unknown": 1})


def test_values_that_do_nothing_or_mean_nothing_are_refused() -> None:
    for name, key in (("ties", "density"), ("breadcrumbs", "density"), ("sce", "select_topk")):
        with pytest.raises(InputError, match=f"{name}: {key} = 0 keeps nothing of the updates. Give a value above 0"):
            find_method(name).resolve({key: 0.0})
    with pytest.raises(InputError, match=r"normalize = 0\.5, but it takes true or false"):
        find_method("ties").resolve({"normalize": 0.5})
    with pytest.raises(InputError, match="opcm takes the parameters alpha, not 'previous'"):
        find_method("opcm").resolve({"previous": 2.0})
    assert find_method("ties").resolve({"normalize": 0.0})["normalize"] is False


@pytest.mark.parametrize("name", [name for name in ALL if not methods()[name].rescaled])
def test_weights_that_a_method_refuses_are_refused_before_it_has_vectors(name) -> None:
    method, vectors = methods()[name], draw((4, 3), 2)
    for weights in ([0.25, 0.75], [1.0, -1.0], [-1.0, 2.0], [0.0, 0.0]):
        try:
            call(method, vectors, weights)
        except InputError as error:
            with pytest.raises(InputError, match=re.escape(str(error))):
                method.rehearse(weights, method.resolve({}))
        else:
            method.rehearse(weights, method.resolve({}))


@pytest.mark.parametrize("name", ALL)
def test_contract_is_on_the_page(name) -> None:
    method = methods()[name]
    page = (DOCS / "merging.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` | {method.base} |")]
    assert f"| {'yes' if method.symmetric else 'no'} |" in row
    assert row.endswith("| yes |" if method.seeded else "| |")
    assert method.weighted != ("do nothing" in row)
    assert all(
        f"`{key}` ({str(known.default).lower().removesuffix('.0')})" in row for key, known in method.settable.items()
    )
    assert method.reference in page


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_any_shape_gives_fp32_of_that_shape_and_leaves_the_inputs(name, shape) -> None:
    method = methods()[name]
    vectors = draw(shape, count_for(method))
    before = [vector.clone() for vector in vectors]
    merged = call(method, vectors, [0.5] * len(vectors))
    assert merged.dtype == torch.float32
    assert merged.shape == shape
    assert torch.isfinite(merged).all()
    assert all(map(torch.equal, vectors, before))
    assert all(merged.data_ptr() != vector.data_ptr() for vector in vectors if vector.numel())


@pytest.mark.parametrize("density", [0.3, 0.9])
@pytest.mark.parametrize("name", ALL)
def test_zero_vectors_give_numbers(name, density) -> None:
    method = methods()[name]
    given_density = {key: density for key in ("density", "select_topk") if key in method.parameters}
    zero, other = torch.zeros(6, 5), draw((6, 5), 1)[0]
    for vectors in ([zero, zero], [zero, other], [other, zero], [other, -other], [other, other]):
        merged = call(method, vectors, [1.0, 1.0], **given_density)
        assert torch.isfinite(merged).all()
        if not any(vector.any() for vector in vectors):
            assert not merged.any()


@pytest.mark.parametrize("name", [name for name in ALL if methods()[name].least == 1 and not methods()[name].rescaled])
def test_one_model(name) -> None:
    """One model with nothing dropped is that model."""
    method, (vector,) = methods()[name], draw((9, 4), 1)
    whole = {"density": 1.0} if "density" in method.parameters else {}
    torch.testing.assert_close(call(method, [vector], [1.0], **whole), vector, rtol=0, atol=1e-6)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(4)), data=st.data())
@pytest.mark.parametrize("name", [name for name in ALL if methods()[name].symmetric and methods()[name].most is None])
def test_order_changes_nothing(name, seed, order, data) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 3), min_size=4, max_size=4))
    vectors = draw((11, 7), 4, seed)
    method = methods()[name]
    options = {key: 0.4 for key in ("density", "select_topk") if key in method.parameters}
    straight = call(method, vectors, weights, **options)
    mixed = call(method, [vectors[i] for i in order], [weights[i] for i in order], **options)
    torch.testing.assert_close(mixed, straight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["slerp", "wise"])
def test_order_of_two(name) -> None:
    first, second = draw((11, 7), 2)
    method = methods()[name]
    straight, mixed = call(method, [first, second], [1, 3]), call(method, [second, first], [3, 1])
    torch.testing.assert_close(mixed, straight, rtol=1e-5, atol=1e-5)


@settings(max_examples=20)
@given(values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=20))
def test_wise_ends_are_bit_for_bit(values) -> None:
    first, second = torch.tensor(values), torch.tensor(values[::-1])
    for weights, end in (([1.0, 0.0], first), ([0.0, 1.0], second)):
        assert torch.equal(find_method("wise")([first, second], weights).view(torch.int32), end.view(torch.int32))


def test_wise_is_the_straight_way() -> None:
    first, second = draw((40, 3), 2)
    a, b = numbers([first, second])
    np.testing.assert_allclose(find_method("wise")([first, second], [3, 1]), a + 0.25 * (b - a), atol=1e-6)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_the_same_seed_gives_the_same_bytes(name) -> None:
    vectors = draw((BLOCK + 77,), 2)
    method = methods()[name]
    assert torch.equal(call(method, vectors, [1, 1], seed=3), call(method, vectors, [1, 1], seed=3))
    assert not torch.equal(call(method, vectors, [1, 1], seed=3), call(method, vectors, [1, 1], seed=4))


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.9])
def test_dare_keeps_its_density_and_its_mean(density) -> None:
    (vector,) = draw((200_001,), 1)
    kept = thinned(vector, density, torch.Generator().manual_seed(0))
    share = float((kept != 0).double().mean())
    assert abs(share - density) < 5 * (density * (1 - density) / len(vector)) ** 0.5
    assert torch.equal(kept[kept != 0], vector[kept != 0])
    # mean over seeds approaches the dense merge
    small = [vector[:300], vector[300:600]]
    method = find_method("dare_linear")
    runs = torch.stack([call(method, small, [1.0, 0.5], seed, density=0.5) for seed in range(800)])
    dense = numbers([small[0] + 0.5 * small[1]])[0]
    error = runs.double().mean(0).numpy() - dense
    spread = np.sqrt(numbers([small[0]])[0] ** 2 + 0.25 * numbers([small[1]])[0] ** 2) / np.sqrt(800)
    assert abs(np.mean((error / spread) ** 2) - 1) < 0.35


def test_dare_ties_with_density_1_is_ties() -> None:
    vectors = draw((9, 9), 3)
    dense = call(find_method("dare_ties"), vectors, [1, 2, 1], density=1, normalize=True)
    torch.testing.assert_close(dense, call(find_method("ties"), vectors, [1, 2, 1], density=1))


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.2, 1.5, 0.7], [1, 0, 2]])
def test_multislerp_is_its_closed_form(weights) -> None:
    vectors = draw((50, 40), 3)
    rows, share = numbers(vectors), np.array(weights) / sum(weights)
    lengths = np.array([np.linalg.norm(row) for row in rows])
    mean = sum(w * row / length for w, row, length in zip(share, rows, lengths, strict=True))
    expected = (share @ lengths) * mean / np.linalg.norm(mean)
    np.testing.assert_allclose(find_method("multislerp")(vectors, weights), expected, atol=1e-6)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    common=st.floats(0, 3),
    weights=st.lists(st.floats(0.05, 3), min_size=2, max_size=6),
)
def test_karcher_meets_the_first_order_condition(seed, common, weights) -> None:
    """sum_i w_i log_m(u_i) = 0, in float64 on the whole vectors."""
    *vectors, shared = draw((30, 20), len(weights) + 1, seed)
    vectors = [vector + common * shared for vector in vectors]
    rows, share = numbers(vectors), np.array(weights) / sum(weights)
    lengths = np.array([np.linalg.norm(row) for row in rows])
    merged = find_method("karcher")(vectors, weights).double().numpy()
    np.testing.assert_allclose(np.linalg.norm(merged), share @ lengths, rtol=1e-6)
    m = merged / np.linalg.norm(merged)
    total = np.zeros_like(m)
    for w, row, length in zip(share, rows, lengths, strict=True):
        u = row / length
        across = u - np.sum(u * m) * m
        sine = np.linalg.norm(across)
        total += w * np.arctan2(sine, np.sum(u * m)) * across / max(sine, 1e-300)
    assert np.linalg.norm(total) < 1e-6


@pytest.mark.parametrize("name", ["karcher", "multislerp"])
def test_directions_that_cancel_give_the_plain_mean(name) -> None:
    (vector,) = draw((40,), 1)
    merged = find_method(name)([vector, -vector], [1, 1])
    assert not merged.any()
    merged = find_method(name)([3 * vector, -vector], [1, 1])
    torch.testing.assert_close(merged, vector)


@pytest.mark.parametrize("seed", range(40))
def test_karcher_of_directions_far_apart(seed) -> None:
    """Two to five directions anywhere in two to five dimensions: wider than steps of full length can settle."""
    rng = np.random.default_rng(seed)
    count, size = rng.integers(2, 6, 2)
    u = rng.standard_normal((count, size))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    w = rng.uniform(0.05, 1, count)
    found = mean_direction(torch.tensor(u @ u.T), torch.tensor(w))
    assert found is not None
    m = found.numpy() @ u
    assert np.linalg.norm(m) == pytest.approx(1)
    theta = np.arccos(np.clip(u @ m, -1, 1))
    stretch = np.where(theta > 1e-9, theta / np.maximum(np.sin(theta), 1e-12), 1)
    assert np.linalg.norm((w * stretch) @ (u - (u @ m)[:, None] * m)) < 1e-7


def test_karcher_in_one_dimension_follows_the_majority() -> None:
    """A line has two directions: what is opposite to the mean cannot turn it."""
    vectors = [torch.tensor([value]) for value in (2.0, 1.0, -3.0)]
    torch.testing.assert_close(find_method("karcher")(vectors, [1, 1, 1]), torch.tensor([2.0]))


def test_karcher_refuses_a_negative_weight() -> None:
    with pytest.raises(InputError, match="weights of 0 or more, but they are 1, -1"):
        find_method("karcher")(draw((3,), 2), [1, -1])


@pytest.mark.parametrize("name", ["linear", "slerp", "wise", "multislerp", "karcher", "pairwise_slerp"])
def test_weights_that_sum_to_zero_are_refused(name) -> None:
    with pytest.raises(InputError, match="0"):
        find_method(name)(draw((3,), 2), [0, 0])


@pytest.mark.parametrize("name", ["task_arithmetic", "breadcrumbs", "dare_linear"])
def test_weights_that_sum_to_zero_are_refused_when_they_divide(name) -> None:
    method = find_method(name)
    with pytest.raises(InputError, match=name):
        call(method, draw((3,), 2), [1, -1], normalize=True)
    assert torch.isfinite(call(method, draw((3,), 2), [1, -1])).all()


def test_gram_is_exact_where_fp32_is_not() -> None:
    vectors = [vector + 100 for vector in draw((3 * BLOCK + 5,), 3)]
    rows = np.stack(numbers(vectors))
    np.testing.assert_allclose(gram(vectors).numpy(), rows @ rows.T, rtol=1e-13)


def test_pairwise_slerp_is_slerp_after_slerp() -> None:
    vectors = draw((20, 30), 4)
    weights = [1.0, 2.0, 0.5, 3.0]
    merged, so_far = numbers(vectors)[0], weights[0]
    for row, weight in zip(numbers(vectors)[1:], weights[1:], strict=True):
        so_far += weight
        t = weight / so_far
        angle = np.arccos(np.sum(merged * row) / np.linalg.norm(merged) / np.linalg.norm(row))
        merged = np.sin((1 - t) * angle) / np.sin(angle) * merged + np.sin(t * angle) / np.sin(angle) * row
    np.testing.assert_allclose(
        find_method("pairwise_slerp")(vectors, weights, **{"lambda": 0.7}), 0.7 * merged, atol=1e-6
    )


def test_pairwise_slerp_gives_equal_weights_equal_shares_of_near_vectors() -> None:
    t = positions([1, 1, 1, 1])
    torch.testing.assert_close(t, torch.tensor([1 / 2, 1 / 3, 1 / 4], dtype=torch.float64))
    near = [vector + 8 for vector in torch.eye(4)]
    torch.testing.assert_close(
        pairwise_slerp_coefficients(gram(near), t), torch.full_like(near[0], 0.25).double(), rtol=0.01, atol=0
    )
    # at right angles the later ones get less: sin(pi / 8) for the last of four
    assert float(pairwise_slerp_coefficients(gram(list(torch.eye(4))), t)[3]) == pytest.approx(np.sin(np.pi / 8))


@pytest.mark.parametrize("kind", ["apart", "parallel", "zero"])
def test_pairwise_slerp_has_a_gradient_in_t(kind) -> None:
    first, second, third = draw((40,), 3)
    vectors = {
        "apart": [first, second, third],
        "parallel": [first, 2 * first, third],
        "zero": [first * 0, second, third],
    }[kind]
    products = gram(vectors)
    t = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda position: pairwise_slerp_coefficients(products, position), (t,))


def test_ties_with_one_update_cancels_its_weight() -> None:
    (vector,) = draw((100,), 1)
    ties = find_method("ties")
    for weight in (0.1, 1.0, 7.0):
        merged = call(ties, [vector], [weight], density=0.2, **{"lambda": 0.5})
        expected = np.where(np.abs(vector) >= np.sort(np.abs(vector))[-20], 0.5 * vector, 0)
        np.testing.assert_allclose(merged, expected, rtol=1e-6)


def test_ties_keeps_what_equals_the_last_one_kept() -> None:
    vector = torch.tensor([1.0, -1.0, 1.0, 0.5, 0.25])
    assert largest(vector, 0.2) == 1
    merged = call(find_method("ties"), [vector], [1.0], density=0.2)
    assert merged.tolist() == [1, -1, 1, 0, 0]


def test_sce_weighs_by_energy_at_any_scale() -> None:
    """mergekit takes equal weights below a mean square of 1e-6, which is what fine-tunes have."""
    first, second = draw((60,), 2)
    second = 3 * second
    a, b = numbers([first, second])
    shares = np.array([(a**2).sum(), (b**2).sum()]) / ((a**2).sum() + (b**2).sum())
    sign = np.where(a + b >= 0, 1, -1)
    agree = np.stack([a * sign > 0, b * sign > 0])
    expected = (shares[0] * a * agree[0] + shares[1] * b * agree[1]) / np.maximum(shares @ agree, 1e-300)
    for scale in (1.0, 1e-4):
        merged = find_method("sce")([scale * first, scale * second], [1, 1])
        np.testing.assert_allclose(merged / scale, expected, rtol=1e-4, atol=1e-6)


def test_model_stock_keeps_the_base_where_updates_are_orthogonal() -> None:
    vectors = [torch.tensor([1.0, 0, 0]), torch.tensor([0, 2.0, 0])]
    assert not find_method("model_stock")(vectors, [1, 1]).any()
    same = draw((9,), 1)[0]
    torch.testing.assert_close(find_method("model_stock")([same, same, same], [1, 1, 1]), same)


def test_model_stock_takes_the_angle_at_any_scale() -> None:
    """mergekit holds the product of two norms at 1e-6 or more, which hides the angle between small updates."""
    first, shared, second = draw((50,), 3, scale=1e-5)
    vectors = [first + shared, second + shared]
    a, b = numbers(vectors)
    cosine = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    expected = 2 * cosine / (1 + cosine) * (a + b) / 2
    np.testing.assert_allclose(find_method("model_stock")(vectors, [1, 1]) * 1e5, expected * 1e5, atol=1e-5)


def test_magmax_takes_the_largest_and_knows_no_order() -> None:
    vectors = [torch.tensor([1.0, -3, 2, 0]), torch.tensor([-2.0, 1, -2, 0])]
    for order in (vectors, vectors[::-1]):
        assert find_method("magmax")(order, [1, 1]).tolist() == [-2, -3, 2, 0]
    one, *more = draw((500,), 4)
    step = one
    for vector in more:
        step = find_method("magmax")([step, vector], [1, 1])
    assert torch.equal(step, find_method("magmax")([one, *more], [1] * 4))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(12, 7), (7, 12)])
def test_opcm_is_the_published_projection(shape, alpha) -> None:
    """In the full basis, as published: C without its diagonal and its leading square."""
    merged, new = draw(shape, 2)
    a, b = numbers([merged, new])
    left, singular, right = np.linalg.svd(a, full_matrices=True)
    inside = left.T @ b @ right.T
    np.fill_diagonal(inside, 0)
    rank = int((np.cumsum(singular) / singular.sum() <= alpha + 1e-12).sum())
    inside[:rank, :rank] = 0
    expected = 1.4 * a + left @ inside @ right
    found = find_method("opcm")([merged, new], [1, 1], alpha=alpha, previous=1.4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_opcm_takes_nothing_out_where_nothing_is_merged() -> None:
    opcm = find_method("opcm")
    zero, new = torch.zeros(6, 4), draw((6, 4), 1)[0]
    assert torch.equal(opcm([zero, new], [1, 1]), new)
    first, second = draw((8,), 2)
    torch.testing.assert_close(opcm([first, second], [1, 1], previous=1.5), 1.5 * first + second)


def test_opcm_of_a_low_rank_update_takes_out_only_its_directions() -> None:
    """Directions that a merged LoRA update does not use stay whole, whatever basis LAPACK completes."""
    left, right, new = (*draw((30, 2), 2), draw((30, 30), 1, 5)[0])
    merged = left @ right.T
    added = numbers([find_method("opcm")([merged, new], [1, 1], alpha=1.0) - merged])[0]
    basis, _ = np.linalg.qr(numbers([left])[0])
    other, _ = np.linalg.qr(numbers([right])[0])
    new64 = numbers([new])[0]
    expected = new64 - basis @ basis.T @ new64 @ other @ other.T
    np.testing.assert_allclose(added, expected, atol=1e-4)


def inputs(count: int, rows: int = 60, width: int = 7) -> list[np.ndarray]:
    """Return what a layer sees in some models: correlated inputs of different sizes."""
    generator = np.random.default_rng(5)
    return [
        (number + 1) * generator.normal(size=(rows, width)) @ generator.normal(size=(width, width))
        for number in range(count)
    ]


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [2.0, 0.5, 1.0]])
def test_regmean_is_the_least_squares_fit_of_what_each_model_gives(weights: list[float]) -> None:
    vectors, seen = draw((4, 7), 3), inputs(3)
    grams = [torch.from_numpy(rows.T @ rows) for rows in seen]
    merged = find_method("regmean")(vectors, weights, grams=grams, off_diagonal=1.0)
    rows, wanted = [], []
    for weight, each, vector in zip(weights, seen, numbers(vectors), strict=True):
        scaled = each * np.sqrt(weight / (each**2).sum())  # each model counts as much, whatever its inputs' size
        rows.append(scaled)
        wanted.append(scaled @ vector.T)
    fit, *_ = np.linalg.lstsq(np.vstack(rows), np.vstack(wanted), rcond=None)
    np.testing.assert_allclose(merged.numpy(), fit.T, rtol=1e-4, atol=1e-4)


def test_regmean_of_equal_models_is_that_model_bit_for_bit() -> None:
    (vector,) = draw((4, 7), 1)
    grams = [torch.from_numpy(rows.T @ rows) for rows in inputs(2)]
    assert torch.equal(find_method("regmean")([vector, vector.clone()], [1.0, 3.0], grams=grams), vector)


def test_regmean_without_correlations_weighs_each_input_by_its_variance() -> None:
    vectors = draw((3, 4), 2)
    variances = torch.tensor([[4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0]], dtype=torch.float64)
    merged = find_method("regmean")(vectors, [1.0, 1.0], grams=[row.diag() for row in variances], off_diagonal=0.0)
    first, second = vectors
    np.testing.assert_allclose(merged[:, 0], first[:, 0], atol=1e-4)  # only the first model uses it
    np.testing.assert_allclose(merged[:, 1], (first[:, 1] + second[:, 1]) / 2, atol=1e-4)  # neither does
    np.testing.assert_allclose(merged[:, 2:], second[:, 2:], atol=1e-4)


def test_regmean_of_other_tensors_is_the_weighted_mean() -> None:
    vectors = draw((5,), 2)
    merged = find_method("regmean")(vectors, [1.0, 3.0], grams=[None, None])
    torch.testing.assert_close(merged, 0.25 * vectors[0] + 0.75 * vectors[1])
    with pytest.raises(InputError, match="weights of 0 or more"):
        find_method("regmean")(vectors, [1.0, -3.0], grams=[None, None])
