"""The section about what the domains do to each other, where an analysis was made."""

from __future__ import annotations

from typing import Any

from continual.conflicts.analysis import Conflicts
from continual.report.figures import (
    Column,
    Dendrogram,
    Pairs,
    Table,
)
from continual.report.report import Report
from continual.report.sections.base import Figure, Section
from continual.report.summary import names

UNIT = "loss together minus alone"

MANY = 14
"""Domains from which on a chart of them takes the whole width."""


def conflicts(report: Report) -> Section | None:
    """What each domain does to each other one when they are trained together, and which belong together."""
    found = report.conflicts
    if found is None:
        return None
    about = (
        f"{found.verdict} Above zero, the loss on held-out rows is higher when both are trained together than when "
        f"each is alone; the conflict of a pair is the mean of its two entries. Measured from {found.start} on "
        f"{_rows(found)} rows of each domain, {found.made[:10]}."
    )
    later = [task.domain for task in report.tasks if task.domain is not None and task.domain not in found.domains]
    notes = []
    if later:
        notes.append(f"Not compared: {names(list(dict.fromkeys(later)))}.")
    return Section(
        "conflicts",
        "Conflicts",
        "Which domains hurt each other",
        about,
        [Figure(chart, wide=len(found.domains) > MANY) for chart in (_matrix(found), _tree(found))],
        [_domains(found)],
        notes=notes,
    )


def _rows(found: Conflicts) -> str:
    low, high = min(found.rows.values()), max(found.rows.values())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _matrix(found: Conflicts) -> Pairs:
    labels = [found.domains[place] for place in found.order]
    owners = _owners(found)
    groups: list[int] = []
    for place, label in enumerate(labels):
        if place and owners[label] == owners[labels[place - 1]]:
            groups[-1] += 1
        else:
            groups.append(1)
    return Pairs(
        "conflicts",
        "What the column does to the row",
        "Loss of each row's domain trained together with each column's, minus its loss alone. A frame is a cluster.",
        labels,
        [[found.matrix[one][other] for other in found.order] for one in found.order],
        groups,
        ("better together", "worse together"),
        UNIT,
    )


def _tree(found: Conflicts) -> Dendrogram:
    leaves = [found.domains[place] for place in found.order]
    owners, count = _owners(found), len(leaves)
    places = {domain: place for place, domain in enumerate(found.order)}
    joins = [
        (places.get(left, left), places.get(right, right), conflict) for left, right, conflict in found.merges
    ]  # joins keep their numbers: those of domains are below the count
    assert set(places) == set(range(count))
    dotted = "" if found.cut is None else " The dotted line is where the tree was cut."
    return Dendrogram(
        "dendrogram",
        "What belongs together",
        "Groups of domains, joined at the mean conflict of the pairs between them; branches of one colour are a "
        f"cluster.{dotted}",
        leaves,
        [owners[leaf] for leaf in leaves],
        joins,
        "mean conflict of the pairs between two groups",
        found.cut,
    )


def _owners(found: Conflicts) -> dict[str, int]:
    """Return the number of each domain's cluster."""
    return {domain: number for number, members in enumerate(found.clusters.values()) for domain in members}


def _domains(found: Conflicts) -> Table:
    owners, clusters = _owners(found), list(found.clusters)
    columns = [
        Column("domain"), Column("cluster"), Column("rows", "count"), Column("held out", "count"),
        Column("loss before", "loss"), Column("loss alone", "loss"), Column("other order", "loss"),
    ]  # fmt: skip
    rows: list[list[Any]] = [
        [
            name, clusters[owners[name]], found.rows[name], found.held[name], found.before[name], found.alone[name],
            found.again[name],
        ]
        for name in (found.domains[place] for place in found.order)
    ]  # fmt: skip
    epochs = f"{found.epochs} epoch{'s' * (found.epochs != 1)}"
    caption = f"Every domain alone: {epochs}, seed {found.seed}. The loss is that of training: contrastive."
    return Table("conflict-domains", caption, columns, rows)
