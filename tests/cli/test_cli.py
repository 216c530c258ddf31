"""The command line as a stranger meets it: what is printed, the exit codes, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from tests.commands import Run
from tests.rows import Write, make_pairs
from tests.tasks import write_beir
from tests.workspaces import SETTINGS


def test_a_new_workspace_begins_with_its_base(tmp_path: Path, tiny_model: Path, run: Run) -> None:
    result = run("init", tmp_path / "w", "--base", tiny_model)
    assert result.code == 0
    assert "is version v0, the current version" in result.out
    assert "v0 is the current version" in run("status", "-w", tmp_path / "w").out


def test_the_weekly_loop(folder: Path, run: Run, write_pairs: Write) -> None:
    result = run("ingest", write_pairs("first.parquet", make_pairs(80)))
    assert result.code == 0
    assert "domain first, batch b1" in result.out
    plan = run("update", "--plan")
    assert plan.code == 0
    assert "full retraining" in plan.out
    step = run("update", "--replay", "0.1")
    assert step.code == 0
    assert "v1 passed the gate and is now the current version" in step.out
    assert "pairs/s" in step.err
    assert "* " in run("versions", "list").out
    shown = run("versions", "show", "current").out
    assert "update x 0.8, trained from v0 on first" in shown
    assert "| v0 x 0.2" in shown
    report = run("report", "--html", folder / "report.html")
    assert report.code == 0
    assert "v1" in report.out
    assert (folder / "report.html").stat().st_size > 1000
    assert run("rollback").out.startswith("v0 is now the current version")
    assert run("promote", "v1", "--reason", "it is fine").out.startswith("v1 is now the current version")
    assert "Exported v1 to" in run("export", "v1", "-o", folder / "out").out
    assert "v1 is the current version" in run("status").out


def test_a_domain_of_classes(folder: Path, run: Run, write_pairs: Write) -> None:
    rows = make_pairs(40)
    rows[0]["negatives"] = rows[1]["negatives"] = []
    told = run("ingest", write_pairs("intents.parquet", rows), "--kind", "classification", "--holdout", "0")
    assert "2 of the kept rows have no negatives. Updates skip them" in told.out
    skipped = "skip rows without negatives, in domains whose rows use only their own negatives: intents 2"
    assert skipped in run("update", "--plan").out
    step = run("update")
    assert skipped.replace("skip", "Skipped", 1) in step.out
    assert "Trained 38 pairs" in step.out
    assert "classification" in run("status").out
    assert run("ingest", write_pairs("more.parquet", rows), "--domain", "intents", "--kind", "sts").code == 2


def test_json_everywhere(folder: Path, run: Run, write_pairs: Write) -> None:
    source = write_pairs("first.parquet", make_pairs(80))
    batch = json.loads(run("ingest", source, "--json").out)["batches"][0]
    assert batch["rows_in"] == 80
    assert batch["rows_in"] == sum(batch[key] for key in ("kept", "duplicates", "leaked", "rejected", "held_out"))
    assert json.loads(run("ingest", source, "--json").out)["batches"][0]["unchanged"] is True
    assert json.loads(run("update", "--plan", "--json").out)["pairs"] == batch["kept"]
    step = json.loads(run("update", "--json").out)
    assert step["status"] == "accepted"
    assert set(step["scores"]) == {"first"}
    assert json.loads(run("status", "--json").out)["current"] == "v1"
    assert json.loads(run("versions", "list", "--json").out)["current"] == "v1"
    assert json.loads(run("versions", "show", "v1", "--json").out)["parent"] == "v0"
    report = json.loads(run("report", "--json").out)
    assert [version["verdict"] for version in report["versions"]] == ["root", "accepted"]
    assert run("report", "--csv").out.count("\n") >= 2
    assert json.loads(run("rollback", "--json").out)["version"] == "v0"


def test_a_refusal_ends_with_3_and_says_how_to_overrule(folder: Path, run: Run, write_pairs: Write) -> None:
    (folder / "continual.toml").write_text(SETTINGS.replace("min_gain = -100", "min_gain = 99"))
    run("ingest", write_pairs("a.parquet", make_pairs(60)))
    result = run("update")
    assert result.code == 3
    assert "continual promote v1" in result.err
    assert "v0 is the current version" in run("status").out


@pytest.mark.slow
def test_a_reader_that_leaves_early_loses_no_file(learned: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    command = (
        f"{sys.executable} -m continual report --html {out} -w {learned.directory} | head -0; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n", done.stderr
    assert "Traceback" not in done.stderr
    assert out.exists()


def test_tasks_from_the_command_line(folder: Path, run: Run, tmp_path: Path) -> None:
    beir = tmp_path / "beir"
    beir.mkdir()
    (beir / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in range(5))
    )
    (beir / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "a question"}) + "\n")
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td3\t1\n")
    assert "out of domain" in run("task", "add", "ood", beir).out
    assert "Nothing changed" in run("task", "add", "ood", beir).out
    assert "ood" in run("status").out


def test_what_a_task_leaves_out_is_said(folder: Path, run: Run, write_pairs: Write, tmp_path: Path) -> None:
    corpus = [{"_id": f"d{number}", "text": f"text {number}", "metadata": {}} for number in range(12)]
    queries = [{"_id": f"q{number}", "text": f"query {number}"} for number in range(14)]
    judged = [*((f"q{number}", f"d{number}", "2.0") for number in range(11)), ("q12", "d99", 1), ("q12", "d1", -1)]
    beir = write_beir(tmp_path / "beir", corpus, queries, [*judged, ("q0", "d1", 0.5)])
    (beir / "qrels" / "dev.tsv").write_text("q1\td1\t1\n")
    told = (
        "  judgements: from qrels/test.tsv. To use another split, name its file instead of the folder: DIR/qrels/FILE\n"
        "  left out: 1 judgements whose query or document is missing or has no text, such as document 'd99'; "
        "2 queries without a judgement; 1 queries without a relevant document\n"
        "  converted: 1 grades below 0 count as 0; 1 grades lost their fraction, as in trec_eval\n"
        "  not read: columns metadata of corpus.jsonl; files qrels/dev.tsv\n"
    )
    added = run("task", "add", "ood", beir)
    assert added.out == f"Added the task ood (out of domain): 11 queries, 12 documents, 12 judgements.\n{told}"
    ingested = run("ingest", write_pairs("a.parquet", make_pairs(40)), "--task", beir)
    assert told in ingested.out
    (report,) = json.loads(run("task", "add", "again", beir, "--json").out)["tasks"]
    (batch,) = json.loads(run("ingest", write_pairs("b.parquet", make_pairs(9, seed=2)), "--task", beir, "--json").out)[
        "batches"
    ]
    assert report["dropped_queries"] == 3
    assert report["reading"] == batch["task_reading"]
    assert report["reading"] == {
        "qrels": "qrels/test.tsv",
        "dropped_judgements": 1,
        "dropped_example": "document 'd99'",
        "unjudged_queries": 2,
        "irrelevant_queries": 1,
        "empty_queries": 0,
        "empty_documents": 0,
        "repeated_rows": 0,
        "repeated_judgements": 0,
        "negative_grades": 1,
        "cut_grades": 1,
        "unread_columns": {"corpus.jsonl": ["metadata"]},
        "unread_files": ["qrels/dev.tsv"],
    }
    dev = run("task", "add", "dev", beir / "qrels" / "dev.tsv")
    assert "1 queries, 12 documents, 1 judgements" in dev.out
    held = json.loads(run("ingest", write_pairs("c.parquet", make_pairs(40, seed=5)), "--json").out)["batches"][0]
    assert held["task_reading"] is None


BAD_UPDATES = [
    (["--replay", "1.5"], "from 0 to 1"),
    (["--replay", "-0.1"], "from 0 to 1"),
    (["--replay", "nan"], "from 0 to 1"),
    (["--set", "replay.rows=-5"], "replay.rows"),
    (["--merge", "2"], "above 0 and up to 1"),
    (["--merge", "sleprp"], "no merge rule"),
    (["--from", "nowhere"], "takes current or base"),
    (["--domain", "nowhere"], "There is no domain"),
    (["--set", "replay.policy=unifrom"], "Did you mean 'uniform'"),
    (["--seed", "-1"], "0 or more"),
    (["--resume"], "nothing to resume"),
    (["--plan", "--restart"], "Leave --resume and --restart out"),
]


@pytest.mark.parametrize(
    ("words", "message"), BAD_UPDATES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_calls_of_update(stocked: Path, run: Run, words: list[str], message: str) -> None:
    result = run("update", *words)
    assert result.code == 2, result
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1
    assert run("versions", "list", "--json").out.count('"id"') == 1


def test_nothing_to_do(folder: Path, run: Run) -> None:
    for words in (["update"], ["update", "--plan"], ["report"]):
        result = run(*words)
        assert result.code == 2, words
        assert result.err.startswith("continual: ")
    assert run("versions", "show", "v7").code == 2
    assert run("promote", "v0").code == 2
    assert run("rollback").code == 2


def bad_files(folder: Path) -> dict[str, Path]:
    files = {name: folder / name for name in ("missing.parquet", "empty.parquet", "text.parquet", "truncated.parquet")}
    files["empty.parquet"].write_bytes(b"")
    files["text.parquet"].write_text("query,positive\na,b\n")
    pq.write_table(pa.Table.from_pylist(make_pairs(50)), files["truncated.parquet"])
    files["truncated.parquet"].write_bytes(files["truncated.parquet"].read_bytes()[:-100])
    for name, columns in {
        "wrong-columns": {"foo": ["a"], "bar": ["b"]},
        "list-column": {"query": ["a"], "positive": [["b", "c"]]},
        "number-column": {"query": [1.0, float("nan")], "positive": ["a", "b"]},
        "all-empty": {"query": ["", " "], "positive": ["a", None]},
    }.items():
        files[name] = folder / f"{name}.parquet"
        pq.write_table(pa.table(columns), files[name])
    files["json-nan"] = folder / "nan.jsonl"
    files["json-nan"].write_text('{"query": NaN, "positive": "a"}\n{"query": ["a"], "positive": "b"}\n')
    files["unknown-ending"] = folder / "data.xyz"
    files["unknown-ending"].write_text("x")
    return files


def test_bad_files_are_refused_and_change_nothing(folder: Path, run: Run, tmp_path: Path) -> None:
    for name, path in bad_files(tmp_path).items():
        result = run("ingest", path)
        assert result.code == 2, (name, result)
        assert "Traceback" not in result.err
        assert result.err.splitlines()[-1].startswith("continual: "), name
    status = json.loads(run("status", "--json").out)
    assert status["domains"] == []
    assert status["ood_tasks"] == []


@pytest.mark.parametrize("name", ["a/b", "a\nb", "..", ""])
def test_bad_domain_names(folder: Path, run: Run, write_pairs: Write, name: str) -> None:
    result = run("ingest", write_pairs("a.parquet", make_pairs(40)), "--domain", name)
    assert result.code == 2
    assert "not allowed as the name of a domain" in result.err


def test_bases_that_are_none(tmp_path: Path, run: Run) -> None:
    (tmp_path / "folder").mkdir()
    for base in (tmp_path / "folder", tmp_path / "missing", "nonsense"):
        result = run("init", tmp_path / "w", "--base", base)
        assert result.code == 2
        assert "sentence-transformers" in result.err


def test_a_workspace_in_use_ends_with_4(folder: Path, run: Run) -> None:
    (folder / "continual.toml").write_text(SETTINGS + "[catalog]\nbusy_seconds = 0.1\n")
    catalog = folder / ".continual" / "catalog.duckdb"
    code = f"import duckdb; c = duckdb.connect({str(catalog)!r}); print('open', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    result = run("status")
    holder.communicate("\n")
    assert result.code == 4
    assert "in use by another process" in result.err


def test_no_workspace_here(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("status")
    assert result.code == 2
    assert "continual init" in result.err


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['continual', '--help']\n"
        "from continual.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'mteb', 'datasets', 'duckdb', 'pydantic', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("continual 0.")


def test_files_are_looked_for_before_any_is_ingested(folder: Path, run: Run, write_pairs: Write) -> None:
    result = run("ingest", write_pairs("first.parquet", make_pairs(80)), folder / "missing.parquet")
    assert result.code == 2
    assert "None of the 2" in result.err
    assert "first" not in run("status").out


def test_an_ingest_says_which_columns_it_read_and_where_the_rejects_are(
    folder: Path, run: Run, write_pairs: Write
) -> None:
    rows = [{"question": pair["query"], "answer": pair["positive"]} for pair in make_pairs(60)]
    rows[0]["answer"] = ""
    result = run("ingest", write_pairs("first.parquet", rows))
    assert "columns: query from question, positive from answer" in result.out
    path = result.out.rpartition("reasons: ")[2].split("\n")[0]
    assert Path(path).is_file()


def test_settings_that_are_unknown_are_answered_with_the_nearest(folder: Path, run: Run) -> None:
    (folder / "continual.toml").write_text('[train]\nepoch = 3\nguide_margin = "of"\nmax-length = 9\n[gates]\n')
    result = run("status")
    assert result.code == 2
    for words in (
        "train.epoch: unknown setting. Did you mean 'epochs'?",
        "train.max-length: unknown setting. Did you mean 'max_length'?",
        "Did you mean 'gate'?",
        "train.guide_margin: ",
    ):
        assert words in result.err
    assert "constrained" not in result.err


def test_the_history_of_service(learned_folder: Path, run: Run) -> None:
    run("rollback", "--reason", "a try")
    assert "a try" in run("versions", "history").out
    events = json.loads(run("versions", "history", "--json").out)
    assert [event["version"] for event in events] == ["v0", "v1", "v2", "v1"]


def test_versions_without_a_task_are_not_compared(folder: Path, run: Run) -> None:
    assert run("compare", "v0", "v0").code == 2


def test_two_versions_side_by_side(learned_folder: Path, run: Run) -> None:
    shown = run("compare", "v0")
    assert shown.code == 0
    assert "95 % interval" in shown.out
    assert json.loads(run("compare", "v0", "v1", "--json").out)["tasks"][0]["task"] == "first"
