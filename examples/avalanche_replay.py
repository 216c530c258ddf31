"""Train a strategy of Avalanche on a workspace's stream, and print what it learned and forgot.

The strategy fine-tunes all weights from the root base, one experience after the other. Avalanche's ReplayPlugin gets
the rows of our replay draw. The workspace is only read.

    python examples/avalanche_replay.py WORKSPACE --rows 100

Needs `continual-embeddings[avalanche]`; see docs/avalanche.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

# Import the bridge first: it declares what the imports of Avalanche and transformers need.
from continual.eval.avalanche import retrieval_metrics
from continual.stream.avalanche import ReplayBuffer, WorkspaceBenchmark

# isort: split
import torch
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive

from continual import Workspace
from continual.errors import ContinualError
from continual.train.pairs import PairEncoder, PairLoss


def train(directory: Path, rows: int, policy: str, epochs: int, learning_rate: float, seed: int) -> dict[str, float]:
    """Train on a workspace's stream, print the R matrix, and return Avalanche's last metrics."""
    torch.manual_seed(seed)
    warnings.filterwarnings("ignore", message="No loggers specified")  # the scores are printed below
    workspace = Workspace(directory)
    settings = workspace.config.train
    model = workspace.load("v0")
    benchmark = WorkspaceBenchmark(workspace.registry, model, max_length=settings.max_length)
    for name, reason in benchmark.left_out.items():
        print(f"left out: {name}, {reason}")
    scores, *others = retrieval_metrics(benchmark, workspace.config.eval)
    plugins = []
    if rows:
        buffer = ReplayBuffer(benchmark, rows, policy)
        new = sum(len(step.dataset) for step in benchmark.train_stream) / len(benchmark.train_stream)
        past = max(1, round(settings.batch_size * rows / new))  # an epoch uses the buffer about once
        plugins.append(ReplayPlugin(rows, batch_size_mem=past, storage_policy=buffer))
    strategy = Naive(
        model=PairEncoder(model),
        optimizer=torch.optim.AdamW(model.parameters(), lr=learning_rate),
        criterion=PairLoss(settings.temperature),
        train_mb_size=settings.batch_size,
        train_epochs=epochs,
        eval_mb_size=settings.batch_size,
        plugins=plugins,
        evaluator=EvaluationPlugin(scores, *others),
    )
    metrics = strategy.eval(benchmark.test_stream)
    for step in benchmark.train_stream:
        strategy.train(step, eval_streams=[])
        metrics = strategy.eval(benchmark.test_stream)
        print(f"experience {step.current_experience}: {len(step.dataset)} rows of {', '.join(step.domains)}")
    width = max(map(len, scores.tasks))
    print(f"\n{'points':{width}}    base" + "".join(f"  exp {place:2}" for place in range(len(scores.matrix) - 1)))
    for name, column in zip(scores.tasks, scores.matrix.T, strict=True):
        print(f"{name:{width}}" + "".join(f"{cell:8.2f}" for cell in column))
    print("\nours:      " + ", ".join(f"{name} {value:.2f}" for name, value in scores.metrics().items()))
    ends = {str(metric): value for metric in others for name, value in metrics.items() if name.startswith(str(metric))}
    print("Avalanche: " + ", ".join(f"{name} {value:.2f}" for name, value in ends.items()))
    return ends


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--rows", type=int, default=100, help="earlier rows to replay; 0: no replay")
    parser.add_argument("--policy", default="uniform", help="uniform, balanced, temperature or reservoir")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        train(options.workspace, options.rows, options.policy, options.epochs, options.learning_rate, options.seed)
    except ContinualError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
