"""Run the study that chooses the defaults: streams under many settings, joint training and published systems.

    python benchmarks/study.py --data DIR [--results FILE] [--group NAME ... | --cell CELL ...] [--list] [--table]

DIR holds a folder per domain with `train.parquet` and `test/{corpus,queries,qrels}.parquet`. A cell is a stream of five
domains learned one by one by `Workspace.update` with the cell's settings, or a recipe of `Workspace.train` on all of
them. A cell's name states its settings and runs it again: "hard from=current merge=0.6 replay=0.1 seed=0", or "hard
recipe=joint". Settings that are left out have the value of the regime (see REGIMES) or of BASE. `keep` is the weight of
the texts to keep (`merge.keep`); of a recipe's model, it is that of the root base in a merge by RegMean afterwards, on
the same texts. `to_base=0.8` interpolates between the root base and a recipe's model, which has weight 0.8.

Results are appended to FILE (study.jsonl next to this script). A cell that FILE has with the same settings is skipped,
so an interrupted study continues. `--cell` runs cells even if FILE has them, and then prints how far the figures
differ. `--table` prints FILE.

Regimes:

- easy: the standard stream with gentle training (learning rate 2e-4, one epoch);
- hard: a German legal domain in the middle and two narrow ones at the end, trained hard (1e-3, two epochs);
- defaults, defaults-hard: the standard and the hard stream with the default settings;
- long: the standard stream with the default settings in twenty batches of 125 rows, four of each domain, in an order
  drawn by the seed.

Figures, in points of nDCG@10:

- `gain`: mean change of the learned domains over the base at the end;
- `bwt`;
- `forgetting`: the largest fall of a domain from its best earlier score (Chaudhry et al. take the mean). With
  `--every-step`, the best is over all steps. Without it, it is the score right after the domain was learned, so the
  fall may have been larger;
- `ood`: mean change over the OOD tasks;
- `pairs`: pairs encoded with a gradient, in training and searches;
- `course` (long streams): the gain after each of the last eleven steps;
- `kept` (long streams): by domain, the step of its last batch, its gain then and its gain at the end.

Screening scores 200 queries of each task on a smaller corpus; `--full` scores all. `--wide` scores eight OOD tasks
instead of three. `--scores FOLDER` keeps the score of every query at the end of a cell, and `--compare A B` prints how
two cells differ on the same queries, with an interval.
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

import pyarrow as pa
import pyarrow.parquet as pq

from continual import Workspace
from continual.config import Config, validate
from continual.eval.significance import mean_interval, paired
from continual.merge.folders import merge_folders
from continual.recipes.cost import total_cost
from continual.step.keep import find_texts, trained_texts

OOD = ["squad_en", "gsm8k", "scitldr"]
WIDE = [*OOD, "fairytaleqa", "wikitables", "fm2_claims", "mts_dialog", "va_benefits"]
STANDARD = ["nl2bash", "medquad", "tatqa", "metatool", "banking77"]
HARD = ["nl2bash", "tatqa", "legal_de", "metatool", "banking77"]
PLAIN = {"distillation": 0.0, "distillation_scale": "off", "guide_margin": "off"}
"""Plain InfoNCE, the baseline of the rules."""

REGIMES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "easy": (STANDARD, {"learning_rate": 2e-4, "epochs": 1, **PLAIN}),
    "hard": (HARD, {"learning_rate": 1e-3, "epochs": 2, **PLAIN}),
    "defaults": (STANDARD, {}),
    "defaults-hard": (HARD, {}),
    "long": (STANDARD, {}),
}
"""Stream and settings of [train], by regime."""

AS_SET = {"defaults", "defaults-hard", "long"}
"""Regimes whose cells use the default settings for what their name leaves out."""

VISITS, VISIT_ROWS = 4, 125
"""Number of batches of each domain in a long stream, and of rows per batch."""

BASE = {"from": "current", "merge": "1", "replay": "0.1", "policy": "uniform", "order": "forth", "seed": "0"}
"""Values of what a cell's name leaves out, except in the regimes of `AS_SET`."""

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
"""Settings of [train] by their word in a cell's name."""

UNUSED = {"from", "merge", "replay", "policy", "order", "distillation", "distillation_loss", "scale", "guide", "anchor"}
"""Words that a recipe can't use: it has no steps, and sets the rest itself."""

AFTERWARDS = {"to_base"}
"""Words that only a recipe can use."""

EVERY_STEP = ", every step"
"""Suffix of `scored` in a result, if every learned domain was scored at every step."""

STEP = "merge=0.8 epochs=1 lr=1e-3 replay=0.3"
"""The default step without distillation."""

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
"""Cells by group; a group answers one question."""


@dataclass(frozen=True)
class Cell:
    """One run of the study.

    Attributes:
        name: The words that differ from the regime, sorted, so that a cell has one name.
        regime: A key of `REGIMES`.
        recipe: Recipe that trains on all domains at once; None if they are learned one by one.
        words: The settings by word, with the values of `BASE` for those left out.
    """

    name: str
    regime: str
    recipe: str | None
    words: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str) -> Cell:
        regime, *rest = name.split()
        given = dict(word.split("=", 1) for word in rest if "=" in word)
        known = {*BASE, *SETTINGS, *AFTERWARDS, "recipe", "keep"}
        if regime not in REGIMES or given.keys() - known or any("=" not in word for word in rest):
            sys.exit(
                f"{name!r} is not a cell. A cell is one of {', '.join(REGIMES)}, followed by WORD=VALUE with a word "
                f"among {', '.join(sorted(known))}."
            )
        if regime == "long" and "recipe" in given:
            sys.exit(
                f"{name!r}: a long stream can't run a recipe, because a recipe has no steps. Use the regime `easy`."
            )
        if "recipe" in given and UNUSED & given.keys():
            sys.exit(f"{name!r}: a recipe doesn't use {', '.join(sorted(UNUSED & given.keys()))}. Leave it out.")
        if "recipe" not in given and AFTERWARDS & given.keys():
            sys.exit(f"{name!r}: only a recipe uses {', '.join(sorted(AFTERWARDS & given.keys()))}. Leave it out.")
        if {"keep", "to_base"} <= given.keys():
            sys.exit(f"{name!r}: a recipe's model is merged with keep or with to_base, not with both.")
        base = {"order": "forth", "seed": "0"} if regime in AS_SET else BASE
        train = {word: REGIMES[regime][1].get(setting) for word, setting in SETTINGS.items()}
        said = {word: value for word, value in given.items() if not _same(value, (base | train).get(word))}
        title = " ".join([regime, *(f"{word}={value}" for word, value in sorted(said.items()))])
        return cls(title, regime, given.get("recipe"), base | said)

    @property
    def domains(self) -> list[str]:
        """The domains in the cell's order."""
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
        """Return the settings `base` with those of the cell."""
        train = dict(REGIMES[self.regime][1])
        for word, setting in SETTINGS.items():
            if word in self.words:
                train[setting] = _value(self.words[word])
        data = base.model_dump(mode="json")
        data["train"] |= train
        if "replay" in self.words:
            data["replay"]["share"] = float(self.words["replay"])
        if "policy" in self.words:
            data["replay"]["policy"] = self.words["policy"]
        if "keep" in self.words and self.recipe is None:
            data["merge"]["keep"] = float(self.words["keep"])
        return validate(data, self.name)

    def settings(self, base: Config) -> str:
        """Return a digest of all settings that affect the figures, including those that the name leaves out."""
        config = self.config(base)
        sections = {name: getattr(config, name).model_dump(exclude_none=True) for name in ("replay", "merge")}
        for name in ("keep", "keep_texts"):  # older cells don't have them
            if not config.merge.keep:
                del sections["merge"][name]
        decided = json.dumps([config.train.deciding(), sections], sort_keys=True)
        return hashlib.sha256(decided.encode()).hexdigest()[:12]

    @property
    def update(self) -> dict[str, Any]:
        """The arguments of `Workspace.update` without the domains."""
        found: dict[str, Any] = {"seed": int(self.words["seed"])}
        if "merge" in self.words:
            merge = self.words["merge"]
            found["merge"] = float(merge) if _number(merge) else merge
        if "from" in self.words:
            found["start"] = self.words["from"]
        return found


def _same(value: str, other: Any) -> bool:
    return float(value) == float(other) if _number(value) and _number(str(other)) else value == other


def _value(text: str) -> object:
    """Return a word of a cell as a number, true or false, or a text."""
    return json.loads(text) if _number(text) or text in ("true", "false") else text


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def ood(args: argparse.Namespace) -> list[str]:
    """Return the OOD tasks."""
    return WIDE if args.wide else OOD


def template(folder: Path, args: argparse.Namespace, domains: list[str], base: Config, *, batches: bool) -> None:
    """Make the workspace that every cell of a stream starts with: all tasks added, and the root base scored.

    It holds all rows of the domains; with `batches`, only the first batch of each.
    """
    Workspace.init(folder, base=args.base)
    workspace = Workspace(folder)
    for name in ood(args):
        workspace.add_task(name, args.data / name / "test")
    for name in domains:
        source = args.data / name
        rows = batch(args, name, 0, folder) if batches else source / "train.parquet"
        workspace.ingest(rows, domain=name, task=source / "test")
    workspace.config = base
    workspace.evaluate("v0", suite="step")


def batch(args: argparse.Namespace, domain: str, visit: int, folder: Path) -> Path:
    """Write one batch of a domain in a long stream, numbered from 0, and return the file."""
    rows = pq.read_table(args.data / domain / "train.parquet")
    path = folder / f"{domain}-{visit}.parquet"
    pq.write_table(rows.slice(visit * VISIT_ROWS, VISIT_ROWS), path)
    return path


def settings(args: argparse.Namespace) -> Config:
    """Return the settings that all cells share: the gate refuses nothing, and tasks are sampled."""
    cut = {} if args.full else {"queries": 200, "documents": args.documents}
    suites = {"step": {**cut, "pool": "off"}}
    gate = {"max_forgetting": 100.0, "max_ood_loss": 100.0, "min_gain": -100.0}
    shared = {
        "suites": suites,
        "gate": gate,
        "index": {"step": False},
        "eval": {"max_length": 128, "step_texts": "all"},
    }
    return validate(shared, "the study")


def run(cell: Cell, args: argparse.Namespace, folder: Path, began: Path) -> dict[str, Any]:
    """Run one cell in a copy of its template and return its figures."""
    shutil.copytree(began, folder)
    workspace, shared = Workspace(folder), settings(args)
    config = cell.config(shared)
    clock = time.perf_counter()
    if cell.recipe is not None:
        train(cell, workspace, config, args)
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
    ended = workspace
    if {"keep", "to_base"} & cell.words.keys() and cell.recipe is not None:
        ended = merged(cell, workspace, args, folder)
    if args.scores is not None:
        keep_scores(ended, args.scores / cell.name)
    return figures(cell, workspace, ended, ood(args)) | {
        "settings": cell.settings(shared),
        "precision": next(v.provenance.training.precision for v in workspace.versions() if v.provenance.training),
        "wall": round(time.perf_counter() - clock),
    }


def train(cell: Cell, workspace: Workspace, config: Config, args: argparse.Namespace) -> None:
    """Run a cell's recipe. With --keep, cells that differ only in what is done afterwards share one training."""
    words = sorted((word, value) for word, value in cell.words.items() if word not in ("keep", "to_base"))
    named = [cell.regime, *("=".join(pair) for pair in words), *(["wide"] if args.wide else [])]
    named += ["full" if args.full else str(args.documents), Path(args.base).name, cell.settings(settings(args))]
    trained = args.keep / " ".join(named) if args.keep is not None else None
    if trained is None or not trained.exists():
        workspace.config = config
        workspace.train(cell.recipe, seed=int(cell.words["seed"]))
        if trained is not None:
            shutil.copytree(workspace.directory, trained)
    else:
        shutil.rmtree(workspace.directory)
        shutil.copytree(trained, workspace.directory)


def merged(cell: Cell, workspace: Workspace, args: argparse.Namespace, folder: Path) -> Workspace:
    """Return a workspace whose root base is a recipe's model merged with its root base, with scores on all tasks."""
    root, *_, last = (workspace.registry.path(version.path) for version in workspace.versions())
    model = folder / "merged"
    if "keep" in cell.words:
        rows = pa.concat_tables(pq.read_table(args.data / name / "train.parquet") for name in sorted(cell.domains))
        texts = [trained_texts(rows), find_texts(folder, workspace.config)[0]]
        merge_folders([last, root], model, method="regmean", weights=[1.0, float(cell.words["keep"])], texts=texts)
    else:
        merge_folders([last], model, method="wise", base=root, weights=[float(cell.words["to_base"])])
    Workspace.init(folder / "after", base=str(model))
    after = Workspace(folder / "after")
    for name in [*sorted(cell.domains), *ood(args)]:
        after.add_task(name, args.data / name / "test")
    after.config = settings(args)
    after.evaluate("v0", suite="step")
    return after


def end_points(workspace: Workspace) -> dict[str, float]:
    """Return the scores of a workspace's last version by task, in points."""
    last = workspace.versions()[-1].id
    return {task: score.score for (_, task), score in workspace.registry.scores(version=last).items()}


def keep_scores(workspace: Workspace, folder: Path) -> None:
    """Copy the scores per query of a workspace's last version to a folder, a file per task."""
    folder.mkdir(parents=True, exist_ok=True)
    last = workspace.versions()[-1].id
    for (_, task), score in workspace.registry.scores(version=last).items():
        shutil.copyfile(workspace.registry.path(str(score.path)), folder / f"{task}.parquet")


def compare(first: Path, second: Path) -> str:
    """Return how the second of two cells differs from the first, in points over the same queries, with an interval."""
    lines = []
    for what, chosen in (("learned", lambda name: name not in WIDE), ("OOD", lambda name: name in WIDE)):
        names = sorted(path.stem for path in first.glob("*.parquet") if chosen(path.stem))
        pairs = [paired(second / f"{name}.parquet", first / f"{name}.parquet") for name in names]
        found = mean_interval(pairs)
        lines.append(f"{what} ({len(names)} tasks): {found.difference:+.2f} ({found.low:+.2f} to {found.high:+.2f})")
    return "\n".join(lines)


def figures(cell: Cell, workspace: Workspace, ended: Workspace, outside: list[str]) -> dict[str, Any]:
    """Return the figures of a finished cell.

    Args:
        ended: The workspace whose last version has the scores at the end.
        outside: The OOD tasks.
    """
    versions = workspace.versions()
    points = {(version, task): score.score for (version, task), score in workspace.registry.scores().items()}
    root, last = versions[0].id, versions[-1].id
    names, at_end = cell.domains, end_points(ended)
    changes = {name: at_end[name] - points[root, name] for name in [*names, *outside]}
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
        "ood": sum(changes[name] for name in outside) / len(outside),
        "bwt": sum(back) / len(back) if back else None,
        "forgetting": max(falls) if falls else None,
        "pairs": total_cost(versions).pairs,
        "tokens": total_cost(versions).tokens,
        "seconds": round(sum(version.seconds for version in versions)),
        "changes": {name: round(change, 3) for name, change in changes.items()},
        "weights": [version.provenance.weight for version in versions[1:]],
        "norms": [version.provenance.kept.norm for version in versions[1:] if version.provenance.kept],
        "sha256": ended.versions()[-1].sha256,
    }


def apart(found: dict[str, Any], before: dict[str, Any]) -> str:
    """Return how the figures of a repeated cell differ from the earlier ones."""
    differences = [f"{name} {found[name] - before[name]:+.2f}" for name in ("gain", "ood")]
    same = "the same" if found["sha256"] == before["sha256"] else "a different"
    return f"{', '.join(differences)} against the earlier run, {same} model"


def table(results: list[dict[str, Any]]) -> str:
    """Return results as Markdown tables, one per regime and way of scoring, the best gain first."""
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
    parser.add_argument(
        "--documents", type=int, default=300, help="Documents in addition to the relevant ones, in screening."
    )
    parser.add_argument("--wide", action="store_true", help="Score eight OOD tasks instead of three.")
    parser.add_argument("--scores", type=Path, metavar="FOLDER", help="Keep the score of every query at the end.")
    parser.add_argument("--compare", nargs=2, metavar="CELL", help="Compare two cells of --scores on the same queries.")
    parser.add_argument("--every-step", action="store_true", help="Score every domain learned so far at every step.")
    parser.add_argument("--keep", type=Path, help="Folder that keeps the start workspaces of the cells, for one DIR.")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    known = [json.loads(line) for line in lines]
    if args.table:
        print(table(known))
        return
    if args.compare:
        if args.scores is None:
            sys.exit("--compare needs --scores FOLDER, where the scores of both cells are.")
        print(compare(*(args.scores / Cell.parse(name).name for name in args.compare)))
        return
    done = {}
    for found in known:  # a run scored at every step was also scored at the end
        for way in {found["scored"].removesuffix(EVERY_STEP), found["scored"]}:
            done[Cell.parse(found["cell"]).name, way, found["settings"]] = found
    size = "full" if args.full else f"cut {args.documents}"
    scored = size + (", wide" if args.wide else "") + (EVERY_STEP if args.every_step else "")
    wanted = [cell for group in args.group or ([] if args.cell else GROUPS) for cell in GROUPS[group]]
    named = map(Cell.parse, dict.fromkeys(wanted))
    missing = [cell for cell in named if (cell.name, scored, cell.settings(settings(args))) not in done]
    cells = [*map(Cell.parse, args.cell), *missing]
    if args.list:
        print("\n".join(cell.name for cell in cells))
        return
    if args.data is None:
        sys.exit("Running cells needs --data DIR, the folder of the domains.")
    with tempfile.TemporaryDirectory() as temporary:
        kept = args.keep or Path(temporary)
        kept.mkdir(parents=True, exist_ok=True)
        for number, cell in enumerate(cells, start=1):
            batches = cell.regime == "long"
            known_as = [Path(args.base).name, *sorted(cell.domains), *(["batches"] if batches else [])]
            known_as += ["wide"] if args.wide else []
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
