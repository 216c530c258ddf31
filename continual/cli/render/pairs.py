"""What mine prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from continual.cli.render.console import say

if TYPE_CHECKING:
    from continual.pairs.mine import Mined

WIDTH = 100
"""Characters of a text in an example."""


def print_mined(mined: Mined, used: int) -> None:
    """Print what was mined for a domain.

    Args:
        used: Negatives per row that training uses, `train.max_negatives`.
    """
    mean = mined.negatives / mined.rows if mined.rows else 0.0
    say(
        f"{mined.domain}: {mined.negatives:,} negatives for {mined.rows:,} rows ({mean:.1f} each), found by "
        f"{mined.version} among {mined.passages:,} passages in {mined.seconds:.0f} s."
    )
    if mined.margin is not None:
        short = mined.rows - mined.full
        say(
            f"  They score {mined.margin:.2f} below the positive on average. {short:,} rows have fewer than asked for, "
            f"{mined.none:,} of them none."
        )
    if mined.suspect:
        say(
            f"  Per query, {mined.near:.1f} other passages score as high as the positive or nearly so. Many may be "
            "right answers that are not marked as such: look with --show 10, and raise mine.relative_margin."
        )
    if mean > used:
        say(f"  An update uses {used} per row (train.max_negatives), those given with the row first.")
    for example in mined.examples:
        say(f"  {_short(example.query)}")
        say(f"    + {example.positive[1]:.2f}  {_short(example.positive[0])}")
        for text, score in example.negatives:
            say(f"    - {score:.2f}  {_short(text)}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
