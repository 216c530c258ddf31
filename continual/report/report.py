"""The report: what every version scores on every task, what it gained, forgot and cost. Data, no layout."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual.conflicts.analysis import Conflicts, last_conflicts
from continual.errors import NothingToDoError
from continual.eval.intervals import Intervals, report_intervals
from continual.eval.metrics import METRICS, intransigence, ood_mean
from continual.eval.ood import Flag, flags
from continual.eval.query_scores import QueryScores, aligned
from continual.eval.regressions import Regressions
from continual.index.result import IndexComparison
from continual.registry.provenance import Cost, Provenance
from continual.registry.records import (
    Alias,
    Score,
    Task,
    Version,
)
from continual.registry.registry import CURRENT, ROOT, Registry
from continual.registry.verdict import TaskChange
from continual.report.joint import Joint, find_joint
from continual.report.last import last_regressions

SCHEMA = 1
"""Changes only when a key of the JSON form changes its meaning or goes."""

METRIC_NAMES = (*METRICS, "ood_mean", "intransigence")

DEFINITIONS = {
    "acc": ("ACC", "mean score on the domains learned so far, whose number is beside it"),
    "bwt": (
        "BWT",
        "score now minus score right after learning, mean over domains learned before; below 0 is forgetting",
    ),
    "fwt": ("FWT", "score just before learning minus the root base's, mean over domains from the second step on"),
    "forgetting": ("forgetting", "best score of any earlier version minus score now, mean over domains learned before"),
    "retained": (
        "retained",
        "share left of the gain right after learning, in %, over domains learned before; none where the interval of "
        "that gain includes zero",
    ),
    "ood_mean": ("OOD mean", "mean score on the tasks that belong to no domain and that no version trained on"),
    "intransigence": (
        "intransigence",
        "score of the joint version minus score right after learning, mean over domains learned so far",
    ),
}
"""Short name and one-line definition of each metric; `docs/metrics.md` has the formulae."""


@dataclass(frozen=True)
class Row:
    """A version as the report shows it.

    Attributes:
        id: Such as "v3".
        parent: What was in service when it was made; None for the root base.
        domains: Domains learned in this step, in the order of the stream.
        batches: Ids of the batches learned in this step.
        pairs_trained: Rows times epochs, replay included; of what a recipe made, of all its phases, and with those
            that a search of coefficients encoded with a gradient.
        tokens_trained: Tokens of those texts.
        seconds: Of training, and of such a search.
        joint_pairs: Pairs that retraining on the whole lineage would have trained.
        verdict: "root", "accepted" or "refused"; "trained" of what a recipe made beside the stream.
        reasons: The gate's sentences.
        made: When, in UTC.
        provenance: How it was made.
        scores: Points by task; tasks it was not scored on are left out.
        changes: Per task, the gate's difference to the parent with its interval, as it was judged.
        confidence: Level of those intervals.
    """

    id: str
    parent: str | None
    domains: list[str]
    batches: list[str]
    pairs_trained: int
    tokens_trained: int
    seconds: float
    joint_pairs: int
    verdict: str
    reasons: list[str]
    made: datetime
    provenance: Provenance
    scores: dict[str, float]
    changes: dict[str, TaskChange]
    confidence: float

    @property
    def trained(self) -> str:
        """Name of the recipe that `continual train` made it by; "" of the root base and of an update."""
        return self.provenance.recipe if self.provenance.phase else ""


@dataclass(frozen=True)
class Column:
    """A task as the report shows it; `domain` is None for a task that belongs to none."""

    name: str
    domain: str | None
    queries: int
    metric: str = "ndcg_at_10"


@dataclass(frozen=True)
class Report:
    """Everything that the terminal, the HTML page and the JSON form show.

    Attributes:
        versions: Row 0 is the root base; then all others in the order they were made, refused ones included. Of what
            recipes made, only what was scored or is in service; its parent is then the nearest version that is here.
        tasks: In-domain tasks in the order of the stream, then the ones that belong to no domain.
        metrics: By name, a value or None per version, computed along that version's own lineage.
        learned: Per version, the tasks whose domain this very step was the first of its lineage to learn.
        lineages: Per version, the positions in `versions` from the root base to it.
        ood_set: The tasks behind `ood_mean`: those without a domain that no version has a flag for, the same for every
            version.
        current: Id of the version in service.
        since: Since when, in UTC.
        why: The reason that was given when it came into service.
        workspace: Name of the workspace's folder.
        intervals: Of every score, difference and metric.
        joint: Name of the joint version that `intransigence` compares with; None: none was named.
        regressions: Which queries the last update answers worse and better than its parent, without clusters; None
            where no ranking was kept.
        flags: By version and task, what the version's lineage trained on of a task that came later.
        index: By version, its comparison with the index of its parent, if that was measured.
        conflicts: The last analysis of what the domains do to each other; None where none was made.
    """

    versions: list[Row]
    tasks: list[Column]
    metrics: dict[str, list[float | None]]
    learned: list[set[str]]
    lineages: list[list[int]]
    ood_set: list[str]
    current: str
    since: datetime
    why: str
    workspace: str
    intervals: Intervals
    joint: str | None = None
    regressions: Regressions | None = None
    flags: dict[tuple[str, str], Flag] = field(default_factory=dict)
    index: dict[str, IndexComparison] = field(default_factory=dict)
    conflicts: Conflicts | None = None

    @property
    def measure(self) -> str:
        """What the scores are, as people read it: "nDCG@10", or "main score" of tasks that have different ones."""
        return measured(task.metric for task in self.tasks)

    @property
    def matrix(self) -> list[list[float | None]]:
        """R: a row per version, a column per task, points; None where it was not measured."""
        return [[row.scores.get(task.name) for task in self.tasks] for row in self.versions]

    @property
    def path(self) -> list[int]:
        """Positions of the versions from the root base to the one in service."""
        return self.lineages[self.position(self.current)]

    def position(self, version: str) -> int:
        """Return the place of a version in `versions`."""
        return next(place for place, row in enumerate(self.versions) if row.id == version)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data: the stable form, see `docs/metrics.md`.

        Keys: schema, current, versions (id, parent, domains, pairs_trained, tokens_trained, seconds, joint_pairs,
        verdict), tasks (name, domain or null), matrix (a row per version, a column per task, points or null), metrics
        (acc, bwt, fwt, forgetting, retained, ood_mean, intransigence: one number or null per version), intervals
        (confidence; score, over_base, since_learned: as matrix, [low, high] or null; gained, ood_change: one a
        version; metrics: as metrics),
        joint (name of the joint version or null), ood_set (the tasks behind ood_mean), flags (version, task, rows,
        near, learned_by, domains, why: scores on texts that were trained on), index (per version, the comparison with
        its parent's index, or null) and conflicts (the last analysis of domains, or null).
        """
        fields = ("id", "parent", "domains", "pairs_trained", "tokens_trained", "seconds", "joint_pairs", "verdict")
        return {
            "schema": SCHEMA,
            "current": self.current,
            "versions": [{field: getattr(row, field) for field in fields} for row in self.versions],
            "tasks": [{"name": task.name, "domain": task.domain} for task in self.tasks],
            "matrix": self.matrix,
            "metrics": self.metrics,
            "intervals": self.intervals.to_json(),
            "joint": self.joint,
            "ood_set": self.ood_set,
            "flags": [asdict(flag) | {"why": flag.why} for flag in self.flags.values()],
            "index": [self.index[row.id].to_json() if row.id in self.index else None for row in self.versions],
            "conflicts": None if self.conflicts is None else self.conflicts.to_json(),
        }

    def to_csv(self) -> str:
        """Return one line per version: what it is, what it cost, its metrics, its score on every task, then intervals.

        An unknown value is an empty cell; several domains are joined by "; ". Task columns are called "task:NAME". The
        ends of the interval of a column are in its name with ":low" and ":high"; those of "gain:NAME" are of the
        score minus the root base's. The last column, "trained_on", names the tasks whose score is flagged.
        """
        data = self.to_json()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        bounded = [*METRIC_NAMES, *(f"{what}:{task.name}" for what in ("task", "gain") for task in self.tasks)]
        writer.writerow(
            [
                *data["versions"][0],
                *METRIC_NAMES,
                *(f"task:{task.name}" for task in self.tasks),
                *(f"{name}:{end}" for name in bounded for end in ("low", "high")),
                "trained_on",
            ]
        )
        for place, row in enumerate(data["versions"]):
            cells = [*(row | {"domains": "; ".join(row["domains"])}).values()]
            cells += [self.metrics[name][place] for name in METRIC_NAMES] + data["matrix"][place]
            ends = [self.intervals.metrics[name][place] for name in METRIC_NAMES]
            ends += self.intervals.score[place] + self.intervals.over_base[place]
            cells += [end for pair in ends for end in pair or (None, None)]
            cells.append("; ".join(task.name for task in self.tasks if (row["id"], task.name) in self.flags))
            writer.writerow(["" if cell is None else cell for cell in cells])
        return text.getvalue()


def measured(metrics: Iterable[str]) -> str:
    """Return the name of the main score that tasks share, as people read it, or "main score" if they share none."""
    distinct = set(metrics) or {"ndcg_at_10"}
    if len(distinct) > 1:
        return "main score"
    return distinct.pop().replace("ndcg_at_", "nDCG@").replace("_at_", "@").replace("_", " ")


def build_report(registry: Registry, joint: str | None = None, confidence: float = 0.95) -> Report:
    """Read the registry and compute the metrics of every version along its own lineage.

    So a refused version, a rollback, or two lines of descent never disturb each other's figures.

    Args:
        registry: Of the workspace.
        joint: The joint version, see `find_joint`; without one there is no intransigence.
        confidence: Level of the intervals.

    Raises:
        NothingToDoError: There is no version, or only a root base that was never scored.
        NotFoundError: There is no such joint version.
        InputError: It has another root base.
    """
    known = _read(registry)
    current, versions, scores = known.current, known.versions, known.scores
    if not versions or (len(versions) == 1 and not scores):
        raise NothingToDoError(
            "There is nothing to report yet: no version was made. Register rows with `continual ingest FILE`, then "
            "run `continual update`."
        )
    place_of = {name: place for place, name in enumerate(known.domains)}
    tasks = sorted(known.tasks, key=lambda task: place_of.get(task.domain or "", len(place_of)))
    columns = [Column(task.name, task.domain, task.queries, task.metric) for task in tasks]
    points: dict[str, dict[str, float]] = {version.id: {} for version in versions}
    for (owner, name), score in scores.items():
        points[owner][name] = score.score
    versions = _shown(versions, scores, current.version if current else ROOT)
    rows = [_row(version, points[version.id], known.domain_of, known.domains) for version in versions]
    position = {row.id: place for place, row in enumerate(rows)}
    matrix = np.array(
        [[row.scores.get(column.name, math.nan) for column in columns] for row in rows], dtype=np.float64
    ).reshape(len(rows), len(columns))
    lineages: list[list[int]] = []
    for row in rows:
        before = lineages[position[row.parent]] if row.parent is not None else []
        lineages.append([*before, position[row.id]])
    ood = _ood_set(rows, columns, matrix, position[current.version] if current else 0, known.flags)
    best = find_joint(registry, joint, scores) if joint is not None else None
    ceiling = np.array([_ceiling(best, column) for column in columns], np.float64)
    metrics: dict[str, list[float | None]] = {name: [] for name in METRIC_NAMES}
    first: list[set[str]] = []
    steps: list[list[int | None]] = []
    for line in lineages:
        learned = _learned(columns, [rows[place].domains for place in line])
        steps.append(learned)
        first.append({column.name for column, step in zip(columns, learned, strict=True) if step == len(line) - 1})
        for name, metric in METRICS.items():
            metrics[name].append(_number(metric(matrix[line], learned)))
        metrics["ood_mean"].append(_number(ood_mean(matrix[line], ood)))
        metrics["intransigence"].append(_number(intransigence(matrix[line], learned, ceiling)))
    values = _points(registry, rows, columns, scores, best)
    intervals = report_intervals(matrix, lineages, steps, ood, values, ceiling if best else None, confidence)
    root = versions[0]
    return Report(
        versions=rows,
        tasks=columns,
        metrics=metrics,
        learned=first,
        lineages=lineages,
        ood_set=[columns[place].name for place in ood],
        current=current.version if current else root.id,
        since=current.at if current else root.created_at,
        why=current.reason if current else "",
        workspace=registry.root.resolve().parent.name,
        intervals=intervals,
        joint=best.name if best else None,
        regressions=last_regressions(registry, versions, known.tasks, scores, confidence),
        flags=known.flags,
        index={
            new: IndexComparison.from_json(found)
            for (old, new), found in known.index.items()
            if new in position and old == rows[position[new]].parent
        },
        conflicts=last_conflicts(registry.root),
    )


@dataclass(frozen=True)
class _Known:
    """What the catalog holds of it; `domain_of` is by batch."""

    current: Alias | None
    versions: list[Version]
    scores: dict[tuple[str, str], Score]
    domains: list[str]
    domain_of: dict[str, str]
    tasks: list[Task]
    flags: dict[tuple[str, str], Flag]
    index: dict[tuple[str, str], dict[str, Any]]


def _read(registry: Registry) -> _Known:
    """Read all of it in one transaction, so that it is one state, whatever is added meanwhile."""
    with registry.catalog.together():
        return _Known(
            current=registry.alias(CURRENT),
            versions=registry.versions(),
            scores=registry.scores(),
            domains=[domain.name for domain in registry.domains()],
            domain_of={batch.id: batch.domain for batch in registry.batches()},
            tasks=registry.tasks(),
            flags=flags(registry),
            index=registry.compatibility(),
        )


def _shown(versions: Sequence[Version], scores: Mapping[tuple[str, str], Score], current: str) -> list[Version]:
    """Leave out the phases of recipes that nobody scored; what came from them comes from what is before them."""
    scored = {owner for owner, _ in scores}
    kept = {each.id for each in versions if each.status != "trained" or each.id in scored or each.id == current}
    parents = {each.id: each.parent for each in versions}
    found = []
    for version in versions:
        if version.id in kept:
            parent = version.parent
            while parent is not None and parent not in kept:
                parent = parents[parent]
            found.append(replace(version, parent=parent))
    return found


def _ceiling(joint: Joint | None, column: Column) -> float:
    """Return the joint version's points on a task of a domain that it has learned."""
    known = joint is not None and column.domain in joint.domains and column.name in joint.scores
    return joint.scores[column.name].score if joint is not None and known else math.nan


def _points(
    registry: Registry,
    rows: Sequence[Row],
    columns: Sequence[Column],
    scores: Mapping[tuple[str, str], Score],
    joint: Joint | None,
) -> list[NDArray[np.float64]]:
    """Return the points of every query of each task, [versions, queries]; the joint version's come last."""
    ours, values = QueryScores(registry.root), []
    theirs = None if joint is None else QueryScores(joint.root)
    for column in columns:
        known = [scores.get((row.id, column.name)) for row in rows]
        files = [None if score is None or score.path is None else ours.read(score.path) for score in known]
        if joint is not None and theirs is not None:
            path = joint.scores[column.name].path if column.name in joint.scores else None
            files.append(None if path is None else theirs.read(path))
        values.append(aligned(files))
    ours.remember()
    return values


def _row(version: Version, scores: dict[str, float], domain_of: dict[str, str], domains: list[str]) -> Row:
    verdict = version.verdict
    learned = {domain_of[batch] for batch in version.batches if batch in domain_of}
    own = Cost(version.pairs_trained, version.tokens_trained, version.seconds)
    cost = version.provenance.cost or own  # of all phases behind it, which are not shown
    return Row(
        id=version.id,
        parent=version.parent,
        domains=[name for name in domains if name in learned],
        batches=list(version.batches),
        pairs_trained=cost.pairs,
        tokens_trained=cost.tokens,
        seconds=cost.seconds,
        joint_pairs=version.joint_pairs,
        verdict=version.status,
        reasons=[] if verdict is None else verdict.reasons,
        made=version.created_at,
        provenance=version.provenance,
        scores=scores,
        changes={} if verdict is None else verdict.tasks,
        confidence=0.95 if verdict is None else verdict.confidence,
    )


def _ood_set(
    rows: Sequence[Row],
    columns: Sequence[Column],
    matrix: NDArray[np.float64],
    current: int,
    flagged: Mapping[tuple[str, str], Flag],
) -> list[int]:
    """Return the columns without a domain or flag that every version was scored on, refused ones left aside.

    A task that was added late is left out of the mean, so that the curve goes on; if all were added late, the set
    is what both the root base and the version in service were scored on, and the curve has a gap.
    """
    for kept in ([place for place, row in enumerate(rows) if row.verdict != "refused"], [0, current]):
        chosen = [
            place
            for place, column in enumerate(columns)
            if column.domain is None
            and np.isfinite(matrix[kept, place]).all()
            and not any((rows[each].id, column.name) in flagged for each in kept)
        ]
        if chosen:
            return chosen
    return []


def _learned(columns: Sequence[Column], steps: Sequence[Sequence[str]]) -> list[int | None]:
    """Return, per task, the first step of a lineage that learned its domain."""
    first: dict[str, int] = {}
    for step, names in enumerate(steps):
        for name in names:
            first.setdefault(name, step)
    return [first.get(column.domain) if column.domain is not None else None for column in columns]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 9) + 0.0  # no -1e-14 of a difference of means, and no -0.0
