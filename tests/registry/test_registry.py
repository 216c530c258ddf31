"""The registry's records, and the log of aliases."""

from __future__ import annotations

import dataclasses

import pytest

from continual.errors import NotFoundError
from continual.registry import Provenance, Registry, Run, Score, Spec, Task
from continual.registry.catalog import now
from tests.registries import batch, version


def test_a_record_comes_back_as_it_went_in(registry: Registry) -> None:
    task = Task("a", "a", "tasks/a", 1, 2, 3, "holdout", "x", now())
    made = registry.add_batch(batch("a"), task)
    assert registry.batches() == [made]
    assert registry.tasks() == [task]
    assert [domain.name for domain in registry.domains()] == ["a"]
    registry.add_version(version("v0"), [Score("v0", "a", "ndcg_at_10", 51.5, 10, None, {"map": 40.0})])
    assert registry.scores()["v0", "a"].details == {"map": 40.0}
    assert registry.versions()[0] == dataclasses.replace(version("v0"), created_at=registry.versions()[0].created_at)
    assert registry.versions()[0].created_at.tzinfo is not None


def test_domains_keep_the_order_of_the_stream(registry: Registry) -> None:
    for name in ("z", "a", "z", "m"):
        registry.add_batch(batch(name, registry.next_batch_id()))
    assert [domain.name for domain in registry.domains()] == ["z", "a", "m"]
    assert [each.id for each in registry.batches("z")] == ["b1", "b3"]


def test_aliases_are_an_append_only_log(registry: Registry) -> None:
    registry.add_version(version("v0"), promote="init")
    registry.add_version(version("v1", "v0"), promote="better")
    registry.set_alias("current", "v0", "worse after all")
    assert registry.version("current").id == "v0"
    assert [(event.version, event.previous) for event in registry.alias_events()] == [
        ("v0", None),
        ("v1", "v0"),
        ("v0", "v1"),
    ]


def test_lineage_follows_parents_not_numbers(registry: Registry) -> None:
    for name, parent in (("v0", None), ("v1", "v0"), ("v2", "v0")):
        registry.add_version(version(name, parent))
    assert [each.id for each in registry.lineage(registry.version("v2"))] == ["v0", "v2"]


def test_an_unknown_version_is_answered_with_the_nearest(registry: Registry) -> None:
    registry.add_version(version("v0"), promote="init")
    with pytest.raises(NotFoundError, match="Did you mean 'current'"):
        registry.version("curent")


def run(name: str) -> Run:
    return Run(name, "running", Spec(name, "v0", [], [], 0, Provenance(seed=1)), now(), None)


def test_ids_of_discarded_runs_are_not_used_again(registry: Registry) -> None:
    registry.add_version(version("v0"))
    registry.begin_run(run("v1"))
    assert registry.next_version_id() == "v2"
    registry.begin_run(run("v2"))
    assert [(begun.id, begun.state) for begun in registry.runs()] == [("v1", "discarded"), ("v2", "running")]
