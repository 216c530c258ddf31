"""The gate's decision in words."""

from __future__ import annotations

from continual.registry import Change
from continual.step.gate import Decision, Finding

SHOWN = 5
"""Tasks that a sentence names; the others are counted."""


def explain(decision: Decision) -> list[str]:
    """Return one sentence per limit: of those that are broken if any is, otherwise of those that held."""
    broken = [_broken(decision, finding) for finding in decision.findings if finding.broken]
    if broken:
        return broken
    held = []
    for finding in decision.findings:
        held.append(_chance(decision, finding) if finding.beyond else _held(decision, finding))
        if finding.limit == "min_gain":
            held += _worse(decision, finding)
    leaked = decision.of("leaked")
    if leaked:
        verb, whose, what = ("is", "its", "the task was") if len(leaked) == 1 else ("are", "their", "the tasks were")
        held.append(
            f"{_list(leaked)} {verb} not counted as OOD: some of {whose} texts were trained on before {what} added"
        )
    probes = [name for name, task in decision.tasks.items() if task.probe]
    if probes:
        held.append(f"{len(probes)} of {len(decision.tasks)} tasks were compared on a probe, not in full")
    if decision.tasks and decision.left:
        verb = "was" if len(decision.left) == 1 else "were"
        held.append(f"{_list(decision.left[:SHOWN])}{_more(decision.left)} {verb} not compared in this step")
    if not decision.tasks:
        held.append("there was no task to compare on, so no limit was checked")
    return held


def _broken(decision: Decision, finding: Finding) -> str:
    than = "less than" if finding.limit == "min_gain" else "more than"
    return f"{_what(decision, finding)}, {than} {_rule(decision, finding)}"


def _chance(decision: Decision, finding: Finding) -> str:
    """Say that a change beyond its limit may be chance; on its own, or among as many as were compared."""
    several = decision.comparisons > 1 and not finding.alone
    given = f", given {decision.comparisons} comparisons" if several else ""
    return f"{_what(decision, finding)}, which may be chance{given}; {_rule(decision, finding)}"


def _held(decision: Decision, finding: Finding) -> str:
    rule, difference = _rule(decision, finding), finding.change.difference
    if finding.limit == "min_gain":
        return f"{_what(decision, finding)}, at least {rule}"
    if finding.limit == "max_ood_loss":
        return f"{_what(decision, finding)}; {rule}"
    if difference >= 0:
        return f"no domain learned before fell; {rule}"
    fall = f"{_points(-difference)} points{_interval(decision, finding.change, falling=True)}"
    return f"{_measured(decision, finding.tasks[0])} fell most, by {fall}; {rule}"


def _worse(decision: Decision, finding: Finding) -> list[str]:
    """Name the new domains that fell although they were learned, where the mean of several hides them."""
    worse = [
        f"{task} {_points(decision.tasks[task].difference)}"
        for task in finding.tasks
        if decision.tasks[task].role == "new" and decision.tasks[task].difference < 0
    ]
    return [f"worse after being learned: {_list(worse)}"] if len(finding.tasks) > 1 and worse else []


def _what(decision: Decision, finding: Finding) -> str:
    """Say what changed, by how much, and its interval."""
    difference = finding.change.difference
    points, falls = _points(abs(difference)), difference < 0
    if finding.limit == "min_gain":
        mean = " on average" if len(finding.tasks) > 1 else ""
        what = f"{_list(finding.tasks)} {'lost' if falls else 'gained'} {points} points{mean}"
    elif finding.limit == "max_forgetting":
        what, falls = f"{_measured(decision, finding.tasks[0])} fell by {_points(-difference)} points", True
    else:
        count = len(finding.tasks)
        sense = "fell" if falls else "rose"
        what = f"the mean of {count} OOD task{'s' * (count > 1)} {sense} by {points} points"
    return what + _interval(decision, finding.change, falls)


def _measured(decision: Decision, task: str) -> str:
    """Name a task, and what its change was measured on if that is not the whole task and the parent."""
    change = decision.tasks[task]
    since = f" since {change.since}" if change.since else ""
    return f"{task} (probe)" if change.probe else f"{task}{since}"


def _rule(decision: Decision, finding: Finding) -> str:
    return f"gate.{finding.limit} = {getattr(decision.limits, finding.limit)}"


def _interval(decision: Decision, change: Change, falling: bool) -> str:
    if change.low is None or change.high is None:
        return ""
    low, high = (-change.high, -change.low) if falling else (change.low, change.high)
    sense = "fall" if falling else "rise"
    return f" ({100 * decision.confidence:g} % interval of the {sense} {_points(low)} to {_points(high)})"


def _points(value: float) -> str:
    # Two decimals if one would round a nonzero value to 0.0.
    text = f"{value:.1f}" if abs(value) >= 0.05 or value == 0 else f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _more(names: list[str]) -> str:
    return f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
