"""The study that chooses the defaults: one stream under many rules, beside joint training and the published systems.

    python benchmarks/study.py --data DIR [--results FILE] [--group NAME ... | --cell CELL ...] [--list] [--table]

DIR holds a folder per domain with `train.parquet` and `test/{corpus,queries,qrels}.parquet`. A cell is a stream of five
domains learned one by one by `Workspace.update` with the cell's settings, or a recipe of `Workspace.train` on all of
them. Its name says all that decides it, and runs it again: "hard from=current merge=0.6 replay=0.1 seed=0", or "hard
recipe=joint". What is left out has the value of the regime (see REGIMES) or of BASE.

Results are appended to FILE (study.jsonl beside this script), and cells that it holds already are left out: an
interrupted study goes on where it was. `--cell` runs cells whether or not FILE has them; `--table` prints FILE.

Regimes: *easy*, the standard stream with a gentle training (learning rate 2e-4, one epoch); *hard*, a German legal
domain in the middle and two narrow ones at the end, trained hard (1e-3, two epochs); *defaults*, the standard stream,
and *defaults-hard*, the hard one, with what `continual.toml` says if nothing is set.

Figures, in points of nDCG@10: `gain` of ACC over base at the end; `bwt`, and `forgetting`, the largest fall of a domain
from its best score along the way (Chaudhry et al. take the mean), measured right after learning and at the end, or at
every step with `--every-step`; `ood`, the mean change over the OOD tasks; `pairs` trained. Screening scores 200 queries
of each task on a cut corpus; `--full` all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual import Workspace
from continual.config import Config, validate

OOD = ["squad_en", "gsm8k", "scitldr"]
STANDARD = ["nl2bash", "medquad", "tatqa", "metatool", "banking77"]
HARD = ["nl2bash", "tatqa", "legal_de", "metatool", "banking77"]
PLAIN = {"distillation": 0.0, "guide_margin": "off"}
"""What the rules are compared with: InfoNCE and nothing that holds it back."""

REGIMES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "easy": (STANDARD, {"learning_rate": 2e-4, "epochs": 1, **PLAIN}),
    "hard": (HARD, {"learning_rate": 1e-3, "epochs": 2, **PLAIN}),
    "defaults": (STANDARD, {}),
    "defaults-hard": (HARD, {}),
}
"""By name: the stream, and the settings of [train]."""

BASE = {"from": "current", "merge": "1", "replay": "0.1", "policy": "uniform", "order": "forth", "seed": "0"}
"""What a cell's name leaves out; of the two regimes of the defaults, what `continual.toml` has."""

SETTINGS = {
    "distillation": "distillation",
    "distillation_loss": "distillation_loss",
    "anchor": "anchor",
    "guide": "guide_margin",
    "lr": "learning_rate",
    "epochs": "epochs",
    "rank": "lora_rank",
    "alpha": "lora_alpha",
    "temperature": "temperature",
    "batch": "batch_size",
    "bidirectional": "bidirectional",
}
"""Words of a cell's name that are settings of [train]."""

GROUPS: dict[str, list[str]] = {
    "baselines": [
        f"{regime} {words}"
        for regime in ("hard", "easy")
        for words in (
            "recipe=joint",
            "replay=0",
            "from=base merge=equal replay=0.4 policy=reservoir",
            "recipe=boom",
            "recipe=phased",
        )
    ],
    "grid": [
        f"{regime} {words}"
        for regime in ("hard", "easy")
        for words in (
            "replay=0.1",
            "merge=0.6",
            "merge=0.8",
            "merge=search",
            "from=base merge=running-mean",
            "from=base merge=opcm",
            "from=base merge=magmax",
            "merge=0.6 replay=0",
            "merge=0.6 replay=0.05",
            "merge=0.6 replay=0.2",
            "merge=0.6 replay=0.4",
            "from=base merge=running-mean replay=0",
            "from=base merge=running-mean replay=0.4",
        )
    ],
    "distillation": [
        f"hard {words}"
        for words in (
            "merge=0.8 distillation=3 guide=0",
            "merge=1 distillation=3 guide=0",
            "merge=0.8 guide=0",
            "merge=0.8 distillation=1 guide=0",
        )
    ],
    "defaults": [
        "defaults",
        "defaults-hard",
        "easy recipe=joint lr=1e-3 epochs=2",
        "easy replay=0 lr=1e-3 epochs=2",
    ],
}
"""Cells by the question they answer."""


@dataclass(frozen=True)
class Cell:
    """One run: a name, and what it means.

    Attributes:
        name: As it was given.
        regime: A key of `REGIMES`.
        recipe: The recipe that trains on all domains at once; None: they are learned one by one.
        words: The settings by word, `BASE` filled in.
    """

    name: str
    regime: str
    recipe: str | None
    words: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str) -> Cell:
        regime, *rest = name.split()
        given = dict(word.split("=", 1) for word in rest if "=" in word)
        known = {*BASE, *SETTINGS, "recipe"}
        if regime not in REGIMES or given.keys() - known or any("=" not in word for word in rest):
            sys.exit(
                f"{name!r} is no cell: it begins with one of {', '.join(REGIMES)}, then WORD=VALUE with a word of "
                f"{', '.join(sorted(known))}."
            )
        base = {"order": "forth", "seed": "0"} if regime.startswith("defaults") else BASE
        return cls(" ".join(name.split()), regime, given.get("recipe"), base | given)

    @property
    def domains(self) -> list[str]:
        """The stream in the cell's order."""
        stream = REGIMES[self.regime][0]
        return stream if self.words["order"] == "forth" else stream[::-1]

    def config(self, base: Config) -> Config:
        """Return a workspace's settings with the cell's."""
        train = dict(REGIMES[self.regime][1])
        for word, setting in SETTINGS.items():
            if word in self.words:
                train[setting] = json.loads(self.words[word]) if _number(self.words[word]) else self.words[word]
        data = base.model_dump(mode="json")
        data["train"] |= train
        if "replay" in self.words:
            data["replay"] |= {"share": float(self.words["replay"]), "policy": self.words.get("policy", "uniform")}
        return validate(data, self.name)

    @property
    def update(self) -> dict[str, Any]:
        """The arguments of `Workspace.update` besides the domains."""
        found: dict[str, Any] = {"seed": int(self.words["seed"])}
        if "merge" in self.words:
            merge = self.words["merge"]
            found["merge"] = float(merge) if _number(merge) else merge
        if "from" in self.words:
            found["start"] = self.words["from"]
        return found


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def template(folder: Path, args: argparse.Namespace, domains: list[str], base: Config) -> None:
    """Make the workspace that every cell of a stream begins as: all rows and tasks known, the root base scored."""
    Workspace.init(folder, base=args.base)
    workspace = Workspace(folder)
    for name in OOD:
        workspace.add_task(name, args.data / name / "test")
    for name in domains:
        source = args.data / name
        workspace.ingest(source / "train.parquet", domain=name, task=source / "test")
    workspace.config = base
    workspace.evaluate("v0", suite="step")


def settings(args: argparse.Namespace) -> Config:
    """Return the settings that all cells share: nothing is refused, and what is scored is cut to size."""
    cut = {} if args.full else {"queries": 200, "documents": args.documents}
    suites = {"step": cut}
    gate = {"max_forgetting": 100.0, "max_ood_loss": 100.0, "min_gain": -100.0}
    shared = {"suites": suites, "gate": gate, "compat": {"step": False}, "eval": {"max_length": 128}}
    return validate(shared, "the study")


def run(cell: Cell, args: argparse.Namespace, folder: Path, began: Path) -> dict[str, Any]:
    """Run one cell in a copy of its template and return its figures."""
    shutil.copytree(began, folder)
    workspace, shared = Workspace(folder), settings(args)
    config = cell.config(shared)
    clock, every = time.perf_counter(), cell.domains
    if cell.recipe is not None:
        workspace.config = config
        workspace.train(cell.recipe, seed=int(cell.words["seed"]))
    for place, domain in enumerate(every if cell.recipe is None else []):
        last = place == len(every) - 1
        scored = ["*"] if last else [domain, *(every[:place] if args.every_step else [])]
        workspace.config = config.replace("suites", step=config.suites.step.model_dump() | {"tasks": scored})
        step = workspace.update(domains=[domain], **cell.update)
        print(f"  {cell.name}: {step.version.id} +{domain}, {time.perf_counter() - clock:.0f} s", file=sys.stderr)
    return figures(cell, workspace) | {"wall": round(time.perf_counter() - clock)}


def figures(cell: Cell, workspace: Workspace) -> dict[str, Any]:
    """Return what a finished cell came to."""
    versions = workspace.versions()
    points = {(version, task): score.score for (version, task), score in workspace.registry.scores().items()}
    root, last = versions[0].id, versions[-1].id
    names = cell.domains
    changes = {name: points[last, name] - points[root, name] for name in [*names, *OOD]}
    falls, back = [], []
    if cell.recipe is None:
        for place, name in enumerate(names[:-1], start=1):
            seen = [points[v.id, name] for v in versions[place:-1] if (v.id, name) in points]
            falls.append(max(seen) - points[last, name])
            back.append(points[last, name] - points[versions[place].id, name])
    return {
        "cell": cell.name,
        "gain": sum(changes[name] for name in names) / len(names),
        "ood": sum(changes[name] for name in OOD) / len(OOD),
        "bwt": sum(back) / len(back) if back else None,
        "forgetting": max(falls) if falls else None,
        "pairs": sum(version.pairs_trained for version in versions),
        "seconds": round(sum(version.seconds for version in versions)),
        "changes": {name: round(change, 3) for name, change in changes.items()},
        "weights": [version.recipe.get("weight") for version in versions[1:]],
        "sha256": versions[-1].sha256,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return results as a Markdown table, the best gain of each regime first."""
    lines = []
    for regime, (_, _) in REGIMES.items():
        rows = [found for found in results if found["cell"].split()[0] == regime]
        if not rows:
            continue
        names = list(rows[0]["changes"])
        lines += [
            f"| {regime} | gain | OOD | BWT | worst fall | pairs | " + " | ".join(names) + " |",
            "|" + "---|" * (6 + len(names)),
        ]
        for found in sorted(rows, key=lambda row: -row["gain"]):
            fixed = [_signed(found[name]) for name in ("gain", "ood", "bwt")]
            fall = "" if found["forgetting"] is None else f"{found['forgetting']:.1f}"
            cells = [" ".join(found["cell"].split()[1:]) or "(as set)", *fixed, fall, f"{found['pairs']:,}"]
            cells += [_signed(found["changes"].get(name)) for name in names]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("study.jsonl"))
    parser.add_argument("--base", default="packaged")
    parser.add_argument("--group", nargs="+", choices=list(GROUPS), default=[])
    parser.add_argument("--cell", action="append", default=[])
    parser.add_argument("--full", action="store_true", help="Score all queries on the whole corpora.")
    parser.add_argument("--documents", type=int, default=300, help="Documents beside the relevant ones, in screening.")
    parser.add_argument("--every-step", action="store_true", help="Score every domain learned so far at every step.")
    parser.add_argument("--keep", type=Path, help="Folder to keep the workspaces in that the cells begin with.")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    known = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    if args.table:
        print(table(known))
        return
    done = {(found["cell"], found["scored"]) for found in known}
    scored = ("full" if args.full else f"cut {args.documents}") + (", every step" if args.every_step else "")
    wanted = [cell for group in args.group or ([] if args.cell else GROUPS) for cell in GROUPS[group]]
    cells = [Cell.parse(name) for name in [*args.cell, *(name for name in wanted if (name, scored) not in done)]]
    if args.list:
        print("\n".join(cell.name for cell in cells))
        return
    if args.data is None:
        sys.exit("--data names the folder of the domains.")
    with tempfile.TemporaryDirectory() as temporary:
        kept = args.keep or Path(temporary)
        kept.mkdir(parents=True, exist_ok=True)
        for number, cell in enumerate(cells, start=1):
            began = kept / "-".join([*sorted(cell.domains), "full" if args.full else str(args.documents)])
            if not began.exists():
                partial = Path(temporary, "template")
                template(partial, args, sorted(cell.domains), settings(args))
                shutil.move(partial, began)
            folder = Path(temporary, f"cell-{number}")
            found = run(cell, args, folder, began) | {"scored": scored}
            shutil.rmtree(folder)
            print(json.dumps(found), flush=True)
            with args.results.open("a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
