"""The section about conflicts between domains, shown after `continual analyze conflicts`."""

from __future__ import annotations

from typing import Any

from continual.conflicts.analysis import Conflicts
from continual.report.figures import (
    Dendrogram,
    PairMatrix,
    Table,
    TableColumn,
)
from continual.report.report import Report
from continual.report.sections.base import Figure, ReportSection
from continual.report.summary import join_names

UNIT = "loss together minus alone"

MANY = 14
"""Most domains of a chart that takes half the width of the page."""


def conflicts_section(report: Report) -> ReportSection | None:
    """Build the section: the effect of each domain on each other when trained together, and the clusters."""
    conflicts = report.conflicts
    if conflicts is None:
        return None
    about = (
        f"{conflicts.verdict} A positive value means that the loss on held-out rows is higher when two domains are "
        "trained together than when each is trained alone; the conflict of a pair is the mean of its two values. "
        f"Measured from {conflicts.start} on {_row_counts(conflicts)} rows per domain, {conflicts.made[:10]}."
    )
    missing = [task.domain for task in report.tasks if task.domain is not None and task.domain not in conflicts.domains]
    notes = []
    if missing:
        notes.append(f"The analysis doesn't include {join_names(list(dict.fromkeys(missing)))}.")
    return ReportSection(
        "conflicts",
        "Conflicts",
        "Conflicts between domains",
        about,
        [Figure(chart, wide=len(conflicts.domains) > MANY) for chart in (_matrix(conflicts), _tree(conflicts))],
        [_domains(conflicts)],
        notes=notes,
    )


def _row_counts(conflicts: Conflicts) -> str:
    low, high = min(conflicts.rows.values()), max(conflicts.rows.values())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _matrix(conflicts: Conflicts) -> PairMatrix:
    labels = [conflicts.domains[place] for place in conflicts.order]
    cluster_of = _cluster_numbers(conflicts)
    groups: list[int] = []
    for place, label in enumerate(labels):
        if place and cluster_of[label] == cluster_of[labels[place - 1]]:
            groups[-1] += 1
        else:
            groups.append(1)
    return PairMatrix(
        "conflicts",
        "Effect of the column's domain on the row's",
        "Loss of each row's domain when trained together with each column's, minus its loss when trained alone. "
        "Frames are clusters.",
        labels,
        [[conflicts.matrix[row][column] for column in conflicts.order] for row in conflicts.order],
        groups,
        ("better together", "worse together"),
        UNIT,
    )


def _tree(conflicts: Conflicts) -> Dendrogram:
    leaves = [conflicts.domains[place] for place in conflicts.order]
    cluster_of, count = _cluster_numbers(conflicts), len(leaves)
    places = {domain: place for place, domain in enumerate(conflicts.order)}
    # Numbers below `count` are domains, which the chart reorders; numbers of joins stay.
    joins = [(places.get(left, left), places.get(right, right), value) for left, right, value in conflicts.merges]
    assert set(places) == set(range(count))
    cut = "" if conflicts.cut is None else " The dotted line is where the tree was cut."
    return Dendrogram(
        "dendrogram",
        "Clusters of domains",
        "Groups of domains, joined at the mean conflict of the pairs between them; branches of one colour are a "
        f"cluster.{cut}",
        leaves,
        [cluster_of[leaf] for leaf in leaves],
        joins,
        "mean conflict of the pairs between two groups",
        conflicts.cut,
    )


def _cluster_numbers(conflicts: Conflicts) -> dict[str, int]:
    """Return the number of each domain's cluster."""
    return {domain: number for number, members in enumerate(conflicts.clusters.values()) for domain in members}


def _domains(conflicts: Conflicts) -> Table:
    cluster_of, clusters = _cluster_numbers(conflicts), list(conflicts.clusters)
    columns = [
        TableColumn("domain"), TableColumn("cluster"), TableColumn("rows", "count"), TableColumn("held out", "count"),
        TableColumn("loss before", "loss"), TableColumn("loss alone", "loss"),
        TableColumn("alone, other order", "loss"),
    ]  # fmt: skip
    rows: list[list[Any]] = [
        [
            name, clusters[cluster_of[name]], conflicts.rows[name], conflicts.held[name], conflicts.before[name],
            conflicts.alone[name], conflicts.again[name],
        ]
        for name in (conflicts.domains[place] for place in conflicts.order)
    ]  # fmt: skip
    epochs = f"{conflicts.epochs} epoch{'s' * (conflicts.epochs != 1)}"
    caption = f"Each domain trained alone: {epochs}, seed {conflicts.seed}. Losses are the contrastive training loss."
    return Table("conflict-domains", caption, columns, rows)
