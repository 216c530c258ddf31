"""The report as a page: every number, nothing from elsewhere, and names that try to be markup."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from continual.errors import InputError
from continual.registry import Registry
from continual.report.build import build_report
from continual.report.figures import LineChart
from continual.report.html import render_html, write_html
from continual.report.sections import sections
from tests.reports import (
    HOSTILE,
    HOSTILE_DOCUMENT,
    HOSTILE_QUERY,
    HOSTILE_TASK,
    Page,
    add_domain,
    add_version,
    chart,
    hostile_registry,
    make_registry,
    make_task,
    shown,
)


def test_the_page_holds_every_number_and_needs_nothing_else(stream: Registry) -> None:
    report = build_report(stream)
    parsed = Page(render_html(report).html)
    for row in report.matrix:
        for score in row:
            assert score is None or f"{score:.1f}" in parsed.text
    for words in (
        "v3 has been the current version since",
        "med fell by 6.0 points",
        "8,400 of 12,000 pairs",
        "lineage",
        "interpolate",
    ):
        assert words in parsed.text
    for tag, name in (("img", "src"), ("script", "src"), ("iframe", "src"), ("object", "data")):
        assert not any(name in attributes for attributes in parsed.all(tag))
    assert all((link.get("href") or "").startswith(("#", "data:")) for link in parsed.all("a") + parsed.all("link"))
    # Every chart has a title, a description, a place for the keyboard, and a table with its numbers.
    charts = [each for each in parsed.all("div") if each.get("class") == "chart"]
    assert len(charts) == len(parsed.all("figure")) >= 6
    assert all(each.get("tabindex") == "0" and "table below" in str(each["aria-label"]) for each in charts)
    drawings = [each for each in parsed.all("svg") if each.get("role") == "img"]
    assert all(str(each["aria-labelledby"]).split() for each in drawings)
    ids = [str(attributes["id"]) for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {name for each in drawings for name in str(each["aria-labelledby"]).split()} <= set(ids)
    # Every header cell says what it heads, every table what it is, and every anchor leads somewhere.
    assert all(each.get("scope") in ("col", "row", "colgroup") for each in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert {str(each["href"])[1:] for each in parsed.all("a")} <= set(ids)


def test_the_policy_lets_our_scripts_and_styles_in_and_no_other(stream: Registry) -> None:
    for live, scripts in ((False, 1), (True, 2)):
        page = render_html(build_report(stream), live=live)
        parsed = Page(page.html)
        policy = next(str(each["content"]) for each in parsed.all("meta") if "http-equiv" in each)
        assert policy == page.policy
        assert "default-src 'none'" in policy
        assert ("connect-src 'self'" in policy) == live
        assert "unsafe" not in policy
        run = [text for text, each in zip(parsed.scripts, parsed.all("script"), strict=True) if "type" not in each]
        assert len(run) == scripts
        for kind, texts in (("script", run), ("style", parsed.styles)):
            allowed = re.search(rf"{kind}-src ([^;]*);", policy)
            assert allowed
            digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
            assert allowed[1].split() == [f"'sha256-{digest}'" for digest in digests]
        assert not any("style" in attributes for _, attributes in parsed.elements)


def test_markup_in_names_is_text_everywhere(tmp_path: Path) -> None:
    report = build_report(hostile_registry(tmp_path))
    parsed = Page(render_html(report).html)
    assert not parsed.all("img")
    assert not parsed.all("b")
    assert all(each.get("type") == "application/json" for each in parsed.all("script")[:-1])
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    for name in (*HOSTILE, HOSTILE_TASK, HOSTILE_QUERY, HOSTILE_DOCUMENT):
        assert name in parsed.text
    assert not parsed.all("iframe")
    assert "alert(4)" in parsed.text
    assert "90 % interval" in parsed.text


def test_a_page_without_tasks_or_steps(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batch = add_domain(registry, "med")
    registry.add_task(make_task("wiki", None))
    add_version(registry, "v0", None, {"med": 1.0, "wiki": 2.0})
    assert "There has been no update yet" in Page(render_html(build_report(registry)).html).text
    assert [section.name for section in sections(build_report(registry))] == ["matrix", "made", "terms"]
    bare = make_registry(tmp_path / "bare")
    add_version(bare, "v0", None, {})
    add_version(bare, "v1", "v0", {}, batches=(batch,))
    text = Page(render_html(build_report(bare)).html).text
    assert "v1 has been the current version" in text
    assert "no evaluation task yet" in shown(build_report(bare))


def test_the_file_is_written_whole_or_not_at_all(stream: Registry, tmp_path: Path) -> None:
    report = build_report(stream)
    target = tmp_path / "out" / "report.html"
    write_html(report, target)
    assert target.read_text(encoding="utf-8") == render_html(report).html
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="is a folder"):
        write_html(report, target.parent)
    assert target.exists()
    with pytest.raises(InputError, match="can't be written"):
        write_html(report, target / "inside.html")


def test_a_large_report_stays_light(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    names = [f"domain-{number:02d}" for number in range(24)] + [f"ood-{number}" for number in range(6)]
    batches = [add_domain(registry, name) for name in names[:24]]
    for name in names[24:]:
        registry.add_task(make_task(name, None))
    for number in range(25):
        scores = {name: 50.0 + place + number * (place - 11) / 100 for place, name in enumerate(names)}
        learned = (batches[number - 1],) if number else ()
        add_version(registry, f"v{number}", f"v{number - 1}" if number else None, scores, batches=learned, pairs=10)
    report = build_report(registry)
    assert len(render_html(report).html.encode()) < 2e6
    gain = chart(report, "gain")
    assert isinstance(gain, LineChart)
    # Only what matters has a name: the four lowest and the highest.
    last = {each.name: float(each.values[-1] or 0.0) for each in gain.series}
    loud = {each.name for each in gain.series if not each.quiet}
    assert loud == {*sorted(last, key=lambda name: last[name])[:4], max(last, key=lambda name: last[name])}
