"""The data of a report: the score of every version on every task, with metrics, intervals and costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from continual.conflicts.analysis import Conflicts
from continual.eval.intervals import Intervals
from continual.eval.metrics import METRICS
from continual.eval.ood import Flag
from continual.eval.regressions import Regressions
from continual.index.result import IndexComparison
from continual.registry.provenance import Provenance
from continual.registry.verdict import TaskChange
from continual.report.figures.cells import to_csv

SCHEMA = 1
"""Schema of the JSON form; raised only when a key is removed or changes its meaning."""

METRIC_NAMES = (*METRICS, "ood_mean", "intransigence")

DEFINITIONS = {
    "acc": ("ACC", "mean score on the domains learned so far; their number is given beside it"),
    "bwt": (
        "BWT",
        "score now minus score right after learning, mean over the domains learned before; below 0 is forgetting",
    ),
    "fwt": (
        "FWT",
        "score right before learning minus the root base's, mean over the domains learned from the second step on",
    ),
    "forgetting": (
        "forgetting",
        "best score of any earlier version minus score now, mean over the domains learned before",
    ),
    "retained": (
        "retained",
        "gain now as a share of the gain right after learning, in %, over the domains learned before; left out if the "
        "interval of that gain includes zero",
    ),
    "ood_mean": ("OOD mean", "mean score on the OOD tasks whose texts no version was trained on"),
    "intransigence": (
        "intransigence",
        "score of the joint version minus score right after learning, mean over the domains learned so far",
    ),
}
"""Short name and one-line definition of each metric; the formulae are in `docs/metrics.md`."""


@dataclass(frozen=True)
class ReportVersion:
    """A version in the report.

    Attributes:
        id: Such as "v3".
        parent: Id of the parent; None for the root base.
        domains: Domains learned in this step, in the order of the stream.
        batches: Ids of the batches learned in this step.
        pairs_trained: Rows times epochs, replay included, plus the pairs that a search of coefficients encoded with a
            gradient. For the result of a recipe, the sum over all its phases.
        tokens_trained: Tokens of these pairs.
        seconds: Time of training and of such a search.
        joint_pairs: Pairs that retraining on the whole lineage would have trained.
        status: "root", "accepted", "refused", or "trained" for the result of `continual train`.
        reasons: The gate's reasons.
        created_at: UTC.
        provenance: How the version was made.
        scores: Points by task, for the tasks that it was scored on in full, and those that are carried.
        changes: By task, the change against the parent with its interval, as the gate computed it.
        confidence: Level of these intervals.
        carried: By task, the version before it whose score it has, because its update did not score the task in full.
    """

    id: str
    parent: str | None
    domains: list[str]
    batches: list[str]
    pairs_trained: int
    tokens_trained: int
    seconds: float
    joint_pairs: int
    status: str
    reasons: list[str]
    created_at: datetime
    provenance: Provenance
    scores: dict[str, float]
    changes: dict[str, TaskChange]
    confidence: float
    carried: dict[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        """Name of the recipe of `continual train` that made it; "" for updates and the root base."""
        return self.provenance.recipe if self.provenance.phase else ""


@dataclass(frozen=True)
class ReportTask:
    """A task in the report; `domain` is None for a task that tests no domain."""

    name: str
    domain: str | None
    queries: int
    metric: str = "ndcg_at_10"


@dataclass(frozen=True)
class Report:
    """The data of the terminal report, the page, the dashboard, and the JSON and CSV forms.

    Attributes:
        versions: The root base, then the others in the order of creation, refused ones included. Phases of recipes are
            included only if they were scored or are current; `parent` skips those left out.
        tasks: Tasks of domains in the order of the stream, then tasks without a domain.
        metrics: By name, one value or None per version, computed along the version's own lineage.
        learned: Per version, the tasks whose domain its lineage learned first in this step.
        lineages: Per version, the positions in `versions` of its lineage, from the root base on.
        ood_set: The tasks that `ood_mean` averages, the same for every version: those without a domain and without a
            flag.
        current: Id of the current version.
        since: When it became current, UTC.
        why: The reason given for it.
        workspace: Name of the workspace's folder.
        intervals: Of every score, difference and metric.
        joint: Name of the joint version that `intransigence` compares with; None without one.
        regressions: The queries that the last update answers worse and better than its parent, without clusters; None
            if no ranking was kept.
        flags: By version and task, the rows of the task that the version's lineage was trained on.
        index: By version, its comparison with the index of its parent, if that was measured.
        conflicts: The last analysis of conflicts between domains, if there was one.
        full: Whether the versions have their whole provenances and their verdicts, which the page and the figures show.
    """

    versions: list[ReportVersion]
    tasks: list[ReportTask]
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
    full: bool = True

    @property
    def measure(self) -> str:
        """The title of the tasks' main score, such as "nDCG@10", or "main score" if they don't share one."""
        return measured(task.metric for task in self.tasks)

    @property
    def matrix(self) -> list[list[float | None]]:
        """R: one row per version, one column per task, in points; None if not measured."""
        return [[version.scores.get(task.name) for task in self.tasks] for version in self.versions]

    @property
    def path(self) -> list[int]:
        """Positions of the current version's lineage, from the root base on."""
        return self.lineages[self.position(self.current)]

    def position(self, version: str) -> int:
        """Return the position of a version in `versions`."""
        return next(place for place, row in enumerate(self.versions) if row.id == version)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data, in the stable form that `docs/metrics.md` documents.

        Keys: schema, current, versions (id, parent, domains, pairs_trained, tokens_trained, seconds, joint_pairs,
        verdict), tasks (name, domain or null), matrix (one row per version, one column per task, points or null),
        metrics (acc, bwt, fwt, forgetting, retained, ood_mean, intransigence: one number or null per version),
        intervals (confidence; score, over_base, since_learned: as matrix, [low, high] or null; gained, ood_change: one
        per version; metrics: as metrics), joint (name of the joint version or null), ood_set (the tasks of ood_mean),
        carried (version, task, of: scores in `matrix` that are those of an earlier version),
        flags (version, task, rows, near, learned_by, domains, why: scores on texts that the version was trained on),
        index (per version, the comparison with its parent's index, or null) and conflicts (the last analysis of
        domains, or null).
        """
        fields = ("id", "parent", "domains", "pairs_trained", "tokens_trained", "seconds", "joint_pairs")
        return {
            "schema": SCHEMA,
            "current": self.current,
            "versions": [
                {field: getattr(version, field) for field in fields} | {"verdict": version.status}
                for version in self.versions
            ],
            "tasks": [{"name": task.name, "domain": task.domain} for task in self.tasks],
            "matrix": self.matrix,
            "metrics": self.metrics,
            "intervals": self.intervals.to_json(),
            "joint": self.joint,
            "ood_set": self.ood_set,
            "carried": [
                {"version": version.id, "task": task, "of": origin}
                for version in self.versions
                for task, origin in version.carried.items()
            ],
            "flags": [asdict(flag) | {"why": flag.why} for flag in self.flags.values()],
            "index": [
                self.index[version.id].to_json() if version.id in self.index else None for version in self.versions
            ],
            "conflicts": None if self.conflicts is None else self.conflicts.to_json(),
        }

    def significant_retained(self, place: int) -> float | None:
        """Return `retained` in percent; None if the interval of the gain that it is a share of includes zero."""
        gained = self.intervals.gained[place]
        return None if gained is not None and gained[0] <= 0 else self.metrics["retained"][place]

    def to_csv(self) -> str:
        """Return one line per version: its fields and costs, its metrics, its score on every task, then intervals.

        An unknown value is an empty cell; several domains are joined by "; ". Task columns are called "task:NAME". The
        interval of a column is in two columns of its name with ":low" and ":high"; "gain:NAME" is the score minus the
        root base's. The column "trained_on" names the tasks with a flag, and "carried" those whose score is that of an
        earlier version.
        """
        data = self.to_json()
        bounded = [*METRIC_NAMES, *(f"{prefix}:{task.name}" for prefix in ("task", "gain") for task in self.tasks)]
        lines: list[list[Any]] = [
            [
                *data["versions"][0],
                *METRIC_NAMES,
                *(f"task:{task.name}" for task in self.tasks),
                *(f"{name}:{end}" for name in bounded for end in ("low", "high")),
                "trained_on",
                "carried",
            ]
        ]
        for place, row in enumerate(data["versions"]):
            cells = [*(row | {"domains": "; ".join(row["domains"])}).values()]
            metrics = {name: self.metrics[name][place] for name in METRIC_NAMES}
            metrics["retained"] = self.significant_retained(place)
            cells += [*metrics.values(), *data["matrix"][place]]
            intervals = [self.intervals.metrics[name][place] for name in METRIC_NAMES]
            intervals += self.intervals.score[place] + self.intervals.over_base[place]
            cells += [end for interval in intervals for end in interval or (None, None)]
            cells.append("; ".join(task.name for task in self.tasks if (row["id"], task.name) in self.flags))
            cells.append("; ".join(self.versions[place].carried))
            lines.append(cells)
        return to_csv(lines)


def measured(metrics: Iterable[str]) -> str:
    """Return the title of the main score that tasks share, such as "nDCG@10", or "main score" if they share none."""
    distinct = set(metrics) or {"ndcg_at_10"}
    if len(distinct) > 1:
        return "main score"
    return distinct.pop().replace("ndcg_at_", "nDCG@").replace("_at_", "@").replace("_", " ")
