"""Updates with texts to keep: recorded, rebuilt, resumed."""

from __future__ import annotations

from typing import Any

import pytest

from continual import Workspace
from continual.errors import DataError, InputError
from continual.registry import Provenance
from continual.step.keep import GENERAL, trained_texts
from continual.stream.sample import read_sample
from tests.kills import interrupt_update
from tests.rows import Write, make_pairs


def keeping(weight: float, *files: str) -> dict[str, dict[str, Any]]:
    return {"merge": {"keep": weight, **({"keep_texts": list(files)} if files else {})}}


@pytest.fixture
def ready(learned: Workspace, write_pairs: Write) -> Workspace:
    learned.ingest(write_pairs("c.parquet", make_pairs(60, seed=2)))
    return learned


def test_an_update_is_projected_recorded_and_rebuilt(ready: Workspace) -> None:
    plain = ready.update(seed=5, replay=0.5).version
    ready.promote("v2")
    version = ready.update(seed=5, replay=0.5, settings=keeping(0.5)).version
    kept = version.provenance.kept
    assert plain.provenance.kept is None
    assert kept is not None
    assert kept.norm is not None
    assert (kept.weight, kept.texts) == (0.5, len(read_sample(str(GENERAL)).texts))
    assert 0 < kept.norm < 1
    assert kept.seconds > 0
    assert version.sha256 != plain.sha256
    assert Provenance.from_json(version.provenance.to_json()).kept == kept
    assert ready.rebuild(version.id).sha256 == version.sha256


def test_an_interrupted_update_is_projected_once(ready: Workspace) -> None:
    expected = ready.update(seed=5, settings=keeping(0.5)).version
    ready.promote("v2")
    interrupt_update(ready, "collecting layer", 1, seed=5, settings=keeping(0.5))
    assert ready.update(resume=True).version.sha256 == expected.sha256
    ready.promote("v2")
    interrupt_update(ready, "evaluating", 1, seed=5, settings=keeping(0.5))  # the adapter is projected already
    assert ready.update(resume=True).version.sha256 == expected.sha256


def test_the_users_own_texts_are_kept_and_must_not_change_on_the_way(ready: Workspace) -> None:
    file = ready.directory / "index.txt"
    file.write_text("bal cem dis\nfol gum\n\nbal cem dis\n")
    options = {"seed": 5, "settings": keeping(0.5, "index.txt")}
    interrupt_update(ready, "training", 1, **options)
    file.write_text("bal cem dis\nfol haj\n")
    with pytest.raises(InputError, match=r"texts to keep .* changed since .*--restart"):
        ready.update(resume=True)
    kept = ready.update(restart=True, **options).version.provenance.kept
    assert kept is not None
    assert kept.texts == 2
    file.unlink()
    ready.promote("v2")
    with pytest.raises(DataError, match=r"index\.txt cannot be read"):
        ready.plan(seed=5, settings=keeping(0.5, "index.txt"), domains=["c"])


def test_the_texts_of_a_training_are_those_that_it_encodes(ready: Workspace) -> None:
    import pyarrow as pa

    rows = {"query": ["a", "b", "a"], "positive": ["p", "q", "p"], "instruction": [None, "Find", None]}
    found = trained_texts(pa.table(rows))
    assert (found.queries, found.documents) == (["a"], ["p", "q"])
    assert found.prompted == ["Instruct: Find\nQuery: b"]
