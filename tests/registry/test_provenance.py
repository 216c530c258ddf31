"""Typed records of versions: what is written is read, and what is damaged or newer is named."""

from __future__ import annotations

import json

import pytest

from continual.errors import SchemaError
from continual.registry import Cost, Provenance, Spec, TrainResult, Verdict, Window
from continual.registry.provenance import SearchPoint, SearchResult

POINT = SearchPoint({"weight": 0.5}, 1.5, {"med": 1.0, "bash": 2.0})
FULL = Provenance(
    start="v1",
    merge="search",
    weight=0.5,
    parameters={"lambda": 0.7},
    state={"n": 2},
    state_next={"n": 3},
    seed=4,
    new=[Window("med", "0" * 32, "f" * 32, 40, "d")],
    replay=[Window("bash", "0" * 32, "f" * 32, 10, "e", candidates=40, picked="ff00")],
    cursors={"bash": "f" * 32},
    guarded=["med"],
    skipped={"intents": 2},
    instructions={"med": "Answer the question"},
    config={"train": {"epochs": 1}},
    libraries={"torch": "2.13.0"},
    training=TrainResult(40, 900, 1.5, 3, 0.7, ((1, 0.9), (3, 0.7)), "fp32", "cpu"),
    fold_error=1e-7,
    search=SearchResult(POINT, [POINT], POINT, [POINT], 0.02, True),
    search_cost=Cost(0, 0, 2.5, 80, 1600),
)


@pytest.mark.parametrize("provenance", [Provenance(base="packaged"), FULL], ids=["root", "step"])
def test_a_provenance_comes_back_from_json(provenance: Provenance) -> None:
    assert Provenance.from_json(json.loads(json.dumps(provenance.to_json()))) == provenance


def test_every_field_is_stored_so_that_a_new_default_changes_no_record() -> None:
    assert set(Provenance().to_json()) == {"schema", *Provenance.__dataclass_fields__}


def test_a_record_of_the_first_release_is_read() -> None:
    flat = {"version": "v2", "parent": "v1", "batches": ["b1"], "tasks": ["med"], "joint_pairs": 9}
    made = {"start": "v1", "merge": "ties", "weight": 0.8, "new": [], "replay": [], "seed": 3}
    spec = Spec.from_json(flat | made)
    assert (spec.version, spec.provenance.merge, spec.provenance.seed) == ("v2", "ties", 3)
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    task = {"kind": "learned", "new": 5.0, "old": 7.0, "difference": -2.0, "low": None, "high": None, "p": None}
    figures = {"gain": None, "worst": {"task": "med"}, "ood": None, "comparisons": 1, "tasks": {"med": task}}
    verdict = Verdict.from_json({"passed": False, "reasons": ["med fell"], "figures": figures})
    assert (verdict.worst, verdict.tasks["med"].role, verdict.tasks["med"].difference) == ("med", "learned", -2.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "not a JSON object"),
        ({"schema": 9}, "schema 9, but this continual reads schemas up to 1"),
        ({"schema": "2"}, "its schema is '2', not a number"),
        ({"schema": True}, "its schema is True, not a number"),
        ({"weight": "x"}, "weight: Input should be a valid number"),
    ],
)
def test_what_is_damaged_or_newer_is_named(data: object, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Provenance.from_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("read", [Verdict.from_json, Spec.from_json])
def test_a_record_without_its_fields_is_damaged(read: object) -> None:
    with pytest.raises(SchemaError, match="damaged"):
        read({"version": "v1"})  # type: ignore[operator]
