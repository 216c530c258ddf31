"""Simulate how often intervals contain the true mean, and how often the gate errs.

    python benchmarks/coverage.py [--workspace DIR] [--repetitions N] [--seed N] [--alternatives]
                                  [--population NAME] [--only intervals|gate]

Queries are drawn with replacement from populations of differences between two versions, in points of nDCG@10, with a
known mean. Four populations are synthetic:

- one relevant: one relevant document per query, whose rank drifts;
- many relevant: many relevant documents per query, so that nDCG moves smoothly;
- rare: few queries change, and those by a lot;
- skewed: 8 % of the queries fall far and 30 % rise a little, which an interval of few queries can't show.

With `--workspace`, the differences of every version and its parent on every task of that workspace are added.

Two things are measured:

- intervals: how often the interval of the mean contains the true mean, by task size; `--alternatives` adds Student's t
  and three bootstraps;
- gate: how often equally good versions are refused, and how often a true fall is caught, by the number of tasks and
  with several corrections. Populations are tilted (weights exp(-k x)) until their mean is the fall.

The last line is one JSON object: `inside` (share of populations and sizes with a coverage from 0.93 to 0.97), `least`
and `most` coverage, `false_alarms` (the highest rate of the gate on equal versions), and all cells.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit

from continual import Workspace
from continual.config import GateConfig
from continual.eval.significance import (
    holm,
    mean_interval,
    moments,
    paired,
    paired_interval,
)
from continual.step.gate import decide as judge_step

Values = NDArray[np.float64]
Ends = tuple[Values, Values]

SYNTHETIC = ("one relevant", "many relevant", "rare", "skewed")
SIZES = (5, 10, 20, 50, 100, 300, 1000)
FEW = 100
POPULATION = 200_000
RESAMPLES = 1000


def ndcg(rank: Values) -> Values:
    """Return nDCG@10 of a query with one relevant document at a rank, 0 to 1."""
    return np.where(rank <= 10, 1.0 / np.log2(1.0 + rank), 0.0)


def made_up(generator: np.random.Generator) -> dict[str, Values]:
    """Return the synthetic populations of differences, in points."""
    depth = np.abs(generator.normal(0, 1.6, POPULATION))  # log rank; half of the queries have it first
    moved = np.where(generator.random(POPULATION) < 0.5, generator.normal(0.03, 0.8, POPULATION), 0.0)
    ranks = [np.floor(np.exp(np.maximum(0.0, each))) for each in (depth, depth + moved)]
    dice = generator.random(POPULATION)
    falls, rises = -100.0 * ndcg(generator.integers(1, 11, POPULATION)), 37.0 * generator.random(POPULATION)
    return {
        "one relevant": 100.0 * (ndcg(ranks[1]) - ndcg(ranks[0])),
        "many relevant": 100.0 * np.clip(generator.normal(-0.01, 0.1, POPULATION), -1, 1),
        "rare": np.where(dice < 0.03, falls, np.where(dice < 0.12, rises, 0.0)),
        "skewed": np.where(dice < 0.08, -60.0, np.where(dice > 0.7, 10.0, 0.0)),
    }


def real(folder: Path) -> dict[str, Values]:
    """Return the differences of every version and its parent on every task, in points."""
    registry, found = Workspace(folder).registry, {}
    scores = registry.scores()
    for version in registry.versions():
        for task in registry.tasks():
            pair = [scores.get((name or "", task.name)) for name in (version.id, version.parent)]
            if all(each is not None and each.path is not None for each in pair):
                new, old = paired(*(registry.path(each.path) for each in pair))  # type: ignore[union-attr, arg-type]
                found[f"{task.name} {version.parent}-{version.id}"] = 100.0 * (new - old)
    return found


def ours(samples: Values, generator: np.random.Generator) -> Ends:
    del generator
    return moments(samples).ends(0.95)


def student(samples: Values, generator: np.random.Generator) -> Ends:
    del generator
    count = samples.shape[1]
    reach = stdtrit(count - 1, 0.975) * samples.std(1, ddof=1) / np.sqrt(count)
    return samples.mean(1) - reach, samples.mean(1) + reach


def bootstrap(kind: str) -> Callable[[Values, np.random.Generator], Ends]:
    def ends(samples: Values, generator: np.random.Generator) -> Ends:
        found = [_resampled(kind, row, generator) for row in samples]
        return np.array([low for low, _ in found]), np.array([high for _, high in found])

    return ends


def _resampled(kind: str, row: Values, generator: np.random.Generator) -> tuple[float, float]:
    count, mean = len(row), row.mean()
    drawn = row[generator.integers(count, size=(RESAMPLES, count))]
    means, tails = drawn.mean(1), np.array([0.025, 0.975])
    if kind == "percentile":
        low, high = np.quantile(means, tails)
    elif kind == "bca":
        if np.ptp(row) == 0:
            return float(mean), float(mean)
        share = (np.count_nonzero(means < mean) + np.count_nonzero(means == mean) / 2) / RESAMPLES
        bias = _z(np.clip(share, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
        cubes, squares = ((row - mean) ** 3).sum(), ((row - mean) ** 2).sum()
        skew = cubes / (6.0 * squares**1.5)
        shifted = bias + np.array([_z(0.025), _z(0.975)])
        low, high = np.quantile(means, ndtr(bias + shifted / (1.0 - skew * shifted)))
    else:
        errors = drawn.std(1, ddof=1) / np.sqrt(count)
        ratios = np.where(errors > 0, (means - mean) / np.where(errors > 0, errors, 1.0), 0.0)
        own = row.std(ddof=1) / np.sqrt(count)
        high, low = mean - own * np.quantile(ratios, tails)
    return float(low), float(high)


def _z(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def coverage(populations: dict[str, Values], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return, per population, size and method, how often the interval contains the true mean."""
    methods = {"ours": ours}
    if args.alternatives:
        kinds = ("percentile", "bca", "studentized")
        methods |= {"t": student} | {kind: bootstrap(kind) for kind in kinds}
    cells = []
    for name, population in populations.items():
        truth = population.mean()
        for size in SIZES:
            generator = np.random.default_rng([args.seed, size])
            samples = population[generator.integers(len(population), size=(args.repetitions, size))]
            for method, ends in methods.items():
                if size > FEW and method not in ("ours", "t"):
                    continue  # with more queries they agree, and a bootstrap takes minutes
                low, high = ends(samples, generator)
                inside = (low <= truth + 1e-9) & (truth - 1e-9 <= high)
                cell = {"population": name, "size": size, "method": method, "coverage": float(inside.mean())}
                cells.append(cell | {"too_low": float((high < truth).mean()), "too_high": float((low > truth).mean())})
                cells[-1]["width"] = float(np.median(high - low))
    return cells


def tilted(population: Values, mean: float) -> Values:
    """Return weights with which the mean of a population is `mean`; no value is added to the population."""
    scale = population.std()

    def weights(slope: float) -> Values:
        powers = slope * population / scale
        shares = np.exp(powers - powers.max())
        return np.asarray(shares / shares.sum())

    return weights(brentq(lambda slope: float(weights(slope) @ population) - mean, -20.0, 20.0))


def decide(falls: list[float], p: list[float], limit: float, level: float = 0.05) -> dict[str, bool]:
    """Return whether each correction refuses, by one-sided p-values; "none" judges each interval alone."""
    order, count = np.argsort(p), len(p)
    ranked = np.array(p)[order]
    step_up = {
        "hochberg": level / (count - np.arange(count)),
        "benjamini-hochberg": level * np.arange(1, count + 1) / count,
    }
    called = {"none": np.array(p) <= 0.025, "holm": np.array(holm(p)) <= level}
    for name, bounds in step_up.items():
        below = np.flatnonzero(ranked <= bounds)
        called[name] = np.isin(np.arange(count), order[: below[-1] + 1] if below.size else [])
    beyond = np.array(falls) > limit
    return {name: bool((each & beyond).any()) for name, each in called.items()}


def gate(
    population: Values, tasks: int, size: int, falls: list[float] | None, args: argparse.Namespace
) -> dict[str, float]:
    """Return how often the gate refuses, with its limits at their defaults and at 0, and under each correction at 0.

    There are `tasks` learned before, of which the first ones fell by `falls`, one just learned, and three OOD tasks.
    On tasks that did not fall, both versions are equal: each query's two scores are swapped at random. Without `falls`
    (None), neither version is better on average, but the population keeps its skew.
    """
    generator = np.random.default_rng([args.seed, tasks, size])
    if falls is not None:
        population = np.concatenate([population, -population])
    shares = [np.cumsum(tilted(population, -fall)) for fall in [*(falls or []), 0.0]]
    kinds = {f"t{number}": "learned" for number in range(tasks)} | {"new": "new"} | {f"o{n}": "OOD" for n in range(3)}
    refused: dict[str, int] = {}
    for _ in range(args.repetitions):
        drawn = {}
        for place, task in enumerate(kinds):
            share = shares[min(place, len(shares) - 1)]
            dice = generator.random(size) * share[-1]
            drawn[task] = population[np.minimum(np.searchsorted(share, dice), len(population) - 1)]
        zeros, points = np.zeros(size), {task: float(values.mean()) for task, values in drawn.items()}
        pairs = {task: (values / 100.0, zeros) for task, values in drawn.items()}
        intervals = {task: paired_interval(*pair) for task, pair in pairs.items()}
        means = {
            "gain": mean_interval([pairs["new"]]),
            "ood": mean_interval([pair for task, pair in pairs.items() if kinds[task] == "OOD"]),
        }
        old = dict.fromkeys(kinds, 0.0)
        for name, limits in (("gate", GateConfig()), ("strict", GateConfig(max_forgetting=0, max_ood_loss=0))):
            decision = judge_step(points, old, kinds, limits, intervals, means)
            refused[name] = refused.get(name, 0) + (not decision.passed)
        tested = [intervals[task] for task in kinds if kinds[task] == "learned"] + list(means.values())
        choices = decide([-each.difference for each in tested], [each.p_below() for each in tested], 0.0)
        assert choices["holm"] == (not decision.passed)  # the last one is the strict one
        for name, choice in choices.items():
            refused[name] = refused.get(name, 0) + choice
    return {name: count / args.repetitions for name, count in refused.items()}


def gates(populations: dict[str, Values], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the gate's false alarms (no fall), and its power against one fall and against falls everywhere."""
    cells = []
    for name, population in populations.items():
        for size in (50, 300):
            for tasks in (1, 10, 30):
                cases: dict[str, list[float] | None] = {"the same": []}
                if (
                    abs(population.mean()) < population.std() / 5
                ):  # otherwise tilting would remove everything that moves
                    cases["as good"] = None
                cases |= {f"one fell by {fall}": [float(fall)] for fall in (1, 2, 4)}
                if tasks > 1:
                    cases |= {f"all fell by {fall}": [float(fall)] * tasks for fall in (1, 2, 4)}
                for case, falls in cases.items():
                    rates = gate(population[:20_000], tasks, size, falls, args)
                    cells.append({"population": name, "size": size, "tasks": tasks, "case": case} | rates)
    return cells


def table(cells: list[dict[str, Any]]) -> str:
    """Return cells as a Markdown table."""
    names = list(cells[0])
    rows = [[f"{each:.3f}" if isinstance(each, float) else str(each) for each in cell.values()] for cell in cells]
    return "\n".join(" | ".join(row) for row in [names, ["---"] * len(names), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="Workspace whose versions give the real populations.")
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alternatives", action="store_true", help="Add other intervals; takes minutes.")
    parser.add_argument(
        "--population",
        action="append",
        help="Population for the gate; by default one relevant, and the real one that moves most.",
    )
    parser.add_argument("--only", choices=["intervals", "gate"])
    args = parser.parse_args()
    populations = made_up(np.random.default_rng(args.seed))
    if args.workspace is not None:
        populations |= real(args.workspace)
    for name, values in populations.items():
        what = f"sd {values.std():.1f}, {float((values == 0).mean()):.0%} unchanged, {len(values)} queries"
        print(f"{name}: mean {values.mean():+.2f}, {what}")
    result: dict[str, Any] = {"seed": args.seed, "repetitions": args.repetitions}
    if args.only != "gate":
        cells = coverage(populations, args)
        print(f"\n{table(cells)}")
        own = [cell["coverage"] for cell in cells if cell["method"] == "ours"]
        result |= {
            "inside": float(np.mean([0.93 <= each <= 0.97 for each in own])),
            "least": min(own),
            "most": max(own),
        }
        result["intervals"] = cells
    if args.only != "intervals":
        moves = max(populations, key=lambda name: -np.inf if name in SYNTHETIC else populations[name].std())
        chosen = args.population or ["one relevant", *([moves] if args.workspace else [])]
        cells = gates({name: populations[name] for name in chosen}, args)
        print(f"\n{table(cells)}")
        result["false_alarms"] = max(cell["strict"] for cell in cells if cell["case"] == "the same")
        result["gate"] = cells
    print(json.dumps(result))


if __name__ == "__main__":
    main()
