"""From a candidate's scores to the verdict that is stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from continual.config import Config
from continual.eval.significance import mean_interval, paired, paired_interval
from continual.registry import Role, Score, Verdict
from continual.step.gate import Decision, decide
from continual.step.reasons import explain


def judge(
    new: Mapping[str, Score], old: Mapping[str, Score], roles: Mapping[str, Role], root: Path, config: Config
) -> Verdict:
    """Compare a candidate's scores with its parent's and decide.

    Args:
        new: The candidate's score by task.
        old: The parent's. A task that either lacks is not compared.
        roles: What each task is to the step.
        root: The `.continual` folder, where the scores per query are.
        config: The limits and the level of the intervals.
    """
    pairs = {}
    for task in roles:
        if task in new and task in old:
            paths = new[task].path, old[task].path
            known = paths[0] is not None and paths[1] is not None
            pairs[task] = paired(root / paths[0], root / paths[1]) if known else None  # type: ignore[operator]
    level = config.eval.confidence
    intervals = {task: paired_interval(*pair, level) for task, pair in pairs.items() if pair is not None}
    means = {}
    for name, wanted in (("gain", ("new", "again")), ("ood", ("OOD",))):
        chosen = [pairs[task] for task in pairs if roles[task] in wanted]
        if chosen and all(pair is not None for pair in chosen):
            means[name] = mean_interval([pair for pair in chosen if pair is not None], level)
    points = [{task: score.score for task, score in scores.items()} for scores in (new, old)]
    return as_verdict(decide(points[0], points[1], roles, config.gate, intervals, means, level))


def as_verdict(decision: Decision) -> Verdict:
    """Return a decision as it is stored and shown, with its reasons in words."""
    change = {finding.limit: finding.change for finding in decision.findings}
    falls = [finding for finding in decision.findings if finding.limit == "max_forgetting"]
    return Verdict(
        passed=decision.passed,
        reasons=explain(decision),
        gain=change.get("min_gain"),
        worst=falls[0].tasks[0] if falls else None,
        ood=change.get("max_ood_loss"),
        limits=decision.limits.model_dump(),
        confidence=decision.confidence,
        comparisons=decision.comparisons,
        tasks=decision.tasks,
    )
