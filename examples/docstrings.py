"""Make a small, real dataset from the Python packages that every machine has.

The first line of a docstring says what a function or class does, and the rest explains it. The first line becomes a
query, the rest the passage that answers it, and each library a domain. Nothing is downloaded, and no library is
imported: the source files are only parsed.

    python examples/docstrings.py OUT_DIR

Writes `stdlib.parquet`, `torch.parquet` and `sklearn.parquet` (columns query, positive, doc_id) to train on, and the
folder `pandas/` (corpus, queries, qrels), an evaluation task of a domain that is never trained on.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import random
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

DOMAINS = ("stdlib", "torch", "sklearn")
TASK = "pandas"

# Code that is not meant for readers: tests, copies of other packages, and internals.
SKIPPED = {"test", "tests", "testing", "site-packages", "dist-packages", "idlelib", "lib2to3", "ensurepip", "externals"}
MIN_SUMMARY_WORDS = 4
MAX_SUMMARY_CHARS = 300
MIN_BODY_CHARS = 80
MAX_BODY_CHARS = 240  # about two sentences: enough to distinguish bodies, and quick to train on


class Pair(NamedTuple):
    """One docstring; `doc_id` is the qualified name of the documented object."""

    query: str
    positive: str
    doc_id: str


def source_folder(library: str) -> Path:
    """Return the folder of a top-level package, or of the standard library.

    Raises:
        SystemExit: The package is not installed.
    """
    if library == "stdlib":
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"The package {library!r} is not installed here. Run `make install` first.")
    return Path(spec.submodule_search_locations[0])


def documented(library: str) -> Iterator[tuple[str, str]]:
    """Yield (qualified name, docstring) of the public classes and functions of a library, in the order of its files."""
    folder = source_folder(library)
    for path in _source_files(folder):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # some libraries contain templates that are not valid Python
        parts = path.relative_to(folder).with_suffix("").parts
        yield from _walk(tree, [library, *(part for part in parts if part != "__init__")])


def _source_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        # A private file may hold public classes (as in sklearn); a private folder rarely does.
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("_"))
        yield from (Path(parent, name) for name in sorted(files) if name.endswith(".py") and name != "conftest.py")


def _walk(node: ast.AST, names: list[str]) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
            continue
        text = ast.get_docstring(child)
        if text:
            yield ".".join([*names, child.name]), text
        if isinstance(child, ast.ClassDef):
            yield from _walk(child, [*names, child.name])


def split(text: str) -> tuple[str, str] | None:
    """Return (summary, body) of a docstring, or None if either is unsuitable."""
    head, _, rest = text.partition("\n\n")
    summary = plain(head)
    body = plain(prose(rest))[:MAX_BODY_CHARS].strip()
    if len(summary.split()) < MIN_SUMMARY_WORDS or len(summary) > MAX_SUMMARY_CHARS or len(body) < MIN_BODY_CHARS:
        return None
    if re.match(r"[\w.]+\(", summary):  # a signature, not a sentence
        return None
    return summary, body


def prose(text: str) -> str:
    """Return the text without directives and interactive examples."""
    lines = []
    example = False
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(">>>"):
            example = True
        elif not stripped:
            example = False
        if not example and not re.fullmatch(r"[-=~^*\s]*|\.\. .*", stripped):
            lines.append(line)
    return "\n".join(lines)


def plain(text: str) -> str:
    """Return the text on one line, with each reStructuredText role replaced by its displayed name."""
    text = re.sub(r":[a-z:]+:`~?(?:[\w.]*\.)?([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", text)
    return " ".join(text.replace("`", "").split())


def pairs(library: str, seen: set[str]) -> list[Pair]:
    """Return the pairs of a library whose summary and body are not in `seen`, and add these to `seen`."""
    kept = []
    for name, text in documented(library):
        parts = split(text)
        if parts is None:
            continue
        keys = {part.casefold() for part in parts}
        if not keys & seen:
            kept.append(Pair(*parts, name))
        seen |= keys
    return kept


def sample(candidates: list[Pair], rows: int, rng: random.Random) -> list[Pair]:
    """Return at most `rows` random pairs, in their original order."""
    return [candidates[i] for i in sorted(rng.sample(range(len(candidates)), min(rows, len(candidates))))]


def write_task(folder: Path, documents: list[Pair], queries: int, rng: random.Random) -> None:
    """Write an evaluation task: every body is a document, and some summaries are the queries."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = sample(documents, queries, rng)
    write(folder / "corpus.parquet", {"doc_id": [p.doc_id for p in documents], "text": [p.positive for p in documents]})
    write(folder / "queries.parquet", {"query_id": [p.doc_id for p in asked], "text": [p.query for p in asked]})
    names = [p.doc_id for p in asked]
    write(folder / "qrels.parquet", {"query_id": names, "doc_id": names, "score": [1] * len(names)})


def write(path: Path, columns: dict[str, list[str] | list[int]]) -> None:
    """Write columns to a Parquet file."""
    pq.write_table(pa.table(columns), path)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--rows", type=int, default=500, help="rows of a training domain, at most (default 500)")
    parser.add_argument("--queries", type=int, default=150, help="queries of the task (default 150)")
    parser.add_argument("--documents", type=int, default=400, help="documents of the task (default 400)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    options.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    seen: set[str] = set()
    # The task comes first, so that a text that it shares with a domain is not trained on.
    task = sample(pairs(TASK, seen), options.documents, rng)
    write_task(options.out / TASK, task, options.queries, rng)
    for library in DOMAINS:
        rows = sample(pairs(library, seen), options.rows, rng)
        write(options.out / f"{library}.parquet", {name: [getattr(p, name) for p in rows] for name in Pair._fields})
        print(f"{library}: {len(rows)} pairs")
    print(f"{TASK}: {len(task)} documents, {min(options.queries, len(task))} queries (evaluation only)")


if __name__ == "__main__":
    main(sys.argv[1:])
