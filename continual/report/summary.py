"""What the terminal and the page both say of a report: one sentence, the changes, and the bill."""

from __future__ import annotations

from dataclasses import dataclass

from continual.registry.registry import utc
from continual.report.report import Column, Report, Row


@dataclass(frozen=True)
class Bill:
    """What training cost, beside what retraining on the whole lineage at every step would have.

    Attributes:
        version: Id of the step; "" for the total.
        pairs: Pairs trained.
        seconds: Of training.
        joint_pairs: Pairs a full retraining would have trained.
        refused: Whether the gate refused the step.
        again: Whether it learned nothing that no step before had tried.
    """

    version: str
    pairs: int
    seconds: float
    joint_pairs: int
    refused: bool = False
    again: bool = False

    @property
    def ratio(self) -> float | None:
        """Pairs trained over pairs of a full retraining; None when there is nothing to divide by."""
        return self.pairs / self.joint_pairs if self.joint_pairs else None


def bills(report: Report) -> tuple[list[Bill], Bill]:
    """Return the cost of every step, and the total.

    The total has the pairs of all steps, and a full retraining for those that brought something new: who retrains on
    everything does not do it again for what a refused step tried already.
    """
    tried: set[str] = set()
    steps = []
    for place, row in enumerate(report.versions):
        if row.parent and (row.verdict != "trained" or place in report.path):  # a trial of a recipe is no step
            again = not set(row.batches) - tried
            steps.append(Bill(row.id, row.pairs_trained, row.seconds, row.joint_pairs, row.verdict == "refused", again))
            tried |= set(row.batches)
    total = Bill(
        "",
        sum(step.pairs for step in steps),
        sum(step.seconds for step in steps),
        sum(step.joint_pairs for step in steps if not step.again),
    )
    return steps, total


def headline(report: Report) -> str:
    """Return who is in service since when, and how the last update ended."""
    return f"{in_service(report)} {last_update(report)}"


def in_service(report: Report) -> str:
    """Return which version is in service, and since when."""
    row = report.versions[report.position(report.current)]
    return f"{row.id}{' (the root base)' if row.parent is None else ''} is in service since {utc(report.since)}."


def latest(report: Report) -> Row:
    """Return the last update, refused ones included; the root base where none was made.

    What `continual train` made is no update: no gate judged it.
    """
    return next(row for row in reversed(report.versions) if row.verdict != "trained")


def last_update(report: Report) -> str:
    """Return how the last update ended."""
    last = latest(report)
    if last.parent is None:
        return "No update was made yet."
    ending = "passed the gate" if last.verdict == "accepted" else "was refused"
    learned = f", which learned {names(last.domains)}," if last.domains else ""
    return f"The last update, {last.id}{learned} {ending}."


def titled(row: Row) -> str:
    """Return the id of a version, with the recipe's name where `continual train` made it: "v3 (joint)"."""
    return f"{row.id} ({row.trained})" if row.trained else row.id


def what(row: Row) -> str:
    """Return what a version learned, after the name of the recipe that trained it: "joint: med, bash"."""
    learned = ", ".join(row.domains)
    return f"{row.trained}: {learned}" if row.trained else learned


def ceiling(report: Report) -> str:
    """Return which version intransigence compares with, or which one it could; "" where there is none."""
    if report.joint is not None:
        known = {row.id: titled(row) for row in report.versions}
        return f"The joint version, the ceiling of intransigence, is {known.get(report.joint, report.joint)}."
    found = [row for row in report.versions if row.trained == "joint" and row.scores]
    if not found:
        return ""
    last = found[-1].id
    return f"{last} was trained on its domains together: 'continual report --joint {last}' takes it for a ceiling."


def names(items: list[str]) -> str:
    """Join names as a sentence does."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1] if items else "nothing"


def groups(report: Report) -> list[tuple[str, list[Column]]]:
    """Return the tasks in two groups with titles, empty groups left out."""
    inside = [task for task in report.tasks if task.domain is not None]
    outside = [task for task in report.tasks if task.domain is None]
    named = [("Tasks of the stream's domains", inside), ("OOD tasks, of no domain", outside)]
    return [(title, tasks) for title, tasks in named if tasks]


def over_base(report: Report, row: Row, task: str) -> float | None:
    """Return a version's score minus the root base's, points."""
    return _minus(row.scores.get(task), report.versions[0].scores.get(task))


def since_learned(report: Report, place: int, task: str) -> float | None:
    """Return a version's score minus what its lineage scored right after learning the task's domain, points.

    None before that step, for tasks of no domain, and where a cell is missing.
    """
    for step in report.lineages[place]:
        if task in report.learned[step]:
            return _minus(report.versions[place].scores.get(task), report.versions[step].scores.get(task))
    return None


def mean_gain(report: Report, place: int | None = None) -> float | None:
    """Return the mean gain over the root base, points, of the tasks that a version has learned.

    Args:
        report: The report.
        place: Of the version in `versions`; None: the one in service.
    """
    line = report.path if place is None else report.lineages[place]
    row = report.versions[line[-1]]
    learned = {task for step in line for task in report.learned[step]}
    gains = [gain for task in sorted(learned) if (gain := over_base(report, row, task)) is not None]
    return sum(gains) / len(gains) if gains else None


def ood_change(report: Report) -> float | None:
    """Return the OOD mean of the version in service minus the root base's, points."""
    values = report.metrics["ood_mean"]
    return _minus(values[report.path[-1]], values[0])


def counted(report: Report, place: int) -> int:
    """Return the number of domains whose scores a version's ACC is the mean of."""
    learned = {task for step in report.lineages[place] for task in report.learned[step]}
    scores = report.versions[place].scores
    return len({task.domain for task in report.tasks if task.name in learned and task.name in scores})


def retained(report: Report, place: int) -> float | None:
    """Return the retained share of gain, percent; None also where that gain may be the luck of the queries."""
    gained = report.intervals.gained[place]
    return None if gained is not None and gained[0] <= 0 else report.metrics["retained"][place]


def extremes(report: Report, task: str) -> tuple[float | None, float | None]:
    """Return the best and the worst score on a task; None for both where fewer than three versions differ."""
    known = {round(row.scores[task], 1) for row in report.versions if task in row.scores}
    return (max(known), min(known)) if len(known) >= 3 else (None, None)


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
