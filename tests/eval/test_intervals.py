"""The intervals of a report, against the same written out version by version and task by task; and joint versions."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import InputError, NotFoundError
from continual.eval import significance
from continual.eval.query_scores import CACHE, QueryScores, aligned
from continual.registry import Registry, Score
from continual.report.build import build_report
from continual.report.sections import sections
from tests.reports import add_domain, add_version, make_registry, make_task, shown

QUERIES = {"med": 40, "bash": 25, "wiki": 60, "sts": 0}


def score_queries(registry: Registry, version: str, seed: int, gains: dict[str, float]) -> list[Score]:
    """Score a version on made-up queries, whose difficulty is the same for every version; `sts` has none."""
    generator, records = np.random.default_rng(seed), []
    for task, count in QUERIES.items():
        hard = np.random.default_rng(len(task)).beta(2, 1, count)
        values = np.clip(hard + gains.get(task, 0.0) + generator.normal(0, 0.15, count), 0, 1)
        path = f"scores/{version}/{task}.parquet" if count else None
        if path is not None:
            file = registry.path(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"query_id": [f"q{place:03d}" for place in range(count)], "score": values}), file)
        mean = 100 * float(values.mean()) if count else 50.0
        records.append(Score(version, task, "ndcg_at_10", mean, count or 9, path))
    return records


@pytest.fixture
def stream(tmp_path: Path) -> Registry:
    return make_stream(tmp_path)


def make_stream(folder: Path, base: str = "0" * 64, share: float = 1.0) -> Registry:
    """med in v1, bash in v2, nothing new in v3; wiki belongs to no domain, and sts has no score per query.

    Args:
        folder: Of the workspace.
        base: sha256 of the root base.
        share: Of the gains that the steps are made to have.
    """
    registry = make_registry(folder)
    batches = [add_domain(registry, name) for name in ("med", "bash")]
    for name in ("wiki", "sts"):
        registry.add_task(make_task(name, None))
    gains: list[dict[str, float]] = [{}, {"med": 0.2}, {"med": 0.15, "bash": 0.1}, {"med": 0.1, "bash": 0.12}]
    for number, gain in enumerate(gains):
        learned = (batches[number - 1],) if number in (1, 2) else ()
        add_version(registry, f"v{number}", f"v{number - 1}" if number else None, {}, batches=learned)
        gain = {task: share * value for task, value in gain.items()}
        registry.add_scores(score_queries(registry, f"v{number}", number, gain))
    with registry.catalog.transaction() as connection:
        connection.execute("UPDATE versions SET sha256 = ? WHERE id = 'v0'", [base])
    return registry


def values(registry: Registry, task: str) -> np.ndarray:
    files = [registry.path(f"scores/v{number}/{task}.parquet") for number in range(4)]
    return 100 * np.stack([pq.read_table(file)["score"].to_numpy() for file in files])


def ends(
    samples: list[np.ndarray], confidence: float = 0.95, spread: float = significance.SPREAD
) -> tuple[float, float]:
    """The interval of the mean over tasks of the mean over queries, from the textbook."""
    from scipy.stats import t

    means, errors, freedoms = [], [], []
    for sample in samples:
        freedom = significance.PRIOR + len(sample) - 1
        squares = significance.PRIOR * spread**2 + ((sample - sample.mean()) ** 2).sum()
        means.append(sample.mean())
        errors.append(squares / freedom / len(sample) / len(samples) ** 2)
        freedoms.append(freedom)
    satterthwaite = sum(errors) ** 2 / sum(error**2 / freedom for error, freedom in zip(errors, freedoms, strict=True))
    low, high = t.interval(0.95, satterthwaite, np.mean(means), math.sqrt(sum(errors)))
    return low, high


def test_every_curve_has_the_interval_of_its_definition(stream: Registry) -> None:
    med, bash, wiki = (values(stream, task) for task in ("med", "bash", "wiki"))
    report = build_report(stream)
    found = report.intervals
    assert found.score[3][0] == pytest.approx(ends([med[3]], spread=significance.OF_SCORES))
    assert found.over_base[3][:3] == [pytest.approx(ends([each[3] - each[0]])) for each in (med, bash, wiki)]
    assert found.over_base[0] == [None] * 4
    assert found.since_learned[3][:2] == [
        pytest.approx(ends([med[3] - med[1]])),
        pytest.approx(ends([bash[3] - bash[2]])),
    ]
    assert found.since_learned[1] == [None] * 4  # it was learned just now
    assert found.since_learned[2][1:] == [None] * 3
    metrics = {name: each[3] for name, each in found.metrics.items()}
    assert metrics["acc"] == pytest.approx(ends([med[3], bash[3]], spread=significance.OF_SCORES))
    assert metrics["bwt"] == pytest.approx(ends([med[3] - med[1], bash[3] - bash[2]]))
    assert metrics["fwt"] == pytest.approx(ends([bash[1] - bash[0]]))
    best = [each[:3][each[:3].mean(1).argmax()] for each in (med, bash)]
    assert metrics["forgetting"] == pytest.approx(ends([best[0] - med[3], best[1] - bash[3]]))
    assert metrics["ood_mean"] is None  # sts is in the set, and nobody knows its spread
    assert metrics["intransigence"] is None
    for name, value in report.metrics.items():
        for point, bounds in zip(value, found.metrics[name], strict=True):
            assert bounds is None or bounds[0] < point < bounds[1], name


def test_the_interval_of_the_retained_share_is_about_its_bootstrap(stream: Registry) -> None:
    med, bash = values(stream, "med"), values(stream, "bash")
    report = build_report(stream)
    generator, shares = np.random.default_rng(0), []
    for _ in range(4000):
        drawn = [each[:, generator.integers(each.shape[1], size=each.shape[1])].mean(1) for each in (med, bash)]
        left, gained = (
            sum(each[row] - each[0] for each, row in zip(drawn, rows, strict=True)) for rows in ((3, 3), (1, 2))
        )
        shares.append(100 * left / gained)
    bounds = report.intervals.metrics["retained"][3]
    assert bounds is not None
    assert report.metrics["retained"][3] == pytest.approx(np.median(shares), abs=5)
    assert bounds == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.25 * (bounds[1] - bounds[0]))


def test_a_share_of_what_may_be_no_gain_is_not_shown(stream: Registry, tmp_path: Path) -> None:
    report = build_report(stream)
    med, bash = values(stream, "med"), values(stream, "bash")
    assert report.intervals.gained[3] == pytest.approx(ends([med[1] - med[0], bash[2] - bash[0]]))
    assert report.intervals.gained[1] is None  # nothing was learned before
    assert f"{report.metrics['retained'][3]:.0f} %" in shown(report)

    faint = build_report(make_stream(tmp_path / "faint", share=0.1))
    low, high = faint.intervals.gained[3] or (1, 1)
    assert low <= 0 < high
    assert faint.metrics["retained"][3] is not None  # the JSON form keeps what the formula says
    assert faint.intervals.metrics["retained"][3] is None
    assert [row["retained"] for row in csv.DictReader(io.StringIO(faint.to_csv()))][3] == ""
    assert "%" not in shown(faint).replace("95 % intervals", "").split("Cost")[0].replace("in %", "")
    (metrics,) = (table for section in sections(faint) for table in section.tables if table.name == "metrics")
    assert [row[-2] for row in metrics.rows] == [None] * 4
    # Without scores per query nothing is known of the gain, and the share is shown as it is.
    shutil.rmtree(stream.root / "scores")
    unknown = build_report(stream)
    assert unknown.intervals.gained[3] is None
    assert f"{unknown.metrics['retained'][3]:.0f} %" in shown(unknown)


def test_every_form_shows_them(stream: Registry) -> None:
    report = build_report(stream, confidence=0.9)
    data = json.loads(json.dumps(report.to_json()))["intervals"]
    assert data["confidence"] == 0.9
    assert data["over_base"][3][0] == list(report.intervals.over_base[3][0] or ())
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert (float(rows[3]["gain:med:low"]), float(rows[3]["gain:med:high"])) == report.intervals.over_base[3][0]
    assert (float(rows[3]["bwt:low"]), float(rows[3]["bwt:high"])) == report.intervals.metrics["bwt"][3]
    assert rows[3]["task:sts:low"] == rows[0]["gain:med:low"] == ""
    text = shown(report)
    assert "90 % intervals" in text
    low, high = report.intervals.since_learned[3][0] or (0, 0)
    assert f"{low:+.1f} to {high:+.1f}" in text
    assert max(map(len, text.splitlines())) <= 80


def test_scores_that_are_gone_or_of_other_queries_leave_a_gap(stream: Registry) -> None:
    stream.path("scores/v3/med.parquet").write_bytes(b"no parquet")
    other = pa.table({"query_id": ["x"], "score": [0.5]})
    pq.write_table(other, stream.path("scores/v2/med.parquet"))
    stream.digests.record("scores/v3/med.parquet", "scores/v2/med.parquet")
    found = build_report(stream).intervals
    assert found.over_base[3][0] is found.over_base[2][0] is found.metrics["bwt"][3] is None
    assert found.over_base[1][0] is not None
    assert aligned([None, None]).shape == (2, 0)


def test_files_are_read_once_and_anew_when_they_change(stream: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_report(stream)
    cache = stream.path(f"scores/{CACHE}")
    assert cache.is_file()
    with monkeypatch.context() as patch:
        patch.setattr(pq, "ParquetFile", None)  # nothing is opened
        assert build_report(stream).intervals == first.intervals
    stamp = cache.stat().st_mtime_ns
    assert build_report(stream).intervals == first.intervals
    assert cache.stat().st_mtime_ns == stamp
    stream.add_scores(score_queries(stream, "v3", 77, {"med": 0.3}))
    changed = build_report(stream)
    assert changed.intervals.over_base[3] != first.intervals.over_base[3]
    assert changed.intervals.over_base[2] == first.intervals.over_base[2]
    cache.write_bytes(b"damaged")
    assert build_report(stream).intervals == changed.intervals
    assert QueryScores(stream.root).read("scores/v3/none.parquet") is None


def test_a_joint_version_of_the_registry(stream: Registry) -> None:
    batches = tuple(batch.id for batch in stream.batches())
    add_version(stream, "v4", "v0", {}, batches=batches, status="refused")
    stream.add_scores(score_queries(stream, "v4", 9, {"med": 0.25, "bash": 0.15}))
    report = build_report(stream, "v4")
    scores = {key: score.score for key, score in stream.scores().items()}
    expected = [
        None,
        scores["v4", "med"] - scores["v1", "med"],
        (scores["v4", "med"] - scores["v1", "med"] + scores["v4", "bash"] - scores["v2", "bash"]) / 2,
    ]
    assert report.metrics["intransigence"][:3] == pytest.approx(expected)
    assert report.metrics["intransigence"][4] == pytest.approx(0)
    new = 100 * pq.read_table(stream.path("scores/v4/med.parquet"))["score"].to_numpy()
    assert report.intervals.metrics["intransigence"][1] == pytest.approx(ends([new - values(stream, "med")[1]]))
    assert report.joint == "v4"
    assert "intransigence" in shown(report)
    assert "intransigence" not in shown(build_report(stream))


def test_a_joint_version_of_another_workspace(stream: Registry, tmp_path: Path) -> None:
    other = make_stream(tmp_path / "joint")
    other.set_alias("current", "v2", "for this test")
    # Its bash is another task that happens to have the same name, so it says nothing of ours.
    with other.catalog.transaction() as connection:
        connection.execute("UPDATE tasks SET sha256 = '1' WHERE name = 'bash'")
    report = build_report(stream, str(tmp_path / "joint"))
    theirs, ours = other.scores(), stream.scores()
    assert report.metrics["intransigence"][3] == pytest.approx(theirs["v2", "med"].score - ours["v1", "med"].score)
    assert report.joint == "v2 of joint"
    make_stream(tmp_path / "foreign", base="f" * 64)
    with pytest.raises(InputError, match="another root base"):
        build_report(stream, str(tmp_path / "foreign"))
    with pytest.raises(NotFoundError, match="neither a version of this workspace nor"):
        build_report(stream, "v9")
    # The settings can name it once for all: a folder is meant from where they are.
    settings = stream.root.parent / "continual.toml"
    settings.write_text('[eval]\njoint = "joint"\nconfidence = 0.9\n')
    workspace = Workspace(settings.parent)
    assert workspace.report().joint == "v2 of joint"
    assert workspace.report().intervals.confidence == 0.9
    assert workspace.report("v3").joint == "v3"
