"""Compare the searched merge of two specialists with eleven points on the line between them.

    python benchmarks/coefficients.py --data DIR [--domains nl2bash metatool] [--rows 1000]

Trains `phased` on two domains: a warm-up, one specialist per domain, and their merge with coefficients searched by
gradient. Prints the held-out loss of each domain and their mean, for eleven points on the line between the specialists
and for the merge. The held-out rows are those of the search; no phase trains on them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from continual import Workspace
from continual.recipes.rows import read_training_rows
from continual.train.objective import Objective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with DOMAIN/train.parquet.")
    parser.add_argument("--domains", nargs=2, default=["nl2bash", "metatool"])
    parser.add_argument("--rows", type=int, default=1000, help="Rows of each domain.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace.init(Path(temporary, "workspace"))
        for name in args.domains:
            file = Path(temporary, f"{name}.parquet")
            pq.write_table(pq.read_table(args.data / name / "train.parquet").slice(0, args.rows), file)
            workspace.ingest(file, domain=name)
        done = workspace.train("phased")
        print(table(workspace, {each.name: each.version for each in done.phases}, args.domains))


def table(workspace: Workspace, made: dict[str, str], domains: list[str]) -> str:
    """Return the losses on the line and of the merge as a Markdown table.

    Args:
        made: Version of each phase, by phase.
    """
    versions = {phase: workspace.version(version) for phase, version in made.items()}
    rows = read_training_rows(workspace.registry, workspace.registry.batches(), workspace.config.merge.search_rows)
    if rows.held is None or rows.held_windows != versions["merged"].provenance.held:
        raise RuntimeError("The rows held out now differ from those of the search.")
    config, held = workspace.config.train, rows.held
    folders = {phase: workspace.registry.path(version.path) for phase, version in versions.items()}
    objective = Objective(folders["warm-up"], held, config)
    one, two = (Objective(folders[f"learn-{name}"], held, config).parameters() for name in domains)
    lines = [f"| | mean | {' | '.join(domains)} |", "|---|---|---|---|"]
    for step in range(11):
        losses = objective.evaluate({name: one[name].lerp(two[name], step / 10) for name in one})
        lines.append(_row(f"{1 - step / 10:.1f} {domains[0]} + {step / 10:.1f} {domains[1]}", losses, domains))
    merged = Objective(folders["merged"], held, config)
    lines.append(_row("searched", merged.evaluate(merged.parameters()), domains))
    return "\n".join(lines)


def _row(what: str, losses: dict[str, float], domains: list[str]) -> str:
    cells = [sum(losses.values()) / len(losses), *(losses[name] for name in domains)]
    return f"| {what} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |"


if __name__ == "__main__":
    main()
