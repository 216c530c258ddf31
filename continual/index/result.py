"""What a new version does to an index that an old one filled: the measures, and whether to re-index. No models here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from continual.config import CompatConfig

DEPTH = 10
"""Documents of a ranking that are compared, as nDCG@10 reads them."""

NeedsReindex = Literal["yes", "with an adapter", "no"]

FIGURES = ("canary", "overlap", "old_on_old", "new_on_new", "new_on_old", "old_on_new", "mapped_on_old")
"""Measured per task; their means over the tasks are figures of the whole."""


@dataclass(frozen=True)
class TaskCompatibility:
    """One task, searched by both models in the indexes of both.

    Scores are the task's main score in points. "x_on_y": queries encoded by x, documents by y.

    Attributes:
        task: Its name.
        domain: The domain it tests; None: it has none.
        metric: Its main score, by mteb's name.
        queries: How many.
        canary: Mean cosine of its texts' embeddings under both models, -1 to 1.
        overlap: Mean share of the first ten documents that both models find, each in its own index, 0 to 1.
        old_on_old: As it was.
        new_on_new: After full re-embedding.
        new_on_old: New queries, index left as it is.
        old_on_new: Queries of a client that still has the old model, index re-embedded.
        mapped_on_old: New queries through a map, index left as it is; None where no map was tried.
    """

    task: str
    domain: str | None
    metric: str
    queries: int
    canary: float
    overlap: float
    old_on_old: float
    new_on_new: float
    new_on_old: float
    old_on_new: float
    mapped_on_old: float | None = None

    @property
    def kept(self) -> float:
        """Share of full re-embedding's score that new queries have on the old index."""
        return share(self.new_on_old, self.new_on_new)

    @property
    def kept_mapped(self) -> float | None:
        """The same through the map."""
        return None if self.mapped_on_old is None else share(self.mapped_on_old, self.new_on_new)

    def to_json(self) -> dict[str, Any]:
        """Return the fields and both shares as plain data."""
        return asdict(self) | {"kept": self.kept, "kept_mapped": self.kept_mapped}


@dataclass(frozen=True)
class MapUsed:
    """The map from the new space to the old that `mapped_on_old` went through.

    Attributes:
        method: "identity", "procrustes", "affine" or "mlp".
        settings: Those of the method, chosen on held-out texts.
        rows: Training rows it was fitted on, query and passage each.
        held_out: Rows it was chosen on.
    """

    method: str
    settings: dict[str, float]
    rows: int
    held_out: int


@dataclass(frozen=True)
class Compatibility:
    """What a new version does to the index of an old one.

    Attributes:
        old: Id of the version that filled the index.
        new: Id of the version that would ask it.
        tasks: One each, in the order of their registration.
        map: The map that was tried; None: none was.
        needs_reindex: "no": new queries find in the old index what full re-embedding would find; "with an adapter":
            they lose little through a map, or as they are, until it is made anew; "yes": they lose more.
        reasons: Why, in sentences.
    """

    old: str
    new: str
    tasks: list[TaskCompatibility]
    map: MapUsed | None
    needs_reindex: NeedsReindex
    reasons: list[str]

    def mean(self, figure: str) -> float | None:
        """Return the mean of one of `FIGURES` over the tasks; None if a task lacks it."""
        values = [getattr(task, figure) for task in self.tasks]
        return None if any(value is None for value in values) else fmean(values)

    @property
    def kept(self) -> float:
        """The smallest share of full re-embedding's score that new queries have on the old index, over the tasks."""
        return min(task.kept for task in self.tasks)

    @property
    def kept_mapped(self) -> float | None:
        """The same through the map."""
        shares = [task.kept_mapped for task in self.tasks]
        return None if any(each is None for each in shares) else min(each for each in shares if each is not None)

    @property
    def map_helps(self) -> bool:
        """Whether new queries keep more through the map that was tried than as they are."""
        if self.map is None or self.map.method == "identity":
            return False
        return self.kept_mapped is not None and self.kept_mapped > self.kept

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data: the stable form, see `docs/compatibility.md`."""
        return {
            "old": self.old,
            "new": self.new,
            "needs_reindex": self.needs_reindex,
            "reasons": self.reasons,
            **{figure: self.mean(figure) for figure in FIGURES},
            "kept": self.kept,
            "kept_mapped": self.kept_mapped,
            "map": None if self.map is None else asdict(self.map),
            "tasks": [task.to_json() for task in self.tasks],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Compatibility:
        """Read what `to_json` gave; keys of a newer version are left out."""
        fields = TaskCompatibility.__dataclass_fields__
        return cls(
            old=data["old"],
            new=data["new"],
            tasks=[TaskCompatibility(**{key: task.get(key) for key in fields}) for task in data["tasks"]],
            map=None if data["map"] is None else MapUsed(**data["map"]),
            needs_reindex=data["needs_reindex"],
            reasons=list(data["reasons"]),
        )


def share(score: float, of: float) -> float:
    """Return a score as a share of another one; 1 where that is not above 0, for then nothing can be lost."""
    return score / of if of > 0 else 1.0


def overlap(first: Mapping[Any, Sequence[str]], second: Mapping[Any, Sequence[str]]) -> float:
    """Return the mean share of the first ten documents that two searches have in common.

    Args:
        first: Document ids by query, the nearest first.
        second: The same queries in another search. A corpus of fewer than ten documents is compared whole.
    """
    if not first:
        return math.nan
    shares = []
    for query, documents in first.items():
        ours, theirs = set(documents[:DEPTH]), set(second[query][:DEPTH])
        shares.append(len(ours & theirs) / max(len(ours), len(theirs), 1))
    return fmean(shares)


def judge(
    old: str, new: str, tasks: Sequence[TaskCompatibility], used: MapUsed | None, config: CompatConfig
) -> Compatibility:
    """Say whether the index must be made anew, by the task that loses most.

    Args:
        old: Id of the version that filled the index.
        new: Id of the version that would ask it.
        tasks: What was measured, at least one task.
        used: The map behind `mapped_on_old`, if there was one.
        config: The limits.
    """
    worst = min(tasks, key=lambda task: task.kept)
    reasons = [_sentence(f"{new}'s queries", worst, worst.new_on_old, worst.kept, config.keep, f"{old}'s index as is")]
    if worst.kept >= config.keep:
        return Compatibility(old, new, list(tasks), used, "no", reasons)
    best = worst.kept
    if used is None:
        reasons.append("No map of the queries was tried.")
    elif used.method == "identity":
        reasons.append("No map of the queries that was tried finds more than none.")
    else:
        through = min(tasks, key=lambda task: task.kept_mapped or 0.0)
        mapped = through.mapped_on_old or 0.0
        kept = share(mapped, through.new_on_new)
        reasons.append(
            _sentence(f"Through a map ({used.method}) they", through, mapped, kept, config.keep_mapped, "it")
        )
        best = max(best, kept)
    if best == worst.kept >= config.keep_mapped:
        reasons.append(f"As they are, they keep the {config.keep_mapped:.0%} asked for until the index is made anew.")
    verdict: NeedsReindex = "with an adapter" if best >= config.keep_mapped else "yes"
    return Compatibility(old, new, list(tasks), used, verdict, reasons)


def _sentence(who: str, task: TaskCompatibility, score: float, kept: float, limit: float, where: str) -> str:
    side = "at least" if kept >= limit else "less than"
    return (
        f"{who} keep {kept:.1%} of full re-embedding's score on {where} at worst, on {task.task} ({score:.1f} of "
        f"{task.new_on_new:.1f} points), {side} the {limit:.0%} asked for."
    )
