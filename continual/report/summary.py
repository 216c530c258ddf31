"""The sentences and derived figures that the terminal, the page and the files share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from continual.registry.catalog import utc
from continual.report.report import Report, ReportTask, ReportVersion


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """The cost of training in one step or in all, and the cost of full retraining to compare it with.

    Attributes:
        version: Id of the version; "" for the total.
        pairs: Pairs trained.
        seconds: Training time.
        joint_pairs: Pairs that full retraining on the whole lineage would have trained.
        refused: Whether the gate refused the version.
        repeats: Whether earlier steps had already tried all batches of this step.
    """

    version: str
    pairs: int
    seconds: float
    joint_pairs: int
    refused: bool = False
    repeats: bool = False

    @property
    def ratio(self) -> float | None:
        """`pairs` / `joint_pairs`; None if `joint_pairs` is 0."""
        return self.pairs / self.joint_pairs if self.joint_pairs else None


def step_costs(report: Report) -> tuple[list[StepCost], StepCost]:
    """Return the cost of every step, and the total.

    The total sums the pairs of all steps, but counts full retraining only for steps with new batches, because a full
    retraining after a refused step would already have included that step's batches.
    """
    tried: set[str] = set()
    steps = []
    for place, version in enumerate(report.versions):
        # The result of `continual train` is a step only if the current version descends from it.
        if version.parent and (version.status != "trained" or place in report.path):
            cost = StepCost(
                version=version.id,
                pairs=version.pairs_trained,
                seconds=version.seconds,
                joint_pairs=version.joint_pairs,
                refused=version.status == "refused",
                repeats=not set(version.batches) - tried,
            )
            steps.append(cost)
            tried |= set(version.batches)
    total = StepCost(
        version="",
        pairs=sum(step.pairs for step in steps),
        seconds=sum(step.seconds for step in steps),
        joint_pairs=sum(step.joint_pairs for step in steps if not step.repeats),
    )
    return steps, total


def headline(report: Report) -> str:
    """Return a sentence about the current version and one about the last update."""
    return f"{current_version(report)} {last_update(report)}"


def current_version(report: Report) -> str:
    """Return which version is current, and since when, as a sentence."""
    version = report.versions[report.position(report.current)]
    return current_since(version.id + (" (the root base)" if version.parent is None else ""), report.since)


def current_since(version: str, since: datetime) -> str:
    """Return the sentence that a version has been the current one since a time."""
    return f"{version} has been the current version since {utc(since)}."


def latest(report: Report) -> ReportVersion:
    """Return the last update, even if it was refused; without any update, the root base.

    Results of `continual train` are not updates: the gate doesn't judge them.
    """
    return next(version for version in reversed(report.versions) if version.status != "trained")


def last_update(report: Report) -> str:
    """Return how the last update ended, as a sentence."""
    last = latest(report)
    if last.parent is None:
        return "There has been no update yet."
    outcome = "passed the gate" if last.status == "accepted" else "was refused by the gate"
    learned = f", which learned {join_names(last.domains)}," if last.domains else ""
    return f"The last update, {last.id}{learned} {outcome}."


def version_title(version: ReportVersion) -> str:
    """Return the id of a version, with the name of the recipe that `continual train` made it with: "v3 (joint)"."""
    return f"{version.id} ({version.recipe})" if version.recipe else version.id


def learned_domains(version: ReportVersion) -> str:
    """Return the domains that a version learned, after the name of a recipe: "joint: med, bash"."""
    learned = ", ".join(version.domains)
    return f"{version.recipe}: {learned}" if version.recipe else learned


def joint_note(report: Report) -> str:
    """Return which version intransigence compares with, or which version could be named for it; "" without any."""
    if report.joint is not None:
        titles = {version.id: version_title(version) for version in report.versions}
        return f"Intransigence compares with the joint version {titles.get(report.joint, report.joint)}."
    joints = [version.id for version in report.versions if version.recipe == "joint" and version.scores]
    if not joints:
        return ""
    last = joints[-1]
    return (
        f"{last} was trained on its domains together: 'continual report --joint {last}' computes intransigence from it."
    )


def join_names(names: list[str]) -> str:
    """Return names as a list in a sentence: "a, b and c"."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "nothing"


def task_groups(report: Report) -> list[tuple[str, list[ReportTask]]]:
    """Return the tasks of domains and the OOD tasks, each with a title; empty groups are left out."""
    inside = [task for task in report.tasks if task.domain is not None]
    outside = [task for task in report.tasks if task.domain is None]
    groups = [("Tasks of the stream's domains", inside), ("OOD tasks", outside)]
    return [(title, tasks) for title, tasks in groups if tasks]


def over_base(report: Report, version: ReportVersion, task: str) -> float | None:
    """Return a version's score minus the root base's, in points."""
    return _difference(version.scores.get(task), report.versions[0].scores.get(task))


def since_learned(report: Report, place: int, task: str) -> float | None:
    """Return a version's score minus the score right after its lineage learned the task's domain, in points.

    None before that step, for tasks without a domain, and if a score is missing.
    """
    for step in report.lineages[place]:
        if task in report.learned[step]:
            return _difference(report.versions[place].scores.get(task), report.versions[step].scores.get(task))
    return None


def mean_gain(report: Report, place: int | None = None) -> float | None:
    """Return the mean gain over the root base, in points, on the tasks of the domains that a version has learned.

    Args:
        place: Position of the version in `versions`; None for the current version.
    """
    lineage = report.path if place is None else report.lineages[place]
    version = report.versions[lineage[-1]]
    learned = {task for step in lineage for task in report.learned[step]}
    gains = [gain for task in sorted(learned) if (gain := over_base(report, version, task)) is not None]
    return sum(gains) / len(gains) if gains else None


def ood_change(report: Report) -> float | None:
    """Return the OOD mean of the current version minus the root base's, in points."""
    values = report.metrics["ood_mean"]
    return _difference(values[report.path[-1]], values[0])


def acc_domains(report: Report, place: int) -> int:
    """Return the number of domains that a version's ACC averages."""
    learned = {task for step in report.lineages[place] for task in report.learned[step]}
    scores = report.versions[place].scores
    return len({task.domain for task in report.tasks if task.name in learned and task.name in scores})


def extremes(report: Report, task: str) -> tuple[float | None, float | None]:
    """Return the best and the worst score on a task; None for both if there are fewer than three distinct scores."""
    distinct = {round(version.scores[task], 1) for version in report.versions if task in version.scores}
    return (max(distinct), min(distinct)) if len(distinct) >= 3 else (None, None)


def _difference(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference
