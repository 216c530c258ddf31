"""From a candidate's scores to the verdict that is stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from continual.config import Config
from continual.eval.significance import mean_interval, paired, paired_interval
from continual.registry import Role, Score, Verdict
from continual.step.gate import Decision, decide
from continual.step.reasons import explain


def judge(
    pairs: Mapping[str, tuple[Score, Score]], roles: Mapping[str, Role], root: Path, config: Config, parent: str
) -> Decision:
    """Compare a candidate's scores with earlier ones and decide.

    Args:
        pairs: The candidate's score and the earlier one by task, with equal settings. Other tasks are not compared.
        roles: What each task is to the step.
        root: The `.continual` folder, where the scores per query are.
        config: The limits and the level of the intervals.
        parent: Id of the candidate's parent.
    """
    queries = {}
    for task, (new, old) in pairs.items():
        known = new.path is not None and old.path is not None
        queries[task] = paired(root / new.path, root / old.path) if known else None  # type: ignore[operator]
    level = config.eval.confidence
    intervals = {task: paired_interval(*pair, level) for task, pair in queries.items() if pair is not None}
    means = {}
    for name, wanted in (("gain", ("new", "again")), ("ood", ("OOD",))):
        chosen = [queries[task] for task in queries if roles[task] in wanted]
        if chosen and all(pair is not None for pair in chosen):
            means[name] = mean_interval([pair for pair in chosen if pair is not None], level)
    points = [{task: pair[side].score for task, pair in pairs.items()} for side in (0, 1)]
    decision = decide(points[0], points[1], roles, config.gate, intervals, means, level)
    tasks = {
        name: replace(change, probe=new.probe, since=None if old.version == parent else old.version)
        for name, change in decision.tasks.items()
        for new, old in (pairs[name],)
    }
    return replace(decision, tasks=tasks)


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
