"""The gate: may a version go into service? Limits on forgetting, out-of-domain loss and gain, against its parent.

A limit is broken by a difference that is beyond it in points *and* is more than the luck of the queries: that a fall is
none, or that a gain is the smallest one asked for, has to be refuted. So the limits are what a team cares about. A gate
that demanded proof of harmlessness would refuse nearly every step: with some hundred queries an interval is two points
wide on either side.

A verdict looks at many differences, and the more it looks at, the likelier one of them is large by luck. Their p-values
are adjusted for that (Holm), so that a version that is as good as its parent is refused in `gate.false_alarms` of the
cases at most, on one task or on thirty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from continual.config import Config, GateConfig
from continual.eval.significance import (
    Interval,
    holm,
    mean_interval,
    paired,
    paired_interval,
)
from continual.registry.records import Score

NEW, LEARNED, AGAIN, OOD, LEAKED = "new", "learned", "again", "OOD", "leaked"
"""What a task is to a step: its domain was just learned, was learned before, both, or neither; or it is of no domain
that was learned, but rows that are in it were trained on before it was known, so that it is not OOD."""

SLACK = 1e-9
"""Points by which a limit may be missed before it counts, so that a fall of exactly the limit passes."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision.

    Attributes:
        passed: Whether the version may go into service.
        reasons: One sentence a limit: the ones that were broken if any was, else the ones that held.
        figures: What was measured, as plain data: `gain`, `worst` and `ood` (each with difference, low, high in
            points, and `adjusted`, the one-sided p-value that decides; or None where there was nothing to measure),
            `limits`, `confidence`, `comparisons` (how many p-values were adjusted together), and `tasks` (kind, new,
            old, difference, low, high, two-sided p and adjusted per task).
    """

    passed: bool
    reasons: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data, as it is kept with the version."""
        return asdict(self)


def judge(
    new: Mapping[str, Score], old: Mapping[str, Score], kinds: Mapping[str, str], root: Path, config: Config
) -> Verdict:
    """Compare a candidate's scores with its parent's and decide.

    Args:
        new: The candidate's score by task.
        old: The parent's. A task that either lacks is not compared.
        kinds: What each task is to the step: "new", "learned", "again" (learned before and now once more), "OOD" or
            "leaked".
        root: The `.continual` folder, where the per-query values are.
        config: The limits and the level of the intervals.
    """
    pairs = {}
    for task in kinds:
        if task in new and task in old:
            paths = new[task].path, old[task].path
            known = paths[0] is not None and paths[1] is not None
            pairs[task] = paired(root / paths[0], root / paths[1]) if known else None  # type: ignore[operator]
    level = config.eval.confidence
    intervals = {task: paired_interval(*pair, level) for task, pair in pairs.items() if pair is not None}
    means = {}
    for name, wanted in (("gain", (NEW, AGAIN)), ("ood", (OOD,))):
        chosen = [pairs[task] for task in pairs if kinds[task] in wanted]
        if chosen and all(pair is not None for pair in chosen):
            means[name] = mean_interval([pair for pair in chosen if pair is not None], level)
    points = {name: {task: score.score for task, score in scores.items()} for name, scores in (("n", new), ("o", old))}
    return weigh(points["n"], points["o"], kinds, config.gate, intervals, means, level)


def weigh(
    new: Mapping[str, float],
    old: Mapping[str, float],
    kinds: Mapping[str, str],
    limits: GateConfig,
    intervals: Mapping[str, Interval] | None = None,
    means: Mapping[str, Interval] | None = None,
    confidence: float = 0.95,
) -> Verdict:
    """Decide; a pure function.

    Args:
        new: The candidate's points by task.
        old: The parent's.
        kinds: What each task is to the step.
        limits: The limits, in points.
        intervals: Interval by task; without one a task is judged by its points alone.
        means: Intervals of the mean "gain" and of the mean "ood" difference, likewise.
        confidence: Their level.
    """
    intervals, means = intervals or {}, means or {}
    change = {task: new[task] - old[task] for task in kinds if task in new and task in old}
    learned = [task for task in change if kinds[task] in (NEW, AGAIN)]
    earlier = [task for task in change if kinds[task] in (LEARNED, AGAIN)]
    outside = [task for task in change if kinds[task] == OOD]
    broken, held = [], []
    adjusted = _adjusted(earlier, intervals, means, limits)

    def sure(interval: Interval | None, falling: bool) -> str:
        if interval is None:
            return ""
        low, high = (-interval.high, -interval.low) if falling else (interval.low, interval.high)
        sense = "fall" if falling else "rise"
        return f" ({100 * confidence:g} % interval of the {sense} {_points(low)} to {_points(high)})"

    def breach(what: str, name: str, alone: bool, than: str, rule: str) -> None:
        """File what is beyond a limit in points: if it may be the luck of the queries, the limit is not broken.

        `alone` is whether its own interval, were it the only one, would say so as well.
        """
        if name not in adjusted or adjusted[name] <= limits.false_alarms:
            broken.append(f"{what}, {than} {rule}")
        else:
            among = f"of {len(adjusted)} comparisons " if len(adjusted) > 1 and not alone else ""
            held.append(f"{what}, which {among}may be the luck of the queries; {rule}")

    if learned:
        gain = _mean(change[task] for task in learned)
        what = f"{_list(learned)} {'lost' if gain < 0 else 'gained'} {_points(abs(gain))} points"
        what += (" on average" if len(learned) > 1 else "") + sure(means.get("gain"), gain < 0)
        rule = f"gate.min_gain = {limits.min_gain}"
        if gain < limits.min_gain - SLACK:
            interval = means.get("gain")
            breach(what, "gain", interval is None or interval.high >= limits.min_gain, "less than", rule)
        else:
            held.append(f"{what}, at least {rule}")
        worse = [f"{task} {_points(change[task])}" for task in learned if kinds[task] == NEW and change[task] < 0]
        if len(learned) > 1 and worse:
            held.append(f"worse for having been learned: {_list(worse)}")
    rule = f"gate.max_forgetting = {limits.max_forgetting}"
    falls = sorted(earlier, key=lambda task: change[task])
    for place, task in enumerate(falls):
        points = f"{_points(-change[task])} points{sure(intervals.get(task), True)}"
        if -change[task] > limits.max_forgetting + SLACK:
            alone = task not in intervals or intervals[task].high >= 0
            breach(f"{task} fell by {points}", f"task {task}", alone, "more than", rule)
        elif place == 0:
            fell = f"{task} fell most, by {points}" if change[task] < 0 else "no domain learned before fell"
            held.append(f"{fell}; {rule}")
    if outside:
        ood = _mean(change[task] for task in outside)
        sense = "fell" if ood < 0 else "rose"
        what = f"the mean of {len(outside)} OOD task{'s' * (len(outside) > 1)} {sense} by {_points(abs(ood))} points"
        what += sure(means.get("ood"), ood < 0)
        rule = f"gate.max_ood_loss = {limits.max_ood_loss}"
        if -ood > limits.max_ood_loss + SLACK:
            breach(what, "ood", "ood" not in means or means["ood"].high >= 0, "more than", rule)
        else:
            held.append(f"{what}; {rule}")
    leaked = [task for task in change if kinds[task] == LEAKED]
    if leaked:
        verb = "is" if len(leaked) == 1 else "are"
        held.append(f"{_list(leaked)} {verb} not counted as OOD: trained on, in part, before the task was known")
    if not change:
        held.append("there was no task to compare on, so nothing was limited")
    figures = {
        "gain": _figure("gain", _mean(change[task] for task in learned), means, adjusted) if learned else None,
        "worst": {"task": falls[0], **_of_task(falls[0], change, intervals, adjusted)} if falls else None,
        "ood": _figure("ood", _mean(change[task] for task in outside), means, adjusted) if outside else None,
        "limits": limits.model_dump(),
        "confidence": confidence,
        "comparisons": len(adjusted),
        "tasks": {
            task: {
                "kind": kinds[task],
                "new": new[task],
                "old": old[task],
                **_of_task(task, change, intervals, adjusted),
                "p": intervals[task].p if task in intervals else None,
            }
            for task in change
        },
    }
    return Verdict(not broken, broken or held, figures)


def _adjusted(
    earlier: Iterable[str], intervals: Mapping[str, Interval], means: Mapping[str, Interval], limits: GateConfig
) -> dict[str, float]:
    """Return the adjusted one-sided p-values of what may break a limit: "gain", "ood" and "task NAME"."""
    tested = {f"task {task}": intervals[task].p_below() for task in earlier if task in intervals}
    for name, bound in (("gain", limits.min_gain), ("ood", 0.0)):
        if name in means:
            tested[name] = means[name].p_below(bound)
    return dict(zip(tested, holm(list(tested.values())), strict=True))


def _figure(
    name: str, difference: float, intervals: Mapping[str, Interval], adjusted: Mapping[str, float]
) -> dict[str, float | None]:
    low, high = (intervals[name].low, intervals[name].high) if name in intervals else (None, None)
    return {"difference": difference, "low": low, "high": high, "adjusted": adjusted.get(name)}


def _of_task(
    task: str, change: Mapping[str, float], intervals: Mapping[str, Interval], adjusted: Mapping[str, float]
) -> dict[str, float | None]:
    return _figure(
        task, change[task], intervals, {task: adjusted[f"task {task}"]} if f"task {task}" in adjusted else {}
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _points(value: float) -> str:
    # Two digits where one would say "0.0" of something that is not.
    text = f"{value:.1f}" if abs(value) >= 0.05 or value == 0 else f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
