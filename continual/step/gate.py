"""The gate: decide whether a version becomes current, by limits on gain, forgetting and OOD loss against its parent.

A limit is broken if the change is beyond it in points *and* statistically significant. The null hypothesis is no fall,
or, for the gain, exactly `gate.min_gain`. A gate that
demanded proof of harmlessness would refuse nearly every step: with a few hundred queries an interval is two points
wide on either side.

A verdict tests many differences, and the more it tests, the likelier one of them is large by chance. The p-values are
therefore adjusted (Holm), so that a version as good as its parent is refused in at most `gate.false_alarms` of all
cases, on one task or on thirty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from continual.config import GateConfig
from continual.eval.significance import Interval, holm
from continual.registry import Change, Role, TaskChange

SLACK = 1e-9
"""Points by which a limit may be missed before it counts, so that a fall of exactly the limit passes."""


@dataclass(frozen=True)
class Finding:
    """What the gate found about one limit.

    Attributes:
        limit: The limit: "min_gain", "max_forgetting" or "max_ood_loss".
        tasks: The tasks that it was measured on.
        change: Their change, or the mean of their changes.
        beyond: Whether the change is beyond the limit in points.
        broken: Whether the limit is broken: beyond it, and not by chance.
        alone: Whether the change could be chance even if it were the only comparison.
        p: One-sided p-value of the change on its own; None without scores per query.
    """

    limit: Literal["min_gain", "max_forgetting", "max_ood_loss"]
    tasks: list[str]
    change: Change
    beyond: bool = False
    broken: bool = False
    alone: bool = True
    p: float | None = None


@dataclass(frozen=True)
class Decision:
    """The gate's decision with its numbers.

    Attributes:
        findings: One per limit that had something to measure; of forgetting, one for every task that fell beyond the
            limit, and one for the task that fell most if none did.
        limits: The limits.
        confidence: Level of the intervals.
        comparisons: How many p-values were adjusted together.
        tasks: The change on every compared task.
        left: Tasks of learned domains that were not compared.
    """

    findings: list[Finding]
    limits: GateConfig
    confidence: float = 0.95
    comparisons: int = 0
    tasks: dict[str, TaskChange] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no limit is broken."""
        return not any(finding.broken for finding in self.findings)

    def of(self, *roles: Role) -> list[str]:
        """Return the tasks of these roles."""
        return [name for name, task in self.tasks.items() if task.role in roles]

    def final(self, comparisons: int) -> bool:
        """Return whether a limit is broken even if as many p-values were adjusted together (Bonferroni)."""
        return any(
            finding.beyond and finding.p is not None and finding.p * comparisons <= self.limits.false_alarms
            for finding in self.findings
        )

    def fell(self, task: str) -> bool:
        """Return whether a task was compared and fell, by however little."""
        return task in self.tasks and self.tasks[task].difference < 0


def decide(
    new: Mapping[str, float],
    old: Mapping[str, float],
    roles: Mapping[str, Role],
    limits: GateConfig,
    intervals: Mapping[str, Interval] | None = None,
    means: Mapping[str, Interval] | None = None,
    confidence: float = 0.95,
) -> Decision:
    """Decide, from scores and limits alone.

    Args:
        new: The candidate's points by task.
        old: The parent's.
        roles: What each task is to the step.
        limits: The limits, in points.
        intervals: Interval of each task's difference; a task without one is judged by its points alone.
        means: Intervals of the mean "gain" and of the mean "ood" difference, likewise.
        confidence: Their level.
    """
    intervals, means = intervals or {}, means or {}
    change = {task: new[task] - old[task] for task in roles if task in new and task in old}
    learned = [task for task in change if roles[task] in ("new", "again")]
    earlier = [task for task in change if roles[task] in ("learned", "again")]
    outside = [task for task in change if roles[task] == "OOD"]
    adjusted = _adjusted(earlier, intervals, means, limits)

    def file(limit: Literal["min_gain", "max_forgetting", "max_ood_loss"], name: str, tasks: list[str]) -> Finding:
        interval = means.get(name) if name in ("gain", "ood") else intervals.get(tasks[0])
        difference = _mean(change[task] for task in tasks)
        least = limits.min_gain if limit == "min_gain" else -getattr(limits, limit)
        beyond = difference < least - SLACK
        broken = beyond and (name not in adjusted or adjusted[name] <= limits.false_alarms)
        bound = limits.min_gain if limit == "min_gain" else 0.0
        alone = interval is None or interval.high >= bound
        p = None if interval is None else interval.p_below(bound)
        return Finding(limit, tasks, _change(difference, interval, adjusted.get(name)), beyond, broken, alone, p)

    findings = []
    if learned:
        findings.append(file("min_gain", "gain", learned))
    falls = [file("max_forgetting", f"task {task}", [task]) for task in sorted(earlier, key=lambda task: change[task])]
    findings += falls[:1] + [finding for finding in falls[1:] if finding.beyond]
    if outside:
        findings.append(file("max_ood_loss", "ood", outside))
    tasks = {
        task: TaskChange(
            difference=change[task],
            low=intervals[task].low if task in intervals else None,
            high=intervals[task].high if task in intervals else None,
            adjusted=adjusted.get(f"task {task}"),
            role=roles[task],
            new=new[task],
            old=old[task],
            p=intervals[task].p if task in intervals else None,
        )
        for task in change
    }
    left = [task for task, role in roles.items() if role in ("learned", "again") and task not in change]
    return Decision(findings, limits, confidence, len(adjusted), tasks, left)


def _adjusted(
    earlier: Iterable[str], intervals: Mapping[str, Interval], means: Mapping[str, Interval], limits: GateConfig
) -> dict[str, float]:
    """Return the adjusted one-sided p-values of what may break a limit: "gain", "ood" and "task NAME"."""
    tested = {f"task {task}": intervals[task].p_below() for task in earlier if task in intervals}
    for name, bound in (("gain", limits.min_gain), ("ood", 0.0)):
        if name in means:
            tested[name] = means[name].p_below(bound)
    return dict(zip(tested, holm(list(tested.values())), strict=True))


def _change(difference: float, interval: Interval | None, adjusted: float | None) -> Change:
    if interval is None:
        return Change(difference, adjusted=adjusted)
    return Change(difference, interval.low, interval.high, adjusted)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
