"""Build a report from the catalog: read it once, then compute the metrics of every version along its lineage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual.conflicts.analysis import last_conflicts
from continual.errors import NothingToDoError
from continual.eval.intervals import report_intervals
from continual.eval.metrics import METRICS, intransigence, ood_mean
from continual.eval.ood import Flag, flags
from continual.eval.query_scores import QueryScores, aligned
from continual.index.result import IndexComparison
from continual.registry import CURRENT, ROOT, Registry
from continual.registry.artifacts import folder_of, queries_of
from continual.registry.comparable import comparable
from continual.registry.erase import FORGOTTEN
from continual.registry.provenance import Cost
from continual.registry.records import (
    Alias,
    Score,
    Task,
    Version,
)
from continual.report.carry import carry, drift
from continual.report.joint import Joint, find_joint
from continual.report.last import last_regressions
from continual.report.report import METRIC_NAMES, Report, ReportTask, ReportVersion

Matrix = NDArray[np.float64]


def build_report(
    registry: Registry, joint: str | None = None, confidence: float = 0.95, *, full: bool = True
) -> Report:
    """Read the registry and compute the metrics of every version along its own lineage.

    A refused version, a rollback or a branch therefore doesn't change the metrics of other versions.

    Args:
        joint: The joint version, as `find_joint` takes it; None leaves intransigence out.
        confidence: Level of the intervals.
        full: Also read what only the page and the figures show: draws, searches and verdicts of all versions, and the
            changed queries. With many domains, these are most of the catalog.

    Raises:
        NothingToDoError: There is no version, or only a root base without scores.
        NotFoundError: The joint version does not exist.
        InputError: The joint version has another root base.
        DataError: A file of a task, or of scores per query, is damaged. Missing ones only leave intervals out.
    """
    catalog = _read(registry, full=full)
    registry.digests.check(*map(folder_of, catalog.tasks), *map(queries_of, catalog.stored), missing_ok=True)
    current, scores = catalog.current, catalog.scores
    if not catalog.versions or (len(catalog.versions) == 1 and not scores):
        raise NothingToDoError(
            "There is nothing to report yet: the workspace has no update. Add rows with `continual ingest FILE`, "
            "then run `continual update`."
        )
    tasks = _tasks(catalog)
    records = _shown(catalog.versions, scores, current.version if current else ROOT)
    limited = {score.version for score in catalog.stored if score.probe}
    created = {task.name: task.created_at for task in catalog.tasks}
    versions = carry(_versions(records, catalog), limited, created)
    position = {version.id: place for place, version in enumerate(versions)}
    matrix = np.array(
        [[version.scores.get(task.name, math.nan) for task in tasks] for version in versions], dtype=np.float64
    ).reshape(len(versions), len(tasks))
    lineages = _lineages(versions)
    learned = _learned(versions, tasks, lineages)
    ood = _ood_set(versions, tasks, matrix, position[current.version] if current else 0, catalog.flags)
    joint_version = find_joint(registry, joint, scores) if joint is not None else None
    ceiling = np.array([_ceiling(joint_version, task) for task in tasks], np.float64)
    values = _query_points(registry, versions, tasks, scores, joint_version)
    root = records[0]
    return Report(
        versions=versions,
        tasks=tasks,
        metrics=_metrics(matrix, lineages, learned, ood, ceiling),
        learned=[
            {task.name for task, step in zip(tasks, steps, strict=True) if step == len(lineage) - 1}
            for lineage, steps in zip(lineages, learned, strict=True)
        ],
        lineages=lineages,
        ood_set=[tasks[place].name for place in ood],
        current=current.version if current else root.id,
        since=current.at if current else root.created_at,
        why=current.reason if current else "",
        workspace=registry.root.resolve().parent.name,
        intervals=report_intervals(
            matrix,
            lineages,
            learned,
            ood,
            values,
            ceiling if joint_version else None,
            confidence,
            drift(versions, [task.name for task in tasks], lineages),
        ),
        joint=joint_version.name if joint_version else None,
        regressions=last_regressions(registry, records, catalog.tasks, scores, confidence) if full else None,
        flags=catalog.flags,
        index={
            new: IndexComparison.from_json(stored)
            for (old, new), stored in catalog.index.items()
            if new in position and old == versions[position[new]].parent
        },
        conflicts=last_conflicts(registry.root),
        full=full,
    )


@dataclass(frozen=True)
class _Catalog:
    """The contents of the catalog that a report needs; `domain_of` is by batch id, `stored` is all scores."""

    current: Alias | None
    versions: list[Version]
    stored: list[Score]
    scores: dict[tuple[str, str], Score]
    domains: list[str]
    domain_of: dict[str, str]
    tasks: list[Task]
    flags: dict[tuple[str, str], Flag]
    index: dict[tuple[str, str], dict[str, Any]]


def _read(registry: Registry, *, full: bool) -> _Catalog:
    """Read everything in one transaction, so that the report is consistent while other commands write."""
    with registry.catalog.together():
        versions = registry.versions() if full else registry.outlines()
        stored = registry.all_scores()
        return _Catalog(
            current=registry.alias(CURRENT),
            versions=versions,
            stored=stored,
            scores=comparable(stored, {version.id: place for place, version in enumerate(versions)}),
            domains=[domain.name for domain in registry.domains()],
            domain_of={batch.id: batch.domain for batch in registry.batches()},
            tasks=registry.tasks(),
            flags=flags(registry),
            index=registry.compatibility(),
        )


def _tasks(catalog: _Catalog) -> list[ReportTask]:
    """Return the tasks of domains in the order of the stream, then the others."""
    place_of = {name: place for place, name in enumerate(catalog.domains)}
    tasks = sorted(catalog.tasks, key=lambda task: place_of.get(task.domain or "", len(place_of)))
    return [ReportTask(task.name, task.domain, task.queries, task.metric) for task in tasks]


def _shown(versions: Sequence[Version], scores: Mapping[tuple[str, str], Score], current: str) -> list[Version]:
    """Leave out forgotten versions, and phases of recipes without scores.

    Their children get the nearest remaining ancestor as parent.
    """
    scored = {owner for owner, _ in scores}
    kept = {
        version.id
        for version in versions
        if version.status not in ("trained", FORGOTTEN) or version.id in scored or version.id == current
    }
    parents = {version.id: version.parent for version in versions}
    shown = []
    for version in versions:
        if version.id in kept:
            parent = version.parent
            while parent is not None and parent not in kept:
                parent = parents[parent]
            shown.append(replace(version, parent=parent))
    return shown


def _versions(records: Sequence[Version], catalog: _Catalog) -> list[ReportVersion]:
    points: dict[str, dict[str, float]] = {version.id: {} for version in catalog.versions}
    for (owner, task), score in catalog.scores.items():
        points[owner][task] = score.score
    return [_version(record, points[record.id], catalog.domain_of, catalog.domains) for record in records]


def _version(
    version: Version, scores: dict[str, float], domain_of: dict[str, str], domains: list[str]
) -> ReportVersion:
    verdict = version.verdict
    learned = {domain_of[batch] for batch in version.batches if batch in domain_of}
    own = Cost(version.pairs_trained, version.tokens_trained, version.seconds)
    cost = version.provenance.cost or own  # provenance.cost includes the phases that the report leaves out
    return ReportVersion(
        id=version.id,
        parent=version.parent,
        domains=[name for name in domains if name in learned],
        batches=list(version.batches),
        pairs_trained=cost.pairs,
        tokens_trained=cost.tokens,
        seconds=cost.seconds,
        joint_pairs=version.joint_pairs,
        status=version.status,
        reasons=[] if verdict is None else verdict.reasons,
        created_at=version.created_at,
        provenance=version.provenance,
        scores=scores,
        changes={} if verdict is None else verdict.tasks,
        confidence=0.95 if verdict is None else verdict.confidence,
    )


def _lineages(versions: Sequence[ReportVersion]) -> list[list[int]]:
    """Return the lineage of each version as positions in `versions`; parents come before their children."""
    position = {version.id: place for place, version in enumerate(versions)}
    lineages: list[list[int]] = []
    for place, version in enumerate(versions):
        before = lineages[position[version.parent]] if version.parent is not None else []
        lineages.append([*before, place])
    return lineages


def _learned(
    versions: Sequence[ReportVersion], tasks: Sequence[ReportTask], lineages: Sequence[Sequence[int]]
) -> list[list[int | None]]:
    """Return, per version and task, the first step of the version's lineage that learned the task's domain."""
    columns: dict[str, list[int]] = {}
    for column, task in enumerate(tasks):
        if task.domain is not None:
            columns.setdefault(task.domain, []).append(column)
    learned: list[list[int | None]] = []
    for version, lineage in zip(versions, lineages, strict=True):
        steps: list[int | None] = [None] * len(tasks)
        if len(lineage) > 1:
            steps = list(learned[lineage[-2]])
        for column in (column for domain in version.domains for column in columns.get(domain, ())):
            if steps[column] is None:
                steps[column] = len(lineage) - 1
        learned.append(steps)
    return learned


def _ood_set(
    versions: Sequence[ReportVersion],
    tasks: Sequence[ReportTask],
    matrix: Matrix,
    current: int,
    flagged: Mapping[tuple[str, str], Flag],
) -> list[int]:
    """Return the tasks without a domain or a flag that every version was scored on, refused versions aside.

    A task that was added late is left out, so that the curve of the mean has no gap. If all were added late, the set
    is the tasks that the root base and the current version were scored on, and the curve has a gap.
    """
    for compared in ([place for place, version in enumerate(versions) if version.status != "refused"], [0, current]):
        chosen = [
            column
            for column, task in enumerate(tasks)
            if task.domain is None
            and np.isfinite(matrix[compared, column]).all()
            and not any((versions[place].id, task.name) in flagged for place in compared)
        ]
        if chosen:
            return chosen
    return []


def _ceiling(joint: Joint | None, task: ReportTask) -> float:
    """Return the joint version's points on a task whose domain it has learned, otherwise NaN."""
    comparable = joint is not None and task.domain in joint.domains and task.name in joint.scores
    return joint.scores[task.name].score if joint is not None and comparable else math.nan


def _metrics(
    matrix: Matrix,
    lineages: Sequence[list[int]],
    learned: Sequence[list[int | None]],
    ood: list[int],
    ceiling: Matrix,
) -> dict[str, list[float | None]]:
    """Return one value per version of each metric, computed on the rows of the version's lineage."""
    metrics: dict[str, list[float | None]] = {name: [] for name in METRIC_NAMES}
    for lineage, steps in zip(lineages, learned, strict=True):
        rows = matrix[lineage]
        for name, metric in METRICS.items():
            metrics[name].append(_number(metric(rows, steps)))
        metrics["ood_mean"].append(_number(ood_mean(rows, ood)))
        metrics["intransigence"].append(_number(intransigence(rows, steps, ceiling)))
    return metrics


def _query_points(
    registry: Registry,
    versions: Sequence[ReportVersion],
    tasks: Sequence[ReportTask],
    scores: Mapping[tuple[str, str], Score],
    joint: Joint | None,
) -> list[Matrix]:
    """Return the points of every query of each task, [versions, queries]; the joint version is the last row."""
    own_files, values = QueryScores(registry.root), []
    joint_files = None if joint is None else QueryScores(joint.root)
    for task in tasks:
        own_scores = [scores.get((version.carried.get(task.name, version.id), task.name)) for version in versions]
        points = [None if score is None or score.path is None else own_files.read(score.path) for score in own_scores]
        if joint is not None and joint_files is not None:
            path = joint.scores[task.name].path if task.name in joint.scores else None
            points.append(None if path is None else joint_files.read(path))
        values.append(aligned(points))
    own_files.remember()
    return values


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 9) + 0.0  # rounds 1e-14 to 0, and makes -0.0 0.0
