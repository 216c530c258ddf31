"""The whole product once on the real all-MiniLM-L6-v2 and real text: ingest, update, report, export."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT
from tests.commands import Run

pytestmark = pytest.mark.real_model


def test_a_real_model_learns_real_text(tmp_path: Path, run: Run) -> None:
    from sentence_transformers import SentenceTransformer

    from continual import Workspace

    def continual(*words: object, folder: Path) -> str:
        result = run(*words, "-w", folder)
        assert result.code == 0, result.err
        return result.out

    made = [sys.executable, str(ROOT / "examples" / "docstrings.py"), str(tmp_path / "data")]
    subprocess.run(
        [*made, "--rows", "240", "--queries", "20", "--documents", "60"], check=True, stdout=subprocess.DEVNULL
    )
    folder = tmp_path / "w"
    continual("init", folder=folder)
    continual("task", "add", "pandas", tmp_path / "data" / "pandas", folder=folder)
    settings = folder / "continual.toml"
    # Small enough for a test: 190 pairs of short texts, a gate that
    # does not mind the noise of a task of 20 queries.
    settings.write_text(
        "[ingest]\nholdout = 0.2\n[train]\nmax_length = 64\n[eval]\nmax_length = 64\n[gate]\nmax_ood_loss = 10\n"
    )
    (rows,) = json.loads(continual("ingest", tmp_path / "data" / "stdlib.parquet", "--json", folder=folder))["batches"]
    assert rows["kept"] > 150
    step = json.loads(continual("update", "--json", folder=folder))
    assert step["status"] == "accepted"
    assert step["pairs_trained"] == rows["kept"]

    report = json.loads(continual("report", "--html", tmp_path / "report.html", "--json", folder=folder))
    tasks = [task["name"] for task in report["tasks"]]
    base, learned = (dict(zip(tasks, row, strict=True)) for row in report["matrix"])
    assert base["stdlib"] > 20, "the base model retrieves real text"
    assert learned["stdlib"] > base["stdlib"], "and an update on a domain makes it better there"
    assert report["metrics"]["acc"][1] == pytest.approx(learned["stdlib"])
    assert "stdlib" in (tmp_path / "report.html").read_text(encoding="utf-8")

    texts = [f"Return the {word} of an array." for word in ("mean", "sum", "norm", "rank", "trace")]
    continual("export", "current", "--out", tmp_path / "exported", folder=folder)
    ours = Workspace(folder).load("current")
    exported = SentenceTransformer(str(tmp_path / "exported"), device="cpu")
    np.testing.assert_allclose(exported.encode(texts), ours.encode(texts), atol=1e-6)
    assert exported.max_seq_length == SentenceTransformer(str(folder / ".continual/versions/v0")).max_seq_length
