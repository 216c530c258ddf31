"""Progress outside a terminal."""

from __future__ import annotations

import io

import pytest

from continual.cli import bars
from continual.cli.bars import Bars


def test_a_long_bar_of_a_log_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Bars(stream) as shown:
        shown.start("training", 4000, "pairs", 1000)
        for _ in range(3):
            now[0] += 20
            shown.advance(1000)
    assert stream.getvalue().splitlines() == [
        "training: 2,000 of 3,000 pairs so far",
        "training: 3,000 pairs in 60.0 s (50 pairs/s)",
    ]
