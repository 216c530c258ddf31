"""What a terminal shows of texts, names and paths that people and files give: it obeys none of them."""

from __future__ import annotations

import ast
import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.text import Text

from continual.cli.bars import Bars
from continual.cli.render.console import table
from continual.storage.terminal import harmless, make_console
from tests import ROOT
from tests.commands import Result, Run
from tests.rows import Write, make_pairs
from tests.tasks import write_beir

EVIL = "a\x1b[2J\rb\u202ec"
SHOWN = r"a\x1b[2J\x0db\u202ec"


def check(result: Result) -> str:
    """Return all that was printed, without what a terminal obeys."""
    printed = result.out + result.err
    assert not set(printed) & set("\x1b\r\u202e\x9b\x07"), repr(printed)
    return printed


@pytest.mark.parametrize("code", ["\x00", "\x07", "\x08", "\x1b", "\x7f", "\x9b", "\r"])
def test_control_characters_are_shown(code: str) -> None:
    assert harmless(f"a{code}b") == f"a\\x{ord(code):02x}b"


@pytest.mark.parametrize("code", ["\u061c", "\u200e", "\u2028", "\u202a", "\u202e", "\u2066", "\u2069", "\udc80"])
def test_marks_of_direction_and_surrogates_are_shown(code: str) -> None:
    assert harmless(f"a{code}b") == f"a\\u{ord(code):04x}b"


def test_other_texts_stay() -> None:
    for text in ("two\nlines\tand a tab", "یک\u200cدو", "é 日本語 🎉", r"C:\x1b"):
        assert harmless(text) == text


def test_a_file_with_an_evil_name(folder: Path, run: Run, write_pairs: Write) -> None:
    source = write_pairs("plain.parquet", make_pairs(40)).rename(folder / f"{EVIL}.parquet")
    assert f"{SHOWN}.parquet -> domain d" in check(run("ingest", source, "--domain", "d"))
    assert f"{SHOWN}.parquet was ingested before" in check(run("ingest", source, "--domain", "d"))
    check(run("ingest", source))  # the name of the file is none for a domain
    assert f"{SHOWN}.jsonl does not exist" in check(run("ingest", folder / f"{EVIL}.jsonl", "--domain", "d"))
    check(run("ingest", folder / "\udc9b.jsonl", "--domain", "d"))
    printed = check(run("ingest", source, "--domain", "d", "--json"))
    assert json.loads(printed)["batches"][0]["source"] == str(source)
    check(run("status"))


def test_evil_columns_and_instructions(folder: Path, run: Run, tmp_path: Path) -> None:
    rows = make_pairs(40)
    columns = {f"q{EVIL}": [row["query"] for row in rows], f"p{EVIL}": [row["positive"] for row in rows]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert r"qa\x1b[2J" in check(run("ingest", tmp_path / "a.parquet"))
    chosen = ("--query-column", f"q{EVIL}", "--positive-column", f"p{EVIL}")
    assert f"query from q{SHOWN}, positive from p{SHOWN}" in check(run("ingest", tmp_path / "a.parquet", *chosen))
    refused = run("ingest", tmp_path / "a.parquet", *chosen, "--domain", "b", "--instruction", f"Find {EVIL}:")
    assert refused.code == 2
    check(refused)


def test_an_evil_task(folder: Path, run: Run, tmp_path: Path) -> None:
    texts = [f"{EVIL} text {number}" for number in range(3)]
    corpus = [{"_id": f"{EVIL}{number}", "text": text, EVIL: 1} for number, text in enumerate(texts)]
    judged = [("q", f"{EVIL.replace(chr(13), '')}{number}", 1) for number in range(2)]
    task = write_beir(tmp_path / EVIL, corpus, [{"_id": "q", "text": EVIL}], judged)
    assert r"such as document 'a\x1b[2Jb\u202ec0'" in check(run("task", "add", "t", task))
    (task / "qrels" / "test.tsv").unlink()
    (task / "qrels.jsonl").write_text(json.dumps({"qid": "q", "docid": corpus[0]["_id"], "score": 1}) + "\n")
    (task / f"{EVIL}.txt").write_text("")
    printed = check(run("task", "add", "t", task))
    assert f"columns {SHOWN} of corpus.jsonl; files {SHOWN}.txt" in printed
    check(run("task", "list"))
    check(run("task", "add", EVIL, task))
    shutil.copytree(task, tmp_path / "\udc9b")
    assert r"\udc9b" in check(run("task", "add", "t", tmp_path / "\udc9b" / "none"))
    assert r"exists already" in check(run("task", "add", "t", tmp_path / "\udc9b"))


def test_wrong_options_that_are_evil(run: Run) -> None:
    for words in (["status", EVIL], [EVIL], ["status", f"--{EVIL}"], ["update", "--seed", EVIL]):
        result = run(*words)
        assert result.code == 2, words
        check(result)


def test_tables_and_styled_texts() -> None:
    out = io.StringIO()
    console = make_console(file=out, width=80, force_terminal=True, color_system="standard")
    rows = table("name", "next")
    rows.add_row(EVIL, Text(EVIL, style="bold"))
    console.print(rows)
    console.print(":bomb:", Text("\x1b]0;title\x07", style="red"), markup=False)
    printed = out.getvalue()
    assert SHOWN in printed
    assert r"\x1b]0;title" in printed
    assert ":bomb:" in printed
    assert "\x1b[31m" in printed  # the console's own colours
    for code in ("\x1b[2J", "\r", "\u202e", "\x1b]", "\x07"):
        assert code not in printed


def test_bars() -> None:
    out = io.StringIO()
    with Bars(out) as bars:
        bars.start(f"reading {EVIL}", 3, "rows")
        bars.advance(3)
    assert f"reading {SHOWN}: " in out.getvalue()


def test_nothing_else_prints() -> None:
    """The functions of `terminal` are the only way to the terminal."""
    found = []
    for path in sorted((ROOT / "continual").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if name in ("print", "Console"):
                found.append(f"{path.relative_to(ROOT / 'continual')}: {name}")
    assert found == ["storage/terminal.py: print"]
