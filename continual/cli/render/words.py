"""Phrases that several commands print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continual.registry import Provenance, Window


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
