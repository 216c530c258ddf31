"""The whole product once on the real all-MiniLM-L6-v2 and real text: ingest, update, report, export."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT
from tests.commands import Run

pytestmark = pytest.mark.real_model


def test_a_real_model_learns_real_text(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    from continual import Workspace

    def continual(*words: object, folder: Path) -> str:
        result = run(*words, "-w", folder)
        assert result.code == 0, result.err
        return result.out

    monkeypatch.syspath_prepend(ROOT / "examples")
    docstrings = importlib.import_module("docstrings")
    monkeypatch.setattr(docstrings, "DOMAINS", ("numpy",))  # parsing all of the default takes a quarter of a minute
    monkeypatch.setattr(docstrings, "TASK", "pyarrow")
    docstrings.main([str(tmp_path / "data"), "--rows", "160", "--queries", "15", "--documents", "40"])
    folder = tmp_path / "w"
    continual("init", folder=folder)
    continual("task", "add", "pyarrow", tmp_path / "data" / "pyarrow", folder=folder)
    settings = folder / "continual.toml"
    # Small enough for a test: 120 pairs of short texts, and a gate that doesn't mind the noise of 15 queries.
    settings.write_text(
        "[ingest]\nholdout = 0.2\n[train]\nmax_length = 48\n[eval]\nmax_length = 48\n[gate]\nmax_ood_loss = 10\n"
    )
    (rows,) = json.loads(continual("ingest", tmp_path / "data" / "numpy.parquet", "--json", folder=folder))["batches"]
    assert rows["kept"] > 100
    step = json.loads(continual("update", "--json", folder=folder))
    assert step["status"] == "accepted"
    assert step["pairs_trained"] == rows["kept"]

    report = json.loads(continual("report", "--html", tmp_path / "report.html", "--json", folder=folder))
    tasks = [task["name"] for task in report["tasks"]]
    base, learned = (dict(zip(tasks, row, strict=True)) for row in report["matrix"])
    assert base["numpy"] > 20, "the base model retrieves real text"
    assert learned["numpy"] > base["numpy"], "and an update on a domain makes it better there"
    assert report["metrics"]["acc"][1] == pytest.approx(learned["numpy"])
    assert "numpy" in (tmp_path / "report.html").read_text(encoding="utf-8")

    texts = [f"Return the {word} of an array." for word in ("mean", "sum", "norm", "rank", "trace")]
    continual("export", "current", "--out", tmp_path / "exported", folder=folder)
    ours = Workspace(folder).load("current")
    exported = SentenceTransformer(str(tmp_path / "exported"), device="cpu")
    np.testing.assert_allclose(exported.encode(texts), ours.encode(texts), atol=1e-6)
    assert exported.max_seq_length == SentenceTransformer(str(folder / ".continual/versions/v0")).max_seq_length
