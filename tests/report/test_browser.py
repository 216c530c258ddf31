"""Pages as a browser shows them: no error, no violation of accessibility, no markup that came in with a name.

They run in Debian's Chromium, headless. Without it they are skipped, except where CI is set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from continual import Workspace
from continual.report.board import Board
from continual.report.build import build_report
from continual.report.dashboard import make_app
from continual.report.html import write_html
from tests.conflicts.results import keep, made
from tests.reports import HOSTILE, HOSTILE_DOCUMENT, HOSTILE_QUERY, HOSTILE_TASK, hostile_registry
from tests.rows import Write, make_pairs

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
THEMES = ("light", "dark")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium: apt-get install chromium"
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


class Tab:
    """A page with all that went wrong on it, and all that it asked for."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(reduced_motion="reduce", viewport=WIDE, **options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self._console(message))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def violations(self) -> list[str]:
        """Return what axe-core finds of serious or critical impact."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"{each['id']}: {node['html'][:160]} {node.get('failureSummary', '')}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"][:3]
        ]


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    opened = Tab(browser)
    yield opened
    opened.context.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Board], str]]:
    """Return a function that serves a board on a free port until the test ends, and gives its address."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(board: Board) -> str:
        import socket

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(make_app(board), log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(30)


def open_all(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


def test_the_file_works_without_a_network(tab: Tab, tmp_path: Path) -> None:
    registry = hostile_registry(tmp_path)
    keep(registry, made(HOSTILE))
    write_html(build_report(registry), tmp_path / "report.html")
    tab.context.set_offline(True)
    page = tab.page
    page.goto((tmp_path / "report.html").as_uri())
    sections = page.locator("#content > section").all()
    assert len(sections) >= 8
    for link in page.locator("#sections a").all():
        link.click()
        target = page.locator(str(link.get_attribute("href")))
        assert target.locator("h1, h2").first.is_visible()
    open_all(page)
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        assert tab.violations() == [], theme
    # Every drawing of this width is there, and none leaves its place.
    assert page.locator(".chart svg:visible").count() == page.locator(".chart").count() >= 5
    for width in (PHONE, WIDE):
        page.set_viewport_size(width)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    # What came in with names is text.
    text = page.locator("body").inner_text()
    for name in (*HOSTILE, HOSTILE_TASK, HOSTILE_QUERY, HOSTILE_DOCUMENT, "alert(4)"):
        assert name in text
    assert page.locator("img, b, iframe").count() == 0
    assert {url.partition(":")[0] for url in tab.asked} <= {"file", "data", "blob"}
    assert tab.wrong == []


def test_a_chart_by_keyboard_and_pointer(tab: Tab, tmp_path: Path) -> None:
    registry = hostile_registry(tmp_path)
    write_html(build_report(registry), tmp_path / "report.html")
    page = tab.page
    page.goto((tmp_path / "report.html").as_uri())
    chart = page.locator(".chart").first
    said = page.locator("#spoken")
    chart.focus()
    heard = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
        heard.append(said.inner_text())
    first, second = HOSTILE[:2]
    assert heard == [f"{first}, v0: +0.0", f"{first}, v1: +10.0", f"{second}, v1: +10.0", f"{second}, v0: +0.0"]
    assert chart.locator(".tip").inner_text() == heard[-1]
    page.keyboard.press("Escape")
    assert chart.locator(".tip").count() == 0
    page.locator("#lineage [data-tip]:visible").last.hover()
    assert "v1: current version" in page.locator(".tip").inner_text()
    # What is saved is what is shown.
    page.locator("#domains summary").first.click()
    with page.expect_download() as saved:
        page.locator("#domains [data-save=csv]").first.click()
    assert saved.value.suggested_filename == "gain.csv"
    assert "v1,10.0" in Path(saved.value.path()).read_text(encoding="utf-8")
    page.locator("#domains figure table th").first.evaluate("cell => cell.textContent = '=1+1'")
    with page.expect_download() as saved:
        page.locator("#domains [data-save=csv]").first.click()
    assert Path(saved.value.path()).read_text(encoding="utf-8").startswith("'=1+1,")
    with page.expect_download() as saved:
        page.locator("#domains [data-save=svg]").first.click()
    drawing = Path(saved.value.path()).read_text(encoding="utf-8")
    assert drawing.startswith("<svg")
    assert "var(" not in drawing.replace("font-family", "")
    assert tab.wrong == []


def test_themes_and_paper(tab: Tab, tmp_path: Path) -> None:
    write_html(build_report(hostile_registry(tmp_path)), tmp_path / "report.html")
    page = tab.page
    page.goto((tmp_path / "report.html").as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(ground)
    assert light != dark
    assert page.get_by_role("button", name="Dark").get_attribute("aria-pressed") == "true"
    page.reload()
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Auto").click()
    assert page.evaluate(ground) == light
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == dark
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details:not(.long)')].every((each) => each.open)")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert page.pdf()[:5] == b"%PDF-"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert tab.wrong == []


PAUSED = """
import json, sys
from continual import Workspace

class Pause:
    waited = False
    def start(self, label, total, unit, done=0): self.label = label
    def finish(self): pass
    def advance(self, count):
        if self.label == "training" and not self.waited:
            self.waited = True
            print("training", flush=True)
            sys.stdin.readline()

Workspace(sys.argv[1]).update(progress=Pause())
"""


@pytest.mark.release
def test_the_dashboard_follows_an_update(
    tab: Tab, serve: Callable[[Board], str], workspace: Workspace, write_pairs: Write
) -> None:
    domain = "<img src=x onerror=alert(1)>"
    workspace.ingest(write_pairs("a.parquet", make_pairs(80)), domain=domain)
    address = serve(Board(workspace.registry.root))
    page = tab.page
    page.goto(address)
    assert "There is nothing to report yet" in page.locator("main").inner_text()
    command = [sys.executable, "-c", PAUSED, str(workspace.directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as update:
        assert update.stdout
        assert update.stdout.readline() == "training\n"
        live = page.locator("#live")
        live.get_by_text("The update to v1 is running").wait_for()
        assert domain in live.inner_text()
        assert live.locator("[aria-current]").inner_text() == "Train"
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            assert tab.violations() == [], theme
        update.communicate("\n")
    assert update.returncode == 0
    page.get_by_role("heading", level=1, name="v1 has been the current version").wait_for()
    live.wait_for(state="hidden")
    assert page.locator(".chart svg:visible").count() >= 3
    open_all(page)
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        assert tab.violations() == [], theme
    # A rollback shows without a reload.
    workspace.rollback()
    page.get_by_role("heading", level=1, name="v0 (the root base) has been the current version").wait_for()
    assert page.locator("img").count() == 0
    assert {url.partition("?")[0] for url in tab.asked} <= {address, f"{address}live", "data:,"}
    assert tab.wrong == []
    state = page.request.get(f"{address}live")
    assert json.loads(state.text())["run"] is None
