"""What got worse: queries, the documents that moved, clusters with their words, and texts that try to be more."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.cli import main
from continual.cli.render.queries import visible
from continual.errors import (
    DataError,
    InputError,
    NotFoundError,
    NothingToDoError,
)
from continual.eval.query_clusters import cluster_queries, name_query_clusters
from continual.eval.regressions import Regressions, find_regressions, has_rankings
from continual.eval.significance import holm, paired_interval
from continual.registry import Registry, Score
from continual.stream import import_task
from tests.reports import add_version, make_registry, make_task
from tests.rows import make_pairs
from tests.workspaces import SETTINGS, Once, learn, make_workspace

SUBJECTS = ("dosage of the drug", "invoices of the bank")
EVIL = "[red]what[/red] \x1b[31mdosage\x1b[0m of the drug \u202eis\u202c <b>this</b>\nline two"


def questions() -> list[tuple[str, str]]:
    """Return questions on two subjects with a document for each."""
    rng = random.Random(3)
    words = ["blue", "pale", "cold", "warm", "late", "soon", "high", "deep"]
    asked = [f"what is the {rng.choice(words)} {SUBJECTS[place % 2]} {rng.choice(words)}" for place in range(60)]
    return [(text, f"document {place}") for place, text in enumerate(asked)]


def make_task_folder(folder: Path, pairs: list[tuple[str, str]]) -> Path:
    """Write a task whose queries have a relevant document each, with 20 more documents and markup everywhere."""
    folder.mkdir()
    with (folder / "queries.jsonl").open("w") as file:
        for place, (query, _) in enumerate(pairs):
            file.write(json.dumps({"_id": f"q{place:02d}", "text": f"{query} {EVIL if place == 0 else ''}"}) + "\n")
    with (folder / "corpus.jsonl").open("w") as file:
        for place, text in enumerate([*(text for _, text in pairs), *(f"more {place}" for place in range(20))]):
            file.write(json.dumps({"_id": f"d{place:02d}", "text": f"{text} [bold]text[/bold]"}) + "\n")
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{place:02d}\td{place:02d}\t1\n" for place in range(len(pairs)))
    )
    return folder


def write_scores(registry: Registry, version: str, scores: dict[str, float], first: dict[str, list[str]]) -> Score:
    file = registry.path(f"scores/{version}/t.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {"query_id": list(scores), "score": list(scores.values()), "documents": [first[each] for each in scores]}
    pq.write_table(pa.table(columns), file)
    points = 100 * sum(scores.values()) / len(scores)
    return Score(version, "t", "ndcg_at_10", points, len(scores), f"scores/{version}/t.parquet")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """v1 answers questions on dosage worse than v0 and those on invoices a little better."""
    registry = make_registry(tmp_path)
    import_task(registry, "t", make_task_folder(tmp_path / "t", questions()))
    registry.add_task(no_ranking())
    before, after, ranked = {}, {}, {}
    for number in range(60):
        query = f"q{number:02d}"
        before[query], after[query] = 1.0, 1.0 - 0.5 * (number % 4 == 0)
        if number % 2:
            before[query], after[query] = 0.5, 0.5 + 0.01 * (number % 5)
        ranked[query] = [f"d{place:02d}" for place in (number, *range(60, 69))]
    moved = dict(ranked)
    before["q08"], after["q08"] = 1.0, 0.2
    moved["q08"] = ["d60", "d61", "d08", "d79", *ranked["q08"][3:9]]
    for version, scores, first in (("v0", before, ranked), ("v1", after, moved)):
        add_version(registry, version, None if version == "v0" else "v0", {"sts": 70.0})
        registry.add_scores([write_scores(registry, version, scores, first)])
    return registry


def no_ranking() -> object:
    return make_task("sts", None)


def embed(texts: list[str]) -> np.ndarray:
    """Vectors by subject, with a little noise."""
    generator = np.random.default_rng(0)
    subject = np.array([[1.0, 0.0] if "drug" in text else [0.0, 1.0] for text in texts])
    return np.hstack([subject, generator.normal(0, 0.05, (len(texts), 3))])


def regressions(registry: Registry, count: int = 3) -> Regressions:
    versions = [registry.version(name) for name in ("v0", "v1")]
    return find_regressions(registry, *versions, registry.tasks(), registry.scores(), embed, count=count)


def test_the_queries_that_moved_most_with_their_documents(registry: Registry) -> None:
    found = regressions(registry)
    assert (found.first, found.second, found.tasks, found.left_out) == ("v0", "v1", ["t"], ["sts"])
    assert (found.queries, found.worse, found.better) == (60, 15, 24)
    assert [each.id for each in found.losses] == ["q08", "q00", "q04"]
    assert [each.change for each in found.gains] == pytest.approx([4, 4, 4])
    worst = found.losses[0]
    assert (worst.before, worst.after, worst.change) == pytest.approx((100, 20, -80))
    moved = {each.id: (each.before, each.after, each.relevant) for each in worst.documents}
    # What was pushed down by one or two and is not relevant says nothing, so it is left out.
    assert moved == {"d08": (1, 3, True), "d79": (None, 4, False), "d68": (10, None, False)}
    assert [each.id for each in worst.documents] == ["d08", "d68", "d79"]
    assert worst.documents[0].text == "document 8 [bold]text[/bold]"
    assert found.losses[1].documents == []
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_clusters_say_what_fell(registry: Registry) -> None:
    found = regressions(registry)
    assert [each.size for each in found.clusters] == [30, 30]
    fell, rose = found.clusters
    assert {"dosage", "drug"} <= set(fell.words)
    assert {"invoices", "bank"} <= set(rose.words)
    assert not {"what", "the"} & {*fell.words, *rose.words}
    changes = np.array([-0.5 if number % 4 == 0 else 0.0 for number in range(0, 60, 2)])
    changes[4] = -0.8
    expected = paired_interval(changes, np.zeros(30))
    assert (fell.change, fell.low, fell.high) == pytest.approx((expected.difference, expected.low, expected.high))
    other = np.array([0.01 * (number % 5) for number in range(1, 60, 2)])
    assert [fell.p, rose.p] == pytest.approx(holm([expected.p, paired_interval(other, np.zeros(30)).p]))
    assert fell.queries == [f"q{number:02d}" for number in range(0, 60, 2)]


def test_what_cannot_be_compared_is_said(registry: Registry) -> None:
    versions = [registry.version(name) for name in ("v0", "v1")]
    sts = [task for task in registry.tasks() if task.name == "sts"]
    with pytest.raises(NothingToDoError, match="per-query scores"):
        find_regressions(registry, *versions, sts, registry.scores(), embed)
    file = registry.path("scores/v1/t.parquet")
    assert has_rankings(file)
    pq.write_table(pq.read_table(file, columns=["query_id", "score"]), file)
    assert not has_rankings(file)
    registry.digests.record("scores/v1/t.parquet")
    with pytest.raises(DataError, match="rankings cannot be read"):
        regressions(registry)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        has_rankings(file)


def test_words_that_all_texts_share_name_nothing() -> None:
    texts = ["the red house", "the red tree", "the blue sea", "the blue sky"]
    assert name_query_clusters(texts, [0, 0, 1, 1]) == [["red"], ["blue"]]
    assert name_query_clusters(["same words"] * 4, [0, 0, 1, 1]) == [[], []]
    assert name_query_clusters(["one two three"], [0]) == [["one", "three", "two"]]
    assert name_query_clusters(["Straße 12", "Straße 7"], [0, 0]) == [["straße"]]


def test_clusters_are_the_same_every_time_and_few_queries_are_one() -> None:
    generator = np.random.default_rng(5)
    vectors = np.repeat(np.eye(3), 40, 0) + generator.normal(0, 0.05, (120, 3))
    labels = cluster_queries(vectors, most=3)
    assert labels.tolist() == cluster_queries(vectors, most=3).tolist()
    for start in (0, 40, 80):
        assert len(set(labels[start : start + 40].tolist())) == 1
    assert len(set(labels.tolist())) == 3
    assert cluster_queries(vectors[:30]).tolist() == [0] * 30
    assert cluster_queries(np.ones((100, 4))).tolist() == [0] * 100  # fewer directions than clusters is no warning
    assert cluster_queries(np.zeros((100, 4))).tolist() == [0] * 100


def test_a_terminal_obeys_no_text() -> None:
    shown = visible(EVIL)
    assert shown == "[red]what[/red] [31mdosage[0m of the drug is <b>this</b> line two"
    assert visible("x" * 30, 10) == "x" * 9 + "…"
    assert visible("\x07\x9b\r\tیک\u200cدو") == "یک\u200cدو"  # a joiner that a language needs stays


@pytest.fixture
def learned(once: Once, tiny_model: Path, tmp_path: Path) -> Workspace:
    """A workspace that has learned a domain, and whose rankings moved."""

    def make(folder: Path) -> None:
        settings = SETTINGS.replace("epochs = 1", "epochs = 2\nlearning_rate = 0.01")
        workspace = make_workspace(folder / "w", tiny_model, settings)
        pairs = [(str(pair["query"]), str(pair["positive"])) for pair in make_pairs(60, seed=9)]
        workspace.add_task("t", make_task_folder(folder / "t", pairs))
        learn(workspace, "first", 80, seed=0)

    return Workspace(shutil.copytree(once("rankings-moved", make) / "w", tmp_path / "w"))


@pytest.mark.slow
def test_a_real_step_from_scores_to_documents(learned: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    found = learned.compare_queries(count=100)
    assert (found.first, found.second, found.scored_again) == ("v0", "v1", {})
    assert set(found.tasks) == {"t", "first"}
    scores = {version: pq.read_table(learned.registry.path(f"scores/{version}/t.parquet")) for version in ("v0", "v1")}
    for table in scores.values():
        assert all(len(ranked) == 10 == len(set(ranked)) for ranked in table["documents"].to_pylist())
    changes = [each for each in [*found.losses, *found.gains] if each.task == "t"]
    assert changes
    for each in changes:
        # The ranking explains the score: one relevant document, so nDCG is 1 / log2(1 + rank).
        relevant = [document for document in each.documents if document.relevant]
        assert [document.id for document in relevant] == [each.id.replace("q", "d")]
        for points, place in ((each.before, relevant[0].before), (each.after, relevant[0].after)):
            assert points == pytest.approx(0 if place is None else 100 / np.log2(1 + place))
    # Rankings that were not kept are made, and the scores stay what they were.
    old = learned.registry.scores()["v0", "t"]
    file = learned.registry.path(str(old.path))
    pq.write_table(scores["v0"].select(["query_id", "score"]), file)
    learned.registry.digests.record(old.path)
    again = learned.compare_queries(count=100)
    assert again.scored_again == {"v0": ["t"]}
    assert (again.losses, again.clusters) == (found.losses, found.clusters)
    assert pq.read_table(file).equals(scores["v0"])
    assert learned.registry.scores()["v0", "t"] == old


def test_calls_that_make_no_sense_are_refused(learned: Workspace) -> None:
    with pytest.raises(InputError, match="root base"):
        learned.compare_queries(b="v0")
    with pytest.raises(InputError, match="from 1 up"):
        learned.compare_queries(count=0)
    with pytest.raises(NotFoundError, match="There is no task 'x'"):
        learned.compare_queries(tasks=["x"])
    assert learned.compare_queries("v1", "v0", tasks=["t"]).tasks == ["t"]


def test_the_command_prints_texts_as_they_are(
    learned: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["continual", "compare", "--queries", *words, "-w", str(learned.directory)])
        with pytest.raises(SystemExit) as ended:
            main()
            raise SystemExit(0)
        assert not ended.value.code
        return capsys.readouterr().out

    shown = run("v0", "v1", "--task", "t", "-n", "60")
    assert "v0 -> v1: of 60 queries" in shown
    assert "95 % interval" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold]text[/bold]" in shown
    data = json.loads(run("--json", "-n", "1"))
    assert len(data["losses"]) <= 1
    assert data["first"] == "v0"
