"""Out of domain is what nothing was trained on: flags on scores, in the report, a comparison, the gate."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from continual import Workspace
from continual.config import GateConfig
from continual.eval.ood import flags, flags_of
from continual.registry import Leak, Registry
from continual.replay.draw import RowReader
from continual.report.build import build_report
from continual.report.terminal import print_tables
from continual.step.gate import decide
from continual.step.judge import as_verdict
from continual.stream.leaks import LEAKS_SCHEMA, write_leaks
from tests.commands import Run
from tests.reports import START, add_domain, add_version, make_registry, make_task
from tests.rows import make_pairs
from tests.tasks import write_beir
from tests.workspaces import SETTINGS

LATE = START + timedelta(days=100)


@pytest.fixture
def stream(tmp_path: Path) -> Registry:
    """v1 learned med, v2 bash after it, v3 bash without it; then a task came that rows of med leak into."""
    registry = make_registry(tmp_path)
    med, bash = add_domain(registry, "med"), add_domain(registry, "bash")
    registry.add_task(make_task("wiki", None))
    scores = {"med": 60.0, "bash": 50.0, "wiki": 80.0, "late": 40.0}
    add_version(registry, "v0", None, scores)
    add_version(registry, "v1", "v0", scores, batches=(med,))
    add_version(registry, "v2", "v1", scores, batches=(bash,))
    add_version(registry, "v3", "v0", scores, batches=(bash,), status="refused")
    late = dataclasses.replace(make_task("late", None), created_at=LATE)
    registry.add_task(late, leaks=[Leak("late", med, 12, 5, LATE)])
    return registry


def test_who_learned_it_and_who_comes_from_them_is_flagged(stream: Registry) -> None:
    found = flags(stream)
    assert set(found) == {("v1", "late"), ("v2", "late")}
    flag = found["v2", "late"]
    assert (flag.version, flag.rows, flag.near, flag.learned_by, flag.domains) == ("v2", 12, 5, ["v1"], ["med"])
    assert (
        flag.why
        == "v1 trained on 12 rows of med that leak into late (5 as near duplicates), before the task was registered."
    )
    assert flags_of(stream, "v3") == {}


def test_several_steps_add_up(stream: Registry) -> None:
    stream.set_leaks("late", [Leak("late", "b1", 12, 5, LATE), Leak("late", "b2", 1, 0, LATE)])
    found = flags(stream)
    assert (found["v2", "late"].rows, found["v2", "late"].learned_by) == (13, ["v1", "v2"])
    assert found["v2", "late"].why.startswith("v1 and v2 trained on 13 rows of med, bash that leak into late")
    assert (
        found["v3", "late"].why == "v3 trained on 1 row of bash that leaks into late, before the task was registered."
    )
    stream.set_leaks("late", [])
    assert flags(stream) == {}


def test_the_report_leaves_flagged_tasks_out_of_the_mean(stream: Registry) -> None:
    report = build_report(stream)
    assert report.ood_set == ["wiki"]
    assert report.metrics["ood_mean"] == [80.0] * 4
    data = json.loads(json.dumps(report.to_json()))
    assert data["ood_set"] == ["wiki"]
    assert [(flag["version"], flag["task"], flag["rows"]) for flag in data["flags"]] == [
        ("v1", "late", 12),
        ("v2", "late", 12),
    ]
    assert data["flags"][0]["why"].startswith("v1 trained on 12 rows")
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [row["trained_on"] for row in rows] == ["", "late", "late", ""]
    stream.set_leaks("late", [])
    assert build_report(stream).metrics["ood_mean"] == [60.0] * 4


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_marks_flagged_scores(stream: Registry, encoding: str) -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=100)
    print_tables(build_report(stream), console)
    console.file.flush()
    text = console.file.buffer.getvalue().decode(encoding)
    assert sum(line.count("40.0") and line.rstrip().endswith("!") for line in text.splitlines()) == 2
    assert "! v1 trained on 12 rows of med that leak into late" in text
    assert "! trained on, so not an OOD score" in text


def test_a_task_known_at_the_draw_is_none_of_it(stream: Registry) -> None:
    """What the step recorded counts, not the clock: a task may come while an update runs."""
    with stream.catalog.transaction() as connection:
        provenance = json.dumps({"merge": "interpolate", "weight": 0.6, "seed": 0, "guarded": ["med", "wiki", "late"]})
        connection.execute("UPDATE versions SET provenance = ? WHERE id = 'v1'", [provenance])
    assert flags(stream) == {}


def test_rows_that_an_earlier_task_kept_back_were_not_trained_on(stream: Registry) -> None:
    rows = [("b1", f"{number:032x}", False) for number in range(12)]

    def leak(task: str, some: list[tuple[str, str, bool]]) -> None:
        folder = stream.path(f"tasks/{task}")
        folder.mkdir(parents=True, exist_ok=True)
        write_leaks(folder, pa.Table.from_pylist([dict(zip(LEAKS_SCHEMA.names, row, strict=True)) for row in some]))

    leak("late", rows)
    leak("wiki", rows[:10])  # it was there before v1
    assert flags(stream)["v1", "late"].rows == 2
    leak("wiki", rows)
    assert flags(stream) == {}


def test_the_gate_does_not_count_what_was_trained_on() -> None:
    new, old = {"a": 60.0, "wiki": 80.0, "late": 10.0}, {"a": 50.0, "wiki": 80.0, "late": 90.0}
    kinds = {"a": "new", "wiki": "OOD", "late": "leaked"}
    verdict = as_verdict(decide(new, old, kinds, GateConfig()))
    assert verdict.passed
    assert verdict.ood.difference == 0.0
    assert "late is not counted as OOD: some of its texts were trained on before the task was added" in verdict.reasons
    assert not decide(new, old, kinds | {"late": "OOD"}, GateConfig()).passed


@pytest.mark.slow
def test_leakage_found_later_from_end_to_end(
    tiny_model: Path,
    tmp_path: Path,
    write_pairs: Any,
    run: Run,
) -> None:
    Workspace.init(tmp_path / "w", str(tiny_model))
    (tmp_path / "w" / "continual.toml").write_text(SETTINGS)
    workspace, at = Workspace(tmp_path / "w"), ("-w", tmp_path / "w")
    workspace.ingest(write_pairs("first.parquet", make_pairs(40)))
    workspace.update()
    trained = workspace.registry.batches()[0]
    with RowReader(workspace.registry) as rows:
        texts = rows.draw([trained], [], {}, {}).table.to_pylist()[:3]
    documents = [{"_id": f"d{n}", "text": row["positive"]} for n, row in enumerate(texts)]
    queries = [{"_id": f"q{n}", "text": row["query"].upper()} for n, row in enumerate(texts)]
    folder = write_beir(tmp_path / "late", documents, queries, [(f"q{n}", f"d{n}", 1) for n in range(3)])
    added = run("task", "add", "late", folder, *at)
    assert "3 stored training rows leak into it." in added.out
    assert "late" not in json.loads(run("status", "--json", *at).out)["ood_tasks"]

    shown = run("eval", *at)
    assert "late: v1 trained on 3 rows of first that leak into late, before the task was registered." in shown.out
    assert "trained on" in shown.out
    at_root = json.loads(run("eval", "v0", "--json", *at).out)["scores"]
    assert {score["task"]: score["flag"] for score in at_root} == {"first": None, "late": None}
    compared = json.loads(run("compare", "v0", "v1", "--json", *at).out)["tasks"]
    assert [each["flag"] is not None for each in compared] == [False, True]
    assert "late: v1 trained on 3 rows" in run("compare", "v0", "v1", *at).out

    workspace.ingest(write_pairs("second.parquet", make_pairs(40, seed=1)))
    step = workspace.update()
    assert step.roles == {"first": "learned", "late": "leaked", "second": "new"}
    assert step.spec.provenance.guarded == ["first", "late", "second"]
    assert any("late is not counted as OOD" in reason for reason in step.version.verdict.reasons)
    assert set(flags(workspace.registry)) == {("v1", "late"), ("v2", "late")}
    workspace.export("current", tmp_path / "out")
    assert "none, but trained on its texts" in (tmp_path / "out" / "README.md").read_text()
