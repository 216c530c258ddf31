"""Phrases that several commands print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continual.registry import Cuts, Provenance, Window


def describe_merge(made: Provenance) -> str:
    """Return how an update is merged with the current version; the weight only if the rule uses it."""
    from continual.merge.methods import find_method
    from continual.merge.rules import find_rule

    if not find_method(find_rule(str(made.merge)).method).weighted:
        return str(made.merge)
    return f"{made.merge}, weight {made.weight:.3g}"


def describe_rows(windows: Iterable[Window]) -> str:
    """Return domains with their numbers of rows."""
    return ", ".join(f"{window.domain} {window.rows:,}" for window in windows)


def describe_replay(replay: Mapping[str, Any]) -> str:
    """Return which rows an update replays, from the section [replay] of its settings."""
    limit = "" if replay.get("rows") is None else f", at most {replay['rows']:,} rows in all"
    return f"{replay['policy']}, {replay['share']:.3g} of each learned domain{limit}"


def describe_skipped(rows: Mapping[str, int], were: str) -> str:
    """Return which rows are not trained on.

    Args:
        rows: Rows by domain.
        were: Beginning of the sentence, such as "Skipped".
    """
    listed = ", ".join(f"{domain} {count:,}" for domain, count in rows.items())
    return f"{were} rows without negatives, in domains whose rows use only their own negatives: {listed}."


def describe_cuts(cuts: Cuts | None) -> list[str]:
    """Return what a training does not use of its rows, a sentence for texts and one for negatives; empty if all is."""
    if cuts is None:
        return []
    said = []
    if cuts.cut_queries or cuts.cut_passages:
        limit = f"{cuts.limit} tokens ({'the limit of the model' if cuts.own else 'train.max_length'})"
        parts = (
            f"{share_of(cuts.cut_queries, cuts.queries)} of queries",
            f"{share_of(cuts.cut_passages, cuts.passages)} of passages",
        )
        said.append(f"Cut at {limit}: {' and '.join(parts)}.")
    if unused := cuts.negatives - cuts.used_negatives:
        said.append(
            f"Not used: {share_of(unused, cuts.negatives)} of the given negatives, beyond train.max_negatives = "
            f"{cuts.max_negatives} per row."
        )
    return said


def describe_training(made: Provenance) -> list[str]:
    """Return what a training did not use of its rows, and how it compared embeddings if not by the whole cosine."""
    training = made.training
    if training is None:
        return []
    said = describe_cuts(training.cuts)
    if training.similarity != "cosine" or training.dimensions is not None:
        dimensions = "" if training.dimensions is None else f" of the first {training.dimensions} dimensions"
        name = "dot product" if training.similarity == "dot" else "cosine"
        said.append(f"The loss compared embeddings as the model is used: by the {name}{dimensions}.")
    return said


def describe_kept(made: Provenance) -> list[str]:
    """Return how the update was projected for texts to keep, as sentences."""
    kept = made.kept
    if kept is None or kept.norm is None:
        return []
    return [
        f"Projected for {kept.texts:,} texts to keep (merge.keep = {kept.weight:g}): the update's norm is "
        f"{kept.norm:.2f} of what was trained."
    ]


def share_of(part: int, whole: int) -> str:
    """Return a share in percent that is 0% or 100% only if it is exact."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 1:
        return "under 1%"
    return "over 99%" if 99 < share < 100 else f"{share:.0f}%"
