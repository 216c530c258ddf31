"""What mine and synthesize print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table

if TYPE_CHECKING:
    from continual.pairs.mine import Mined
    from continual.pairs.synthesis.records import Kind, Synthesis

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
            f"  Per query, {mined.near:.1f} other passages score about as high as the positive. Many may be "
            "right answers that are not marked as such: look with --show 10, and raise mine.relative_margin."
        )
    if mean > used:
        say(f"  An update uses {used} per row (train.max_negatives), those given with the row first.")
    for example in mined.examples:
        say(f"  {_short(example.query)}")
        say(f"    + {example.positive[1]:.2f}  {_short(example.positive[0])}")
        for text, score in example.negatives:
            say(f"    - {score:.2f}  {_short(text)}")


def print_synthesis(found: Synthesis, show: int) -> None:
    """Print what was made of passages, and some of the pairs."""
    share = found.covered / found.passages
    say(f"{found.kept:,} pairs for {found.covered:,} of {found.passages:,} passages ({share:.0%}): {found.file}")
    if found.method == "extract":
        say("The queries are parts of the passages, and weak. A language model writes better ones (--method llm).")
    if found.held:
        say(f"Left out: {found.held:,} passages that evaluation tasks hold.")
    _print_kinds("type", found.types)
    for name, kinds in found.traits.items():
        _print_kinds(name, kinds)
    if found.rejected:
        rows = table("left out", "why", "for example", numbers=(0, 1), header_style="bold")
        for name, rejected in found.rejected.items():
            rows.add_row(f"{rejected.count:,}", name, escape(_short(rejected.examples[0][0])))
        console.print(rows)
    for reason, count in found.missing.items():
        say(f"{count:,} passages have no query: {reason}.")
    if found.spent is not None:
        money = "" if found.spent.cost is None else f", {found.spent.cost:.2f} in money"
        asked, told = found.spent.tokens
        say(f"{found.spent.requests:,} requests, {asked:,} tokens asked and {told:,} answered{money}.")
    for query, positive in _pairs(found.file, show):
        say(f"  {_short(query)}")
        say(f"    + {_short(positive)}")
    say(f"Look at some, then: continual ingest {found.file} --domain NAME")


def _print_kinds(name: str, kinds: dict[str, Kind]) -> None:
    rows = table("written", "kept", name, "words", "mean rank of its passage", numbers=(0, 2), header_style="bold")
    for kind, figures in kinds.items():
        rank = "-" if figures.rank is None else f"{figures.rank:.1f}"
        rows.add_row(f"{figures.written:,}", f"{figures.kept:,}", escape(kind), f"{figures.query_words:.1f}", rank)
    console.print(rows)


def _pairs(file: str, count: int) -> list[tuple[str, str]]:
    """Return pairs of a file, evenly from all."""
    import pyarrow.parquet as pq

    rows = pq.read_table(file, columns=["query", "positive"])
    places = range(0, len(rows), max(1, len(rows) // max(count, 1)))[:count]
    return [(rows["query"][place].as_py(), rows["positive"][place].as_py()) for place in places]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
