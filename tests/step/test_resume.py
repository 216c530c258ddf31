"""Interrupted updates: resumed to the same weights, refused, or discarded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from continual import Workspace
from continual.errors import (
    ConfigError,
    InputError,
    NothingToDoError,
)
from tests.kills import interrupt_update, kill
from tests.rows import Write, make_pairs


@pytest.mark.kill
def test_a_killed_update_resumes_to_the_same_weights(learned: Workspace, write_pairs: Write) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(120, seed=2)))
    expected = learned.update(seed=5, replay=0.5).version
    for label, advances in (("training", 3), ("evaluating v", 1)):
        learned.rollback()
        kill(learned.directory, "update", label, advances, seed=5, replay=0.5)
        begun = learned.status().interrupted
        with pytest.raises(InputError, match="--resume"):
            learned.update()
        with pytest.raises(InputError, match="Leave the other options out"):
            learned.update(resume=True, seed=5)
        resumed = learned.update(resume=True).version
        assert resumed.id == begun
        assert resumed.sha256 == expected.sha256
        assert resumed.provenance.replay == expected.provenance.replay != []
        assert resumed.pairs_trained == expected.pairs_trained
        assert learned.status().interrupted is None


@pytest.mark.release
@pytest.mark.kill
def test_an_update_killed_while_it_searches_resumes_to_the_same_weights(learned: Workspace, write_pairs: Write) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(120, seed=2)))
    before = learned.version().id
    expected = learned.update(seed=5, replay=0.5, merge="self-positioning").version
    learned.promote(before)
    kill(learned.directory, "update", "searching", 5, seed=5, replay=0.5, merge="self-positioning")
    resumed = learned.update(resume=True).version
    assert (resumed.sha256, resumed.provenance.weight) == (expected.sha256, expected.provenance.weight)
    assert resumed.provenance.search == expected.provenance.search


def test_what_was_interrupted_is_not_resumed_on_another_base_or_other_rows(
    learned: Workspace, write_pairs: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(60, seed=2)))
    interrupt_update(learned, "training", 1, seed=5, replay=0.5)
    with monkeypatch.context() as patch:
        patch.setattr("continual.step.spec.libraries", lambda: {"torch": "99.0"})
        with pytest.raises(InputError, match=r"started with torch .* \(now 99.0\).*--restart"):
            learned.update(resume=True)
    learned.rollback()
    with pytest.raises(InputError, match=r"current version is now.*--restart"):
        learned.update(resume=True)
    learned.promote("v2")
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": "other"}) + "\n")
    texts = [str(each["query"]) for each in make_pairs(60, seed=2)]
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": t}) + "\n" for n, t in enumerate(texts))
    )
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td\t1\n" for n in range(len(texts)))
    )
    learned.add_task("late", folder)
    with pytest.raises(InputError, match=r"rows .* changed.*--restart"):
        learned.update(resume=True)
    with pytest.raises(NothingToDoError, match="evaluation task"):
        learned.update(restart=True)


def test_an_interrupted_update_can_be_discarded(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(120)))
    interrupt_update(workspace, "training", 2, seed=5, replay=0.5)
    step = workspace.update(seed=6, restart=True)
    assert step.version.id == "v2"
    assert not list(workspace.registry.path("runs").glob("v*"))


@pytest.mark.faults
def test_a_checkpoint_outlives_a_machine_that_cannot_go_on(
    learned: Workspace, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from continual.train import loop

    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=3)))
    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_adapter", interrupted)  # after the last checkpoint
        with pytest.raises(KeyboardInterrupt):
            learned.update()
    begun = learned.status().interrupted
    with monkeypatch.context() as patched:
        patched.setattr("continual.train.step.resolve_precision", lambda *_: "fp16")  # other arithmetic
        with pytest.raises(ConfigError, match="another training: it differs in precision"):
            learned.update(resume=True)
    assert learned.status().interrupted == begun
    assert learned.update(resume=True).version.id == begun


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
