"""Parity with mergekit 0.1.5, called as it is; and our formula in float64 where we differ on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from continual.merge.methods import find_method
from tests.rows import make_pairs

pytest.importorskip("mergekit")

from mergekit.merge_methods import registry
from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.karcher import karcher_merge_tensors

TOLERANCE = 1e-5


def theirs(
    method: str,
    base: Tensor | None,
    models: Sequence[Tensor],
    weights: Sequence[float],
    parameters: Mapping[str, object],
) -> Tensor:
    """Merge one tensor with mergekit; `parameters` by our names."""
    given = {key: value for key, value in parameters.items() if key not in ("density", "gamma")}
    per_model = {key: parameters[key] for key in ("density", "gamma") if key in parameters}
    if method == "karcher":  # its own method takes no weights
        origin = torch.zeros_like(models[0]) if base is None else base
        share = [weight / sum(weights) for weight in weights]
        # ten steps, as by default, but not stopped at its default of 1e-5 of the length
        return origin + karcher_merge_tensors([model - origin for model in models], share, tol=1e-7)
    if method == "slerp":
        group = TensorGroup.from_tensors([base, *models], base_index=0)
        (merged,) = registry.get("slerp")([group], parameters={"t": weights[1] / sum(weights)})
        return merged
    tensors = list(models) if base is None else [base, *models]
    group = TensorGroup.from_tensors(tensors, base_index=None if base is None else 0)
    if method not in ("sce", "model_stock"):
        keys = [entry.id for entry in group.non_base]
        given["weight"] = dict(zip(keys, weights, strict=True))
        given |= {key: dict.fromkeys(keys, value) for key, value in per_model.items()}
    (merged,) = registry.get(method)([group], parameters=given)
    return merged


def ours(
    method: str,
    base: Tensor | None,
    models: Sequence[Tensor],
    weights: Sequence[float],
    parameters: Mapping[str, object],
    seed: int = 0,
) -> Tensor:
    """Merge one tensor as the engine does: subtract the base where the method works from one, and add it back."""
    contract = find_method(method)
    seeded = {"generator": torch.Generator().manual_seed(seed)} if contract.seeded else {}
    if contract.base == "first":
        return contract([*([] if base is None else [base]), *models], weights, **parameters, **seeded)
    if base is None:
        return contract(models, weights, **parameters, **seeded)
    return base + contract([model - base for model in models], weights, **parameters, **seeded)


def differences(
    method: str,
    base: Mapping[str, Tensor] | None,
    models: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | None = None,
    **parameters: object,
) -> dict[str, float]:
    """Return max |ours - mergekit's| of every tensor, in fp32.

    Args:
        method: A method that both have.
        base: Tensors of the base by name; None for none.
        models: Tensors of each model by name.
        weights: One for each model (for slerp two, the base's first); 1 each where None.
        **parameters: Ours; `lambda_` for lambda.
    """
    parameters = {key.rstrip("_"): value for key, value in parameters.items()}
    weights = [1.0] * len(models) if weights is None else weights
    found = {}
    for name in models[0]:
        origin = None if base is None else base[name].float()
        tensors = [model[name].float() for model in models]
        mine = ours(method, origin, tensors, weights, parameters)
        reference = theirs(method, origin, tensors, weights, parameters)
        assert mine.dtype == torch.float32
        assert mine.shape == reference.shape
        found[name] = float((mine - reference).abs().max()) if mine.numel() else 0.0
    return found


def model(seed: int, scale: float = 1.0, origin: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return random tensors: a matrix, one larger than a block, a bias, a single element."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (37, 53), "blocks": (300, 230), "bias": (41,), "one": (1,)}
    made = {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: tensor + (origin[name] if origin else 0) for name, tensor in made.items()}


BASE = model(0)
MODELS = [model(seed, 0.3, BASE) for seed in (1, 2, 3)]
WEIGHTS = [0.7, 1.5, 0.4]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("normalize", [True, False])
def test_linear(weights, normalize) -> None:
    assert max(differences("linear", None, MODELS, weights=weights, normalize=normalize).values()) < TOLERANCE


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("scale", [0.005, 0.3, 2.0])  # nearly parallel, and not
def test_slerp(share, scale) -> None:
    assert max(differences("slerp", BASE, [model(1, scale, BASE)], weights=[1 - share, share]).values()) < TOLERANCE


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("parameters", [{}, {"lambda_": 0.4}, {"normalize": True}])
def test_task_arithmetic(weights, parameters) -> None:
    assert max(differences("task_arithmetic", BASE, MODELS, weights=weights, **parameters).values()) < TOLERANCE


@pytest.mark.parametrize("weights", [None, WEIGHTS, [1.0, -0.5, 0.8]])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_ties(density, normalize, weights) -> None:
    assert (
        max(
            differences(
                "ties", BASE, MODELS, weights=weights, density=density, normalize=normalize, lambda_=0.8
            ).values()
        )
        < TOLERANCE
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("density", "gamma"), [(0.9, 0.01), (0.5, 0.1), (0.95, 0.2), (0.3, 0.0), (1.0, 0.1)])
def test_breadcrumbs(density, gamma, normalize) -> None:
    assert (
        max(
            differences(
                "breadcrumbs", BASE, MODELS, weights=WEIGHTS, density=density, gamma=gamma, normalize=normalize
            ).values()
        )
        < TOLERANCE
    )


@pytest.mark.parametrize("select_topk", [0.0, 0.1, 0.5, 1.0])
def test_sce(select_topk) -> None:
    assert max(differences("sce", BASE, MODELS, select_topk=select_topk).values()) < TOLERANCE


@pytest.mark.parametrize("count", [2, 3])
def test_model_stock(count) -> None:
    near = [model(seed, 0.3, model(9, 0.3, BASE)) for seed in (1, 2, 3)]  # updates that share a part
    assert max(differences("model_stock", BASE, near[:count]).values()) < TOLERANCE
    assert max(differences("model_stock", BASE, MODELS[:count]).values()) < TOLERANCE


@pytest.mark.parametrize("base", [None, BASE])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_multislerp(base, weights) -> None:
    assert max(differences("multislerp", base, MODELS, weights=weights).values()) < TOLERANCE


@pytest.mark.parametrize("base", [None, BASE])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_karcher_where_mergekits_ten_steps_have_converged(base, weights) -> None:
    near = [model(seed, 0.3, model(9, 0.6, BASE)) for seed in (1, 2, 3)]
    found = differences("karcher", base, near, weights)
    del found["one"]  # one dimension has no sphere: directions are 1 or -1
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_by_distribution(method) -> None:
    """The same mean and spread over seeds; mergekit scales by the measured l1 norm, which is 1 / density nearly."""
    generator = torch.Generator().manual_seed(0)
    base = torch.zeros(400)
    models = [torch.randn(400, generator=generator) for _ in range(2)]
    torch.manual_seed(0)
    draws, seeds = {"density": 0.5}, range(600)
    mine = torch.stack([ours(method, base, models, [1.0, 0.5], draws, seed) for seed in seeds])
    reference = torch.stack([theirs(method, base, models, [1.0, 0.5], draws) for _ in seeds])
    spread = reference.std(0) / len(seeds) ** 0.5
    distance = (mine.mean(0) - reference.mean(0)) / (2**0.5 * spread)
    assert abs(float(distance.square().mean()) - 1) < 0.4  # as far apart as two samples of one distribution
    np.testing.assert_allclose(mine.std(0).mean(), reference.std(0).mean(), rtol=0.03)


@pytest.fixture(scope="module")
def fine_tunes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """The packaged model and two short fine-tunes of it, as tensors of floating point by name."""
    from safetensors.torch import load_file

    from continual import Workspace

    folder = tmp_path_factory.mktemp("fine-tunes")
    Workspace.init(folder / "w")
    (folder / "w" / "continual.toml").write_text("[train]\nepochs = 1\nbatch_size = 8\nmax_length = 32\n")
    workspace = Workspace(folder / "w")
    for seed in range(2):
        file = folder / f"d{seed}.parquet"
        pq.write_table(pa.Table.from_pylist(make_pairs(32, seed=seed)), file)
        workspace.ingest(file, holdout=0)
        workspace.update(start="base", merge=1.0, replay=0.0)
    found = []
    for version in workspace.versions():
        tensors = load_file(workspace.registry.path(version.path) / "model.safetensors")
        found.append({name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()})
    base, *models = found
    return base, models


@pytest.mark.release
@pytest.mark.real_model
@pytest.mark.parametrize(
    ("method", "has_base", "parameters"),
    [
        ("linear", False, {}),
        ("slerp", True, {}),
        ("multislerp", True, {}),
        ("karcher", True, {}),
        ("task_arithmetic", True, {"lambda_": 0.7}),
    ],
)
def test_two_fine_tunes_of_the_packaged_model(fine_tunes, method, has_base, parameters) -> None:
    base, models = fine_tunes
    assert max(float((models[0][name] - base[name]).abs().max()) for name in base) > 1e-4
    if method == "slerp":
        assert max(differences("slerp", models[0], [models[1]], weights=[0.4, 0.6]).values()) < TOLERANCE
    else:
        assert (
            max(differences(method, base if has_base else None, models, weights=[0.4, 0.6], **parameters).values())
            < TOLERANCE
        )


@pytest.mark.real_model
def test_multislerp_of_whole_weights_is_nearer_to_the_formula_than_mergekit(fine_tunes) -> None:
    """mergekit sums the squares of twelve million elements in fp32."""
    _, models = fine_tunes
    share = np.array([0.4, 0.6])
    for name in models[0]:
        vectors = [model[name].double().numpy() for model in models]
        norms = [np.linalg.norm(vector) for vector in vectors]
        if not all(norms):
            continue
        mean = sum(w * vector / norm for w, vector, norm in zip(share, vectors, norms, strict=True))
        expected = share @ norms * mean / np.linalg.norm(mean)
        tensors = [model[name] for model in models]
        mine, reference = (merge("multislerp", None, tensors, share.tolist(), {}) for merge in (ours, theirs))
        np.testing.assert_allclose(mine.numpy(), expected, atol=1e-6)
        assert np.abs(mine.numpy() - expected).max() <= np.abs(reference.numpy() - expected).max() + 1e-7


@pytest.mark.release
@pytest.mark.real_model
@pytest.mark.parametrize(("method", "parameters"), [("ties", {"density": 0.4}), ("breadcrumbs", {"density": 0.8})])
def test_sparse_merges_of_real_fine_tunes_differ_only_where_magnitudes_are_equal(
    fine_tunes, method, parameters
) -> None:
    """Differences of fp32 weights lie on a grid, so many are equal: mergekit keeps some of them, ours all."""
    base, models = fine_tunes
    given = parameters | ({"gamma": 0.02} if method == "breadcrumbs" else {})
    for name in base:
        tensors = [model[name] for model in models]
        mine, reference = (merge(method, base[name], tensors, [0.4, 0.6], given) for merge in (ours, theirs))
        elsewhere = ((mine - reference).abs() > TOLERANCE).flatten()
        assert elsewhere.float().mean() < 0.001, name
        for place in elsewhere.nonzero().flatten().tolist():
            equal = [
                (vector.abs() == vector.abs().flatten()[place]).sum() for vector in (t - base[name] for t in tensors)
            ]
            assert max(int(count) for count in equal) > 1, name
