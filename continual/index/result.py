"""Two versions on the index that the older one filled: the measures, and whether to re-index. No models here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from continual.config import IndexConfig

DEPTH = 10
"""Documents of a ranking that are compared, as in nDCG@10."""

NeedsReindex = Literal["yes", "with a query map", "not yet", "no"]

FIGURES = ("canary", "overlap", "old_on_old", "new_on_new", "new_on_old", "old_on_new", "mapped_on_old")
"""Measured per task, and averaged over the tasks."""


@dataclass(frozen=True)
class IndexedTask:
    """One task, searched by both models in the indexes of both.

    Scores are the task's main score in points. "x_on_y" means: queries encoded by x, documents by y.

    Attributes:
        domain: The domain it tests; None if it tests none.
        metric: Its main score, by mteb's name.
        queries: Number of queries.
        canary: Mean cosine of its texts' embeddings under both models, -1 to 1.
        overlap: Mean share of the first ten documents that both models find, each in its own index, 0 to 1.
        old_on_old: Before the update.
        new_on_new: After full re-embedding.
        new_on_old: New queries on the old index.
        old_on_new: A client that still has the old model, after full re-embedding.
        mapped_on_old: New queries through a query map, on the old index; None if no map was tried.
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
        """Share of full re-embedding's score that new queries keep on the old index."""
        return share(self.new_on_old, self.new_on_new)

    @property
    def kept_mapped(self) -> float | None:
        """The same, through the query map."""
        return None if self.mapped_on_old is None else share(self.mapped_on_old, self.new_on_new)

    def to_json(self) -> dict[str, Any]:
        """Return the fields and both shares as plain data."""
        return vars(self) | {"kept": self.kept, "kept_mapped": self.kept_mapped}


@dataclass(frozen=True)
class MapUsed:
    """The query map behind `mapped_on_old`.

    Attributes:
        method: "identity", "procrustes", "affine" or "mlp".
        settings: Of the method, chosen on held-out texts.
        rows: Training rows that it was fitted on, each a query and a passage.
        held_out: Rows that it was chosen on.
    """

    method: str
    settings: dict[str, float]
    rows: int
    held_out: int


@dataclass(frozen=True)
class IndexComparison:
    """Two versions on the index that the older one filled.

    Attributes:
        old: Id of the version that filled the index.
        new: Id of the version whose queries search it.
        tasks: In the order of their registration.
        map: The query map that was tried; None if there was none.
        needs_reindex: "no": new queries find on the old index what they would find after full re-embedding; "not
            yet": they lose little as they are; "with a query map": they lose little, but only through the map, or less
            through it; "yes": they lose more.
        reasons: Why, in sentences.
    """

    old: str
    new: str
    tasks: list[IndexedTask]
    map: MapUsed | None
    needs_reindex: NeedsReindex
    reasons: list[str]

    def mean(self, figure: str) -> float | None:
        """Return the mean of one of `FIGURES` over the tasks; None if a task lacks it."""
        values = [getattr(task, figure) for task in self.tasks]
        return None if any(value is None for value in values) else fmean(values)

    @property
    def kept(self) -> float:
        """Share of full re-embedding's score that new queries keep on the old index, on the worst task."""
        return min(task.kept for task in self.tasks)

    @property
    def kept_mapped(self) -> float | None:
        """The same, through the query map."""
        shares = [task.kept_mapped for task in self.tasks]
        return None if any(each is None for each in shares) else min(each for each in shares if each is not None)

    @property
    def map_helps(self) -> bool:
        """Whether new queries keep more through the map than without it."""
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
    def from_json(cls, data: Mapping[str, Any]) -> IndexComparison:
        """Read what `to_json` gave; keys of a newer version are left out."""
        fields = IndexedTask.__dataclass_fields__
        return cls(
            old=data["old"],
            new=data["new"],
            tasks=[IndexedTask(*map(task.get, fields)) for task in data["tasks"]],
            map=None if data["map"] is None else MapUsed(**data["map"]),
            # 0.1.0 called a query map an adapter.
            needs_reindex="with a query map" if data["needs_reindex"] == "with an adapter" else data["needs_reindex"],
            reasons=list(data["reasons"]),
        )


def share(score: float, of: float) -> float:
    """Return a score as a share of another; 1 if the other is 0 or less, because then nothing can be lost."""
    return score / of if of > 0 else 1.0


def overlap(first: Mapping[Any, Sequence[str]], second: Mapping[Any, Sequence[str]]) -> float:
    """Return the mean share of the first ten documents that two searches have in common, 0 to 1.

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


def judge_index(
    old: str, new: str, tasks: Sequence[IndexedTask], used: MapUsed | None, config: IndexConfig
) -> IndexComparison:
    """Decide whether to re-index, by the task that loses most.

    Args:
        old: Id of the version that filled the index.
        new: Id of the version whose queries search it.
        tasks: At least one.
        used: The map behind `mapped_on_old`; None if there was none.
        config: The limits.
    """
    worst = min(tasks, key=lambda task: task.kept)
    who = f"{new}'s queries on {old}'s index"
    reasons = [_sentence(who, worst, worst.new_on_old, worst.kept, config.keep)]
    if worst.kept >= config.keep:
        return IndexComparison(old, new, list(tasks), used, "no", reasons)
    mapped_share = 0.0
    if used is None:
        reasons.append("No query map was tried.")
    elif used.method == "identity":
        reasons.append("No query map does better than the queries as they are.")
    else:
        through = min(tasks, key=lambda task: task.kept_mapped or 0.0)
        mapped = through.mapped_on_old or 0.0
        mapped_share = share(mapped, through.new_on_new)
        reasons.append(
            _sentence(f"Through a query map ({used.method}) they", through, mapped, mapped_share, config.keep_mapped)
        )
    verdict: NeedsReindex = "yes"
    if mapped_share > worst.kept and mapped_share >= config.keep_mapped:
        verdict = "with a query map"
    elif worst.kept >= config.keep_mapped:
        verdict = "not yet"
        reasons.append(
            f"Without a map they stay above the limit of {config.keep_mapped:.0%}, so re-indexing can wait; search "
            f"{old}'s index as it is."
        )
    return IndexComparison(old, new, list(tasks), used, verdict, reasons)


def _sentence(who: str, task: IndexedTask, score: float, kept: float, limit: float) -> str:
    side = "at least" if kept >= limit else "below"
    return (
        f"{who} keep {kept:.1%} of full re-embedding's score on the worst task, {task.task} ({score:.1f} of "
        f"{task.new_on_new:.1f} points): {side} the limit of {limit:.0%}."
    )
