"""Comparisons of two versions, query by query."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from continual import Workspace


def test_two_versions_are_compared_query_by_query(learned: Workspace, tmp_path: Path) -> None:
    shutil.copytree(learned.registry.path(learned.registry.tasks()[0].path), tmp_path / "late")
    learned.add_task("late", tmp_path / "late")
    found = learned.compare("v0")
    assert (found.first, found.second) == ("v0", learned.version().id)
    assert [each.task for each in found.tasks] == [task.name for task in learned.registry.tasks()]
    scores = learned.registry.scores()
    for each in found.tasks:
        old, new = scores["v0", each.task], scores[found.second, each.task]
        assert (each.first, each.second) == pytest.approx((old.score, new.score))
        assert each.difference == pytest.approx(new.score - old.score)
        assert each.low <= each.difference <= each.high
        assert each.better + each.worse <= each.queries == new.queries
    assert found.mean.difference == pytest.approx(np.mean([each.difference for each in found.tasks]))
    same = learned.compare("v1", "v1").tasks[0]
    assert (same.difference, same.p, same.better) == (0.0, 1.0, 0)
