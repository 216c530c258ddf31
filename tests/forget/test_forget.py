"""Forgotten rows are in no byte of the workspace, and the models that learned them are made again without them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from continual import Workspace
from continual.errors import DataError, InputError, ModelError, NotFoundError, NothingToDoError
from continual.forget.scan import Search, Searcher, forms_of, search_folder
from continual.registry.text import hash_row
from tests.commands import Run
from tests.kills import interrupt_update
from tests.rows import Write, make_pairs
from tests.texts import FROM_BASE, occurrences, texts_of
from tests.workspaces import learn, make_workspace


def healthy(workspace: Workspace) -> None:
    found = workspace.doctor(full=True)
    assert found.healthy, found.findings


def weights(workspace: Workspace, version: str) -> np.ndarray:
    folder = workspace.registry.path(workspace.version(version).path)
    tensors = load_file(folder / "model.safetensors")
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


def test_a_domain_goes_away_and_the_mean_is_that_of_the_others(
    averaged: Workspace, tiny_model: Path, tmp_path: Path, write_pairs: Write, run: Run
) -> None:
    texts = texts_of(make_pairs(60, seed=1))
    assert occurrences(averaged.registry.root, texts)
    old = weights(averaged, "current")
    done = averaged.forget(domain="second", rebuild=True)
    assert occurrences(averaged.registry.root, texts) == {}
    assert done.search is not None
    assert done.search.found == []
    assert done.versions == {"v2": done.versions["v2"], "v3": "made from v2"}
    assert done.versions["v2"].startswith("trained on")
    healthy(averaged)
    assert [domain.name for domain in averaged.registry.domains()] == ["first", "third"]
    assert [task.name for task in averaged.registry.tasks()] == ["first", "third"]
    # The same as a workspace that never had the domain.
    without = make_workspace(tmp_path / "without", tiny_model, FROM_BASE)
    for seed, domain in ((0, "first"), (2, "third")):
        learn(without, domain, 60, seed=seed, replay=0.0)
    assert averaged.version().id == "v4"
    new, expected = weights(averaged, "current"), weights(without, "current")
    assert np.abs(new - expected).max() <= 1e-6
    assert np.abs(new - old).max() > 1e-4
    assert done.rebuilt is not None
    assert done.rebuilt.exact
    base = weights(averaged, "v0")
    assert done.rebuilt.distance == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old - base), rel=1e-4)
    assert "repeats the step of v3" in run("versions", "show", "-w", averaged.directory, "v4").out
    # What learned the domain is gone, and everything else works.
    assert not averaged.registry.path("versions/v3").exists()
    assert not averaged.registry.path("adapters/v2").exists()
    with pytest.raises(ModelError, match=r"v3 was trained on rows that were forgotten"):
        averaged.promote("v3")
    averaged.rebuild("v4")
    averaged.report()
    averaged.gc()
    averaged.ingest(write_pairs("fourth.parquet", make_pairs(40, seed=9)))
    assert averaged.registry.batches()[-1].id == "b4"
    assert averaged.update(replay=0.5).passed
    averaged.ingest(write_pairs("second.parquet", make_pairs(60, seed=1)))
    assert [task.name for task in averaged.registry.tasks()][-1] == "second"
    healthy(averaged)


def test_the_models_stay_until_a_rebuild_is_asked(averaged: Workspace, run: Run) -> None:
    done = run("forget", "--domain", "third", "--yes", "-w", averaged.directory)
    assert done.code == 0, done.err
    assert "v3 was trained on" in done.out
    assert "These models still know the rows" in done.out
    assert averaged.version().id == "v3"
    assert "rows that were forgotten since" in run("versions", "show", "v3", "-w", averaged.directory).out
    healthy(averaged)
    averaged.report()
    done = run("forget", "--rebuild", "--yes", "-w", averaged.directory)
    assert done.code == 0, done.err
    assert averaged.version().id == "v2"
    assert "The current version is v2; it was v3" in done.out
    assert run("forget", "--rebuild", "--yes", "-w", averaged.directory).code == 2
    healthy(averaged)


def test_rows_of_a_file_go_from_data_tasks_and_leaks(averaged: Workspace, tmp_path: Path) -> None:
    rows = make_pairs(60, seed=1)
    before = averaged.registry.batches("second")[0]
    held = set(pq.read_table(averaged.registry.path("tasks/second/queries.parquet"))["text"].to_pylist())
    asked = [row for number, row in enumerate(rows) if number % 3 == 0]
    out = [row for row in asked if row["query"] in held]
    assert 0 < len(out) < len(asked)
    file = tmp_path / "asked.jsonl"
    spelled = [dict(row, query=f"  {str(row['query']).replace(' ', '  ')}") for row in asked]
    file.write_text("".join(json.dumps(row) + "\n" for row in spelled))
    done = averaged.forget(rows=file)
    texts = [text for row in asked for text in (str(row["query"]), str(row["positive"]))]
    assert occurrences(averaged.registry.root, texts) == {}
    after = averaged.registry.batches("second")[0]
    assert done.removed["rows"] == before.kept - after.kept == len(asked) - len(out)
    assert done.removed["task_queries"] == len(out)
    assert done.asked == len(asked)
    assert before.rows_in - after.rows_in == len(asked)
    assert averaged.registry.scores().keys().isdisjoint({(v, "second") for v in ("v0", "v1", "v2", "v3")})
    task = next(task for task in averaged.registry.tasks() if task.name == "second")
    assert task.queries == len(held) - len(out)
    left = pq.read_table(averaged.registry.path(after.path))["row_hash"].to_pylist()
    assert left == sorted(left)
    assert set(left).isdisjoint(hash_row(str(row["query"]), str(row["positive"])) for row in asked)
    healthy(averaged)
    with pytest.raises(NothingToDoError, match="does not hold any of the 20 rows"):
        averaged.forget(rows=file)


@pytest.mark.slow
def test_steps_from_current_are_trained_again(learned: Workspace, write_pairs: Write) -> None:
    rows = make_pairs(80, seed=0)
    held = set(pq.read_table(learned.registry.path("tasks/first/queries.parquet"))["text"].to_pylist())
    query = str(next(row["query"] for row in rows if row["query"] not in held))
    done = learned.forget(query=query, rebuild=True)
    assert done.removed["rows"] == 1
    assert occurrences(learned.registry.root, [query]) == {}
    assert done.rebuilt is not None
    assert [how for _, _, how in done.rebuilt.steps] == ["retrained", "retrained"]
    assert not done.rebuilt.exact
    assert done.rebuilt.distance is not None
    assert done.rebuilt.distance > 0
    assert 0.5 < float(done.rebuilt.cosine or 0) <= 1
    (first, second) = (learned.version(str(new)) for _, new, _ in done.rebuilt.steps)
    assert (first.parent, second.parent, learned.version().id) == ("v0", first.id, second.id)
    assert second.provenance.seed == 0
    assert sum(window.rows for window in first.provenance.new) == learned.registry.batches("first")[0].kept
    healthy(learned)
    learned.rebuild(second.id)
    learned.ingest(write_pairs("third.parquet", make_pairs(40, seed=5)))
    assert learned.update().passed


@pytest.mark.slow
def test_a_replayed_row_taints_the_adapter_of_another_domain(tiny_model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", tiny_model, FROM_BASE)
    for seed, domain in enumerate(("first", "second")):
        learn(workspace, domain, 40, seed=seed, replay=1.0)
    done = workspace.forget(domain="first", rebuild=True)
    assert done.versions["v2"].startswith("trained on")
    assert done.rebuilt is not None
    assert done.rebuilt.steps == [("v1", None, "left out"), ("v2", "v3", "retrained")]
    assert {window.domain for window in workspace.version().provenance.replay} == set()
    healthy(workspace)


def test_rejects_lost_files_and_leftovers_lose_the_texts(averaged: Workspace, tmp_path: Path) -> None:
    secret = "The answer is for Jürgen “Ö” only, nobody else"
    rows = [{"query": secret, "positive": f"passage {number} of the person"} for number in range(3)]
    rows += [
        {"query": f"other query number {number}", "positive": f"other passage number {number}"} for number in range(40)
    ]
    rows += [{"query": secret, "positive": ""}, {"query": "other query is kept", "positive": ""}]
    file = tmp_path / "mixed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    averaged.ingest(file, holdout=0.0)
    root = averaged.registry.root
    for name, content in (
        ("lost/20260101/data/x.jsonl", json.dumps(rows[0])),
        ("tracking/v1/notes.txt", secret),
        ("conflicts/note.json", json.dumps({"text": secret})),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    pq.write_table(pa.table({"cells": [[secret]]}), root / "lost/20260101/cells.parquet", compression="zstd")
    with averaged.registry.catalog.transaction() as connection:
        connection.execute("INSERT INTO compatibility VALUES ('v0', 'v1', ?, now())", [json.dumps({"text": secret})])
        connection.execute("DELETE FROM compatibility")
    done = averaged.forget(query=f" {secret.replace(' ', '   ')}")
    assert done.removed["rows"] == 3
    assert done.removed["rejects"] == 1
    assert occurrences(root, [secret, "passage 1 of the person"]) == {}
    assert done.search is not None
    assert len(done.search.cleared) == 4
    batch = averaged.registry.batches("mixed")[0]
    assert (batch.rejected, batch.kept, batch.rows_in) == (1, 40, 41)
    assert "other query is kept" in averaged.registry.path(str(batch.rejects_path)).read_text()
    assert done.versions == {}
    healthy(averaged)


def test_what_other_rows_have_stays_and_is_counted(averaged: Workspace, tmp_path: Path) -> None:
    shared = "a passage that two queries share"
    rows = [{"query": f"query of person {number}", "positive": shared} for number in range(2)]
    (tmp_path / "shared.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    averaged.ingest(tmp_path / "shared.jsonl", holdout=0.0)
    done = averaged.forget(query="query of person 0")
    assert done.shared == 1
    assert occurrences(averaged.registry.root, ["query of person 0"]) == {}
    batch = averaged.registry.batches("shared")[0]
    assert pq.read_table(averaged.registry.path(batch.path))["positive"].to_pylist() == [shared]
    # A query that is a part of another text is compared with whole cells, and is not found by mistake.
    (tmp_path / "part.jsonl").write_text(json.dumps({"query": "query of person", "positive": "its own passage"}) + "\n")
    averaged.ingest(tmp_path / "part.jsonl", holdout=0.0)
    done = averaged.forget(query="query of person")
    assert done.search is not None
    assert done.search.whole_only >= 1
    healthy(averaged)


def test_a_task_from_a_folder_loses_the_query_and_its_document(averaged: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    folder.mkdir()
    documents = [
        {"_id": f"d{number}", "title": "Title", "text": f"a document with number {number}"} for number in range(5)
    ]
    queries = [{"_id": f"q{number}", "text": f"which document has {number}?"} for number in range(4)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels.tsv").write_text("".join(f"q{number}\td{number}\t1\n" for number in range(4)))
    averaged.add_task("extra", folder)
    keys = pq.read_table(averaged.registry.path("tasks/extra/keys.parquet")).num_rows
    done = averaged.forget(query="which document has 1?")
    assert (done.removed["task_queries"], done.removed["task_documents"], done.removed["judgements"]) == (1, 1, 1)
    task = next(task for task in averaged.registry.tasks() if task.name == "extra")
    assert (task.queries, task.documents, task.judgements) == (3, 4, 3)
    assert occurrences(averaged.registry.root, ["which document has 1?", "a document with number 1"]) == {}
    # The hash of the document without its title can't be told from others, and stays.
    assert pq.read_table(averaged.registry.path("tasks/extra/keys.parquet")).num_rows == keys - 2
    for number in (0, 2, 3):
        averaged.forget(query=f"which document has {number}?")
    assert "extra" not in [task.name for task in averaged.registry.tasks()]
    healthy(averaged)


@pytest.mark.slow
def test_an_interrupted_update_is_discarded(averaged: Workspace, write_pairs: Write) -> None:
    averaged.ingest(write_pairs("fourth.parquet", make_pairs(40, seed=9)))
    interrupt_update(averaged, "training", 1)
    done = averaged.forget(domain="first")
    assert done.discarded == "v4"
    healthy(averaged)
    assert averaged.update().version.id == "v5"


def test_backups_are_named(averaged: Workspace, tmp_path: Path, run: Run) -> None:
    averaged.backup(tmp_path / "store")
    assert averaged.doctor().healthy
    done = run("forget", "--domain", "third", "--yes", "-w", averaged.directory)
    assert f"still hold the rows: {tmp_path / 'store'}" in done.out.replace("\n", "")
    (certificate,) = averaged.registry.path("certificates").glob("*.json")
    data = json.loads(certificate.read_text())
    assert data["backups"] == [str(tmp_path / "store")]
    assert (data["domain"], data["selection_sha256"], data["salt"]) == ("third", None, None)
    assert "The name third itself is kept" in done.out
    assert averaged.backup(tmp_path / "new").left_out == []


def test_a_dry_run_changes_nothing(averaged: Workspace, run: Run) -> None:
    def state() -> dict[str, bytes]:
        files = [file for file in averaged.registry.root.rglob("*") if file.is_file()]
        return {str(file): file.read_bytes() for file in files if file.name != "checked.json"}

    before = state()
    done = run("forget", "--domain", "second", "--dry-run", "-w", averaged.directory)
    assert done.code == 0, done.err
    assert "Would remove" in done.out
    assert "v2 was trained on" in done.out
    assert {path: data for path, data in state().items() if not path.endswith(".lock")} == {
        path: data for path, data in before.items() if not path.endswith(".lock")
    }


@pytest.mark.parametrize("answer", [True, False])
def test_a_terminal_is_asked(averaged: Workspace, run: Run, monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text: answer)
    done = run("forget", "--domain", "third", "-w", averaged.directory)
    assert done.code == 0, done.err
    assert "Would remove" in done.out
    assert ("Nothing was removed" in done.out) is not answer
    assert len(averaged.registry.domains()) == (2 if answer else 3)


def test_refusals(averaged: Workspace, run: Run, tmp_path: Path) -> None:
    folder = averaged.directory
    refused = run("forget", "--domain", "second", "-w", folder)
    assert (refused.code, "--yes" in refused.err) == (2, True)
    with pytest.raises(NotFoundError, match="Did you mean 'second'"):
        averaged.forget(domain="secnd")
    with pytest.raises(NothingToDoError, match="does not hold the query"):
        averaged.forget(query="a query that nobody asked")
    with pytest.raises(InputError, match="exclude each other"):
        averaged.forget(domain="second", query="x")
    with pytest.raises(InputError, match="Say what to forget"):
        averaged.forget()
    with pytest.raises(InputError, match="not an empty text"):
        averaged.forget(query="  ")
    with pytest.raises(NothingToDoError, match="nothing to rebuild"):
        averaged.forget(rebuild=True)
    (tmp_path / "bad.jsonl").write_text('{"text": "no columns"}\n')
    with pytest.raises(DataError):
        averaged.forget(rows=tmp_path / "bad.jsonl")
    healthy(averaged)


def test_files_beside_the_store_are_named_not_removed(averaged: Workspace, run: Run) -> None:
    query = str(make_pairs(60, seed=2)[0]["query"])
    mine = averaged.directory / "mine.csv"
    mine.write_text(f"query\n{query}\n")
    done = run("forget", "--query", query, "--yes", "-w", averaged.directory)
    assert done.code == 0, done.err
    assert "mine.csv" in done.out
    assert mine.exists()


def test_a_text_that_is_left_is_an_error(averaged: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from continual.forget import journal

    query = str(make_pairs(60, seed=2)[0]["query"])
    place = averaged.registry.path("versions/v1/README.md")
    original = journal.erase

    def erase(*args: object) -> None:
        original(*args)  # type: ignore[arg-type]
        place.write_text(query)

    monkeypatch.setattr(journal, "erase", erase)
    with pytest.raises(DataError, match=r"is also in versions/v1/README\.md"):
        averaged.forget(query=query)
    (certificate,) = averaged.registry.path("certificates").glob("*.json")
    assert json.loads(certificate.read_text())["search"]["found"] == ["versions/v1/README.md"]


def test_the_search_finds_what_brute_force_finds() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(97, 101, 20_000).astype(np.uint8).tobytes()
    inside = [data[start : start + length] for start, length in ((0, 12), (7, 13), (4_001, 40), (19_988, 12))]
    absent = [bytes(rng.integers(97, 101, 30).astype(np.uint8)) for _ in range(50)]
    assert Searcher([*inside, *absent]).find(data) == set(inside)
    assert Searcher([]).find(data) == set()
    assert Searcher(inside).find(b"abc") == set()


@pytest.mark.parametrize(
    "text", ['quoted "twice" and\nbroken', "Jürgen wohnt hier", "plain words in a row", "x" * 5000]
)
def test_texts_are_found_in_every_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "raw.bin").write_bytes(b"\0\1" + text.encode() + b"\2")
    (tmp_path / "escaped.json").write_text(json.dumps({"a": text}))
    (tmp_path / "plain.json").write_text(json.dumps({"a": text}, ensure_ascii=False))
    (tmp_path / "far.bin").write_bytes(b"\0" * ((8 << 20) - 5) + text.encode())
    pq.write_table(pa.table({"deep": [[{"a": ["", text]}]]}), tmp_path / "deep.parquet", compression="zstd")
    (tmp_path / "none.json").write_text('{"a": "something else"}')
    hits = search_folder(tmp_path, Search([text])).hits
    assert hits == ["deep.parquet", "escaped.json", "far.bin", "plain.json", "raw.bin"]


def test_short_texts_are_compared_with_cells_only(tmp_path: Path) -> None:
    assert forms_of("joy") == set()
    pq.write_table(pa.table({"positive": ["joy", "joyful"]}), tmp_path / "labels.parquet")
    pq.write_table(pa.table({"doc_id": ["joy", "joyful"]}), tmp_path / "ids.parquet")
    (tmp_path / "vocabulary.txt").write_text("joy\n")
    assert search_folder(tmp_path, Search(["joy"])).short == ["labels.parquet"]
    assert search_folder(tmp_path, Search(["ful"])).short == []
    assert search_folder(tmp_path, Search(["joy"])).hits == []
