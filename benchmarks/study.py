"""The study that chooses the defaults: one stream under many rules, beside joint training and the published systems.

    python benchmarks/study.py --data DIR [--results FILE] [--group NAME ... | --cell CELL ...] [--list] [--table]

DIR holds a folder per domain with `train.parquet` and `test/{corpus,queries,qrels}.parquet`. A cell is a stream of five
domains learned one by one by `Workspace.update` with the cell's settings, or a recipe of `Workspace.train` on all of
them. Its name says all that decides it, and runs it again: "hard from=current merge=0.6 replay=0.1 seed=0", or "hard
recipe=joint". What is left out has the value of the regime (see REGIMES) or of BASE.

Results are appended to FILE (study.jsonl beside this script). Cells that it has, with the settings that they would have
now, are left out: an interrupted study goes on where it was. `--cell` runs cells whether or not FILE has them, and says
of one that it has how far the figures lie apart; `--table` prints FILE.

Regimes: *easy*, the standard stream with a gentle training (learning rate 2e-4, one epoch); *hard*, a German legal
domain in the middle and two narrow ones at the end, trained hard (1e-3, two epochs); *defaults*, the standard stream,
and *defaults-hard*, the hard one, with what `continual.toml` says if nothing is set; *long*, the standard stream in
twenty batches of 125 rows, four of each domain, in an order drawn by the seed, with the same settings.

Figures, in points of nDCG@10: `gain` of ACC over base at the end; `bwt`, and `forgetting`, the largest fall of a domain
from its best score along the way (Chaudhry et al. take the mean): that best is of every step with `--every-step`, and
without it the score right after the domain was learned, so that the fall may have been larger; `ood`, the mean change
over the OOD tasks; `pairs` trained, in a search too. Screening scores 200 queries of each task on a cut corpus;
`--full` all. A long stream has also `course`, the gain after each of its last eleven steps, and `kept`, by domain: the
step of its last batch, its gain then and its gain at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from continual import Workspace
from continual.config import Config, validate
from continual.recipes.cost import spent

OOD = ["squad_en", "gsm8k", "scitldr"]
STANDARD = ["nl2bash", "medquad", "tatqa", "metatool", "banking77"]
HARD = ["nl2bash", "tatqa", "legal_de", "metatool", "banking77"]
PLAIN = {"distillation": 0.0, "distillation_scale": "off", "guide_margin": "off"}
"""What the rules are compared with: InfoNCE and nothing that holds it back."""

REGIMES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "easy": (STANDARD, {"learning_rate": 2e-4, "epochs": 1, **PLAIN}),
    "hard": (HARD, {"learning_rate": 1e-3, "epochs": 2, **PLAIN}),
    "defaults": (STANDARD, {}),
    "defaults-hard": (HARD, {}),
    "long": (STANDARD, {}),
}
"""By name: the stream, and the settings of [train]."""

AS_SET = {"defaults", "defaults-hard", "long"}
"""Regimes in which what a cell's name leaves out is what `continual.toml` has."""

VISITS, VISIT_ROWS = 4, 125
"""Batches of each domain in a long stream, and the rows of one."""

BASE = {"from": "current", "merge": "1", "replay": "0.1", "policy": "uniform", "order": "forth", "seed": "0"}
"""What a cell's name leaves out; in the regimes of `AS_SET`, what `continual.toml` has."""

SETTINGS = {
    "distillation": "distillation",
    "distillation_loss": "distillation_loss",
    "scale": "distillation_scale",
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

UNUSED = {"from", "merge", "replay", "policy", "order", "distillation", "distillation_loss", "scale", "guide", "anchor"}
"""Words that mean nothing to a recipe of all domains: it has no steps, and sets the rest itself."""

EVERY_STEP = ", every step"
"""Ending of what a result says of its scores, if every domain learned was scored at every step."""

STEP = "merge=0.8 epochs=1 lr=1e-3 replay=0.3"
"""A step as the defaults have it, but for what holds it back."""

GROUPS: dict[str, list[str]] = {
    "baselines": [
        f"{regime} {words}"
        for regime in ("hard", "easy")
        for words in (
            "recipe=joint",
            "replay=0",
            "from=base merge=equal replay=0.4 policy=reservoir epochs=1",
            "recipe=boom epochs=1",
            "recipe=phased epochs=1",
        )
    ],
    "rules": [
        f"hard {start} {words} epochs=1 replay=0.3"
        for start, rules in {
            "from=current": ("merge=1", "merge=0.6", "merge=0.8", "merge=search"),
            "from=base": ("merge=equal", "merge=running-mean", "merge=opcm", "merge=magmax"),
        }.items()
        for words in rules
    ],
    "replay": [f"hard merge=0.8 epochs=1 replay={share}" for share in (0, 0.05, 0.1, 0.2, 0.4)],
    "holding": [
        *(f"{regime} {STEP} {hold}" for regime in ("hard", "easy") for hold in ("", "distillation=1")),
        *(f"{regime} {STEP} distillation=2 merge=1" for regime in ("hard", "easy")),
        *(
            f"{regime} {hold}"
            for regime in ("defaults-hard", "defaults")
            for hold in ("distillation=2 scale=off", "distillation=4 scale=0.02", "distillation=16 scale=0.005")
        ),
    ],
    "training": [
        *(
            f"easy {STEP} {words}"
            for words in ("merge=0.6", "guide=0", "temperature=0.1", "temperature=0.03", "bidirectional=true")
        ),
        *(f"defaults-hard {words}" for words in ("rank=64 alpha=128", "policy=balanced", "batch=16", "batch=64")),
        *(f"{regime} replay=0.4" for regime in ("defaults-hard", "defaults")),
        "hard merge=0.7 epochs=1 lr=2e-3 replay=0.3",
        "hard merge=0.8 distillation=3 guide=0",
        "hard merge=0.6",
    ],
    "finalists": [
        f"{regime} {words}" for regime in ("defaults-hard", "defaults") for words in ("seed=1", "order=back")
    ],
    "defaults": [
        "defaults",
        "defaults-hard",
        "easy recipe=joint lr=1e-3 epochs=2",
        "hard recipe=joint epochs=1",
        "easy recipe=joint lr=1e-3",
        "long seed=1",
    ],
}
"""Cells by the question they answer."""


@dataclass(frozen=True)
class Cell:
    """One run: a name, and what it means.

    Attributes:
        name: The words that differ from what the regime has, in order: one name for one cell.
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
        if regime == "long" and "recipe" in given:
            sys.exit(
                f"{name!r}: the steps of a long stream are what it is for; a recipe of all domains is run as `easy`."
            )
        if "recipe" in given and UNUSED & given.keys():
            sys.exit(f"{name!r}: a recipe of all domains has no {', '.join(sorted(UNUSED & given.keys()))}.")
        base = {"order": "forth", "seed": "0"} if regime in AS_SET else BASE
        train = {word: REGIMES[regime][1].get(setting) for word, setting in SETTINGS.items()}
        said = {word: value for word, value in given.items() if not _same(value, (base | train).get(word))}
        title = " ".join([regime, *(f"{word}={value}" for word, value in sorted(said.items()))])
        return cls(title, regime, given.get("recipe"), base | said)

    @property
    def domains(self) -> list[str]:
        """The stream in the cell's order."""
        stream = REGIMES[self.regime][0]
        return stream if self.words["order"] == "forth" else stream[::-1]

    @property
    def steps(self) -> list[str]:
        """The domain of each step."""
        if self.recipe is not None:
            return []
        if self.regime != "long":
            return self.domains
        visits = self.domains * VISITS
        random.Random(int(self.words["seed"])).shuffle(visits)
        return visits

    def config(self, base: Config) -> Config:
        """Return a workspace's settings with the cell's."""
        train = dict(REGIMES[self.regime][1])
        for word, setting in SETTINGS.items():
            if word in self.words:
                train[setting] = json.loads(self.words[word]) if _number(self.words[word]) else self.words[word]
        data = base.model_dump(mode="json")
        data["train"] |= train
        if "replay" in self.words:
            data["replay"]["share"] = float(self.words["replay"])
        if "policy" in self.words:
            data["replay"]["policy"] = self.words["policy"]
        return validate(data, self.name)

    def settings(self, base: Config) -> str:
        """Return a digest of what decides the figures and is not in the name: the settings that it leaves out."""
        config = self.config(base)
        sections = {name: getattr(config, name).model_dump(exclude_none=True) for name in ("replay", "merge")}
        decided = json.dumps([config.train.deciding(), sections], sort_keys=True)
        return hashlib.sha256(decided.encode()).hexdigest()[:12]

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


def _same(value: str, other: Any) -> bool:
    return float(value) == float(other) if _number(value) and _number(str(other)) else value == other


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def template(folder: Path, args: argparse.Namespace, domains: list[str], base: Config, *, batches: bool) -> None:
    """Make the workspace that every cell of a stream begins as: all tasks known, the root base scored.

    Its rows are known too, unless they come in `batches`: of these only the first of each domain.
    """
    Workspace.init(folder, base=args.base)
    workspace = Workspace(folder)
    for name in OOD:
        workspace.add_task(name, args.data / name / "test")
    for name in domains:
        source = args.data / name
        rows = batch(args, name, 0, folder) if batches else source / "train.parquet"
        workspace.ingest(rows, domain=name, task=source / "test")
    workspace.config = base
    workspace.evaluate("v0", suite="step")


def batch(args: argparse.Namespace, domain: str, visit: int, folder: Path) -> Path:
    """Write the rows of a domain that a long stream brings at a visit, counted from 0, and return the file."""
    rows = pq.read_table(args.data / domain / "train.parquet")
    path = folder / f"{domain}-{visit}.parquet"
    pq.write_table(rows.slice(visit * VISIT_ROWS, VISIT_ROWS), path)
    return path


def settings(args: argparse.Namespace) -> Config:
    """Return the settings that all cells share: nothing is refused, and what is scored is cut to size."""
    cut = {} if args.full else {"queries": 200, "documents": args.documents}
    suites = {"step": cut}
    gate = {"max_forgetting": 100.0, "max_ood_loss": 100.0, "min_gain": -100.0}
    shared = {"suites": suites, "gate": gate, "index": {"step": False}, "eval": {"max_length": 128}}
    return validate(shared, "the study")


def run(cell: Cell, args: argparse.Namespace, folder: Path, began: Path) -> dict[str, Any]:
    """Run one cell in a copy of its template and return its figures."""
    shutil.copytree(began, folder)
    workspace, shared = Workspace(folder), settings(args)
    config = cell.config(shared)
    clock = time.perf_counter()
    if cell.recipe is not None:
        workspace.config = config
        workspace.train(cell.recipe, seed=int(cell.words["seed"]))
    steps = cell.steps
    for place, domain in enumerate(steps):
        visit = steps[:place].count(domain)
        if visit:
            workspace.ingest(batch(args, domain, visit, folder), domain=domain)
        scored = sorted({domain, *(steps[:place] if args.every_step else [])})
        if cell.regime == "long" and place >= len(steps) - 11:
            scored = cell.domains
        if place == len(steps) - 1:
            scored = ["*"]
        workspace.config = config.replace("suites", step=config.suites.step.model_dump() | {"tasks": scored})
        step = workspace.update(domains=[domain], **cell.update)
        print(f"  {cell.name}: {step.version.id} +{domain}, {time.perf_counter() - clock:.0f} s", file=sys.stderr)
    return figures(cell, workspace) | {
        "settings": cell.settings(shared),
        "precision": next(v.provenance.training.precision for v in workspace.versions() if v.provenance.training),
        "wall": round(time.perf_counter() - clock),
    }


def figures(cell: Cell, workspace: Workspace) -> dict[str, Any]:
    """Return what a finished cell came to."""
    versions = workspace.versions()
    points = {(version, task): score.score for (version, task), score in workspace.registry.scores().items()}
    root, last = versions[0].id, versions[-1].id
    names = cell.domains
    changes = {name: points[last, name] - points[root, name] for name in [*names, *OOD]}
    falls, back, kept = [], [], {}
    for name in cell.steps and names:
        first, latest = cell.steps.index(name) + 1, len(cell.steps) - cell.steps[::-1].index(name)
        then = points[versions[latest].id, name]
        kept[name] = {"step": latest, "then": round(then - points[root, name], 3), "now": round(changes[name], 3)}
        if seen := [points[v.id, name] for v in versions[first:-1] if (v.id, name) in points]:
            falls.append(max(seen) - points[last, name])
        if latest < len(cell.steps):
            back.append(points[last, name] - then)
    long = {}
    if cell.regime == "long" and cell.steps:
        course = [[points[v.id, name] - points[root, name] for name in names] for v in versions[-11:]]
        long = {"course": [round(sum(row) / len(row), 3) for row in course], "kept": kept}
    return long | {
        "cell": cell.name,
        "gain": sum(changes[name] for name in names) / len(names),
        "ood": sum(changes[name] for name in OOD) / len(OOD),
        "bwt": sum(back) / len(back) if back else None,
        "forgetting": max(falls) if falls else None,
        "pairs": spent(versions).pairs,
        "seconds": round(sum(version.seconds for version in versions)),
        "changes": {name: round(change, 3) for name, change in changes.items()},
        "weights": [version.provenance.weight for version in versions[1:]],
        "sha256": versions[-1].sha256,
    }


def apart(found: dict[str, Any], before: dict[str, Any]) -> str:
    """Return how a cell that was run again differs from what is known of it."""
    differences = [f"{name} {found[name] - before[name]:+.2f}" for name in ("gain", "ood")]
    same = "the same" if found["sha256"] == before["sha256"] else "another"
    return f"{', '.join(differences)} beside what was known, {same} model"


def table(results: list[dict[str, Any]]) -> str:
    """Return results as Markdown tables, one of each regime and way of scoring, the best gain first."""
    lines = []
    ways = dict.fromkeys((found["cell"].split()[0], found["scored"]) for found in results)
    for regime, scored in sorted(ways, key=lambda way: (list(REGIMES).index(way[0]), way[1])):
        rows = [found for found in results if (found["cell"].split()[0], found["scored"]) == (regime, scored)]
        names = list(rows[0]["changes"])
        fall = "worst fall" if scored.endswith(EVERY_STEP) else "worst fall since learned"
        lines += [
            f"| {regime}, {scored} | gain | OOD | BWT | {fall} | pairs | " + " | ".join(names) + " |",
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
    parser.add_argument(
        "--keep", type=Path, help="Folder to keep the workspaces in that the cells of one DIR begin with."
    )
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    known = [json.loads(line) for line in lines]
    if args.table:
        print(table(known))
        return
    done = {}
    for found in known:  # what was scored at every step was scored at the end too
        for way in {found["scored"].removesuffix(EVERY_STEP), found["scored"]}:
            done[Cell.parse(found["cell"]).name, way, found["settings"]] = found
    scored = ("full" if args.full else f"cut {args.documents}") + (EVERY_STEP if args.every_step else "")
    wanted = [cell for group in args.group or ([] if args.cell else GROUPS) for cell in GROUPS[group]]
    named = map(Cell.parse, dict.fromkeys(wanted))
    missing = [cell for cell in named if (cell.name, scored, cell.settings(settings(args))) not in done]
    cells = [*map(Cell.parse, args.cell), *missing]
    if args.list:
        print("\n".join(cell.name for cell in cells))
        return
    if args.data is None:
        sys.exit("--data names the folder of the domains.")
    with tempfile.TemporaryDirectory() as temporary:
        kept = args.keep or Path(temporary)
        kept.mkdir(parents=True, exist_ok=True)
        for number, cell in enumerate(cells, start=1):
            batches = cell.regime == "long"
            known_as = [Path(args.base).name, *sorted(cell.domains), *(["batches"] if batches else [])]
            began = kept / "-".join([*known_as, "full" if args.full else str(args.documents)])
            if not began.exists():
                partial = Path(temporary, "template")
                template(partial, args, sorted(cell.domains), settings(args), batches=batches)
                shutil.move(partial, began)
            folder = Path(temporary, f"cell-{number}")
            found = run(cell, args, folder, began) | {"scored": scored}
            shutil.rmtree(folder)
            print(json.dumps(found), flush=True)
            before = done.get((cell.name, scored, found["settings"]))
            if before is not None:
                print(f"  {cell.name}: {apart(found, before)}", file=sys.stderr)
                continue
            with args.results.open("a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
