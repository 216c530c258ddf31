"""The dashboard without a browser: what it serves, whom it refuses, and that it never stands in an update's way."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from html import escape
from pathlib import Path
from typing import Any

import pytest

from continual import Workspace
from continual.errors import InputError
from continual.progress import Silent
from continual.report.board import Board
from continual.report.dashboard import make_app, serve
from continual.report.live import part_of, read_live
from continual.storage.files import sweep_dead
from continual.storage.locks import UPDATE_LOCK, exclusive
from continual.storage.recorder import PROGRESS_FILE, Recorder
from tests.kills import die, exit_code, kill
from tests.reports import HOSTILE, HOSTILE_DOCUMENT, HOSTILE_QUERY, add_version, hostile_registry, make_registry
from tests.rows import Write, make_pairs
from tests.workspaces import SETTINGS


class Answer:
    """What an application answers to one request."""

    def __init__(self, app: Any, path: str, host: str = "127.0.0.1:8765", method: str = "GET") -> None:
        self.status, self.headers, self.body = 0, {}, b""
        asyncio.run(self._ask(app, path, host, method))
        self.text = self.body.decode()

    async def _ask(self, app: Any, path: str, host: str, method: str) -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"host", host.encode())], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8765),
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.body += message.get("body", b"")

        await app(scope, receive, send)


def test_it_serves_the_report_and_its_state(tmp_path: Path) -> None:
    registry = hostile_registry(tmp_path)
    app = make_app(Board(registry.root))
    page = Answer(app, "/")
    assert page.status == 200
    assert "v1 has been the current version since" in page.text
    for markup in (HOSTILE[0], HOSTILE_QUERY, HOSTILE_DOCUMENT):
        assert markup not in page.text
        assert escape(markup, quote=False) in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    state = json.loads(Answer(app, "/live").text)
    assert state == {"revision": state["revision"], "stale": False, "run": None}
    assert f'data-revision="{state["revision"]}"' in page.text
    assert json.loads(Answer(app, "/report.json").text)["current"] == "v1"
    assert Answer(app, "/report.csv").text.startswith("id,parent")
    for path in ("/", "/live", "/report.json"):
        headers = Answer(app, path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_other_names_for_this_machine_and_other_methods_are_refused(tmp_path: Path) -> None:
    app = make_app(Board(hostile_registry(tmp_path).root))
    for host in ("evil.example", "127.0.0.1.evil.example", "", "0.0.0.0:8765", "[::1]:8765"):
        assert Answer(app, "/", host).status == 400, host
        assert Answer(app, "/live", host).status == 400, host
    for host in ("localhost:8765", "127.0.0.1"):
        assert Answer(app, "/", host).status == 200
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert Answer(app, "/", method=method).status == 405
    assert Answer(app, "/../continual.toml").status == 404


def test_a_change_of_the_catalog_is_a_new_revision_and_nothing_else_is(tmp_path: Path) -> None:
    registry = hostile_registry(tmp_path)
    board = Board(registry.root)
    first = board.state()
    assert board.state() == first
    registry.set_alias("current", "v0", "rolled back by hand")
    second = board.state()
    assert second["revision"] != first["revision"]
    assert "v0 (the root base) has been the current version" in board.page().html
    assert board.state() == second


HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_busy_catalog_shows_the_last_state(tmp_path: Path) -> None:
    registry = hostile_registry(tmp_path)
    board, late = Board(registry.root, busy_seconds=0.05), Board(registry.root, busy_seconds=0.05)
    app = make_app(board)
    before = board.state()
    registry.set_alias("current", "v0", "rolled back by hand")
    command = [sys.executable, "-c", HOLD, str(registry.catalog.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert board.state() == before | {"stale": True}
        assert Answer(app, "/").status == 200
        assert "v1 has been the current version" in Answer(app, "/").text
        assert "Another command is using its catalog" in Answer(make_app(late), "/").text
        assert Answer(make_app(late), "/report.json").status == 404
        holder.communicate("\n")
    assert "v0 (the root base) has been the current version" in Answer(app, "/").text
    assert board.state()["stale"] is False


def test_a_workspace_without_a_report(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    add_version(registry, "v0", None, {})
    registry.set_alias("current", "v0", "init")
    page = Answer(make_app(Board(registry.root)), "/")
    assert page.status == 200
    assert "v0 has been the current version since" in page.text
    assert "There is nothing to report yet" in page.text
    registry.catalog.path.unlink()
    assert "the catalog of the workspace, is missing" in Answer(make_app(Board(registry.root)), "/").text


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    board = Board(hostile_registry(tmp_path).root)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="Choose another port with --port"):
            serve(board, taken.getsockname()[1])
    with pytest.raises(InputError, match="from 0 to 65535"):
        serve(board, 70000)


def test_progress_is_written_and_read(tmp_path: Path) -> None:
    store = tmp_path / ".continual"
    recorder = Recorder(store / "runs" / "v4")
    assert read_live(store) is None
    recorder.start("training", 1000, "pairs", done=200)
    for step in range(1, 301):
        recorder.log({"train/loss": 1 / step, "train/learning_rate": 0.1}, step)
    recorder.log({"eval/x": 3.0}, 300)
    live = read_live(store)
    assert live is not None
    assert (live.version, live.state, live.part, live.label) == ("v4", "interrupted", 2, "training")
    assert (live.done, live.total, live.unit) == (200, 1000, "pairs")
    recorder.start("evaluating v4", None, "texts")
    with exclusive(store / UPDATE_LOCK, "update"):
        live = read_live(store)
    assert live is not None
    assert (live.state, live.part, live.total, live.left) == ("running", 5, None, None)
    assert 60 <= len(live.losses) <= 120
    assert live.losses[-1] == (300, round(1 / 300, 5))
    assert [step for step, _ in live.losses] == list(range(4, 301, 4))
    (store / "runs" / "v4" / PROGRESS_FILE).write_text("{}")
    assert read_live(store) is None


def test_where_progress_cannot_be_written_the_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    recorder = Recorder(tmp_path / "runs" / "v1")
    recorder.start("training", 10, "pairs")
    recorder.advance(3)
    recorder.finish()
    assert read_live(tmp_path) is None


def start_and_die(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda *paths: die())
        Recorder(folder).start("training", 10, "pairs")


@pytest.mark.kill
def test_a_kill_while_progress_is_written_leaves_nothing_that_is_not_swept(tmp_path: Path) -> None:
    assert exit_code(start_and_die, tmp_path / "v1") == -signal.SIGKILL
    assert len(list((tmp_path / "v1").iterdir())) == 1
    sweep_dead(tmp_path)
    assert list((tmp_path / "v1").iterdir()) == []


class Watcher:
    """A progress that looks at what the dashboard would show at every bar."""

    def __init__(self, board: Board) -> None:
        self.board, self.seen = board, []  # type: ignore[var-annotated]

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        self.seen.append(self.board.state()["run"])

    def finish(self) -> None:
        pass


class Labels(Silent):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.seen.append(label)


@pytest.mark.release
@pytest.mark.slow
def test_no_bar_of_a_step_goes_back_a_part(workspace: Workspace, write_pairs: Write) -> None:
    (workspace.directory / "continual.toml").write_text(SETTINGS.replace("step = false", "step = true"))
    workspace = Workspace(workspace.directory)
    workspace.ingest(write_pairs("med.parquet", make_pairs(120)))
    workspace.update()
    workspace.ingest(write_pairs("bash.parquet", make_pairs(120, seed=1)))
    labels = Labels()
    workspace.update(progress=labels, merge="search", replay=0.5, settings={"replay": {"policy": "hardest"}})
    parts = [part_of(label) for label in labels.seen]
    assert parts == sorted(parts), labels.seen
    assert set(parts) == {1, 2, 4, 5}
    assert {"fitting maps", "searching for the weight"} <= set(labels.seen)
    assert labels.seen[-1] == "comparing the indexes of v1 and v2"


@pytest.mark.kill
def test_an_update_shows_itself_and_leaves_nothing(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("med.parquet", make_pairs(80)))
    watcher = Watcher(Board(workspace.registry.root))
    workspace.update(progress=watcher)
    runs = [run for run in watcher.seen if run]
    assert {run["state"] for run in runs} == {"running"}
    assert {run["version"] for run in runs} == {"v1"}
    assert next(run["learning"] for run in runs if run["label"] == "training") == ["med"]
    parts = [run["part"] for run in runs]
    assert parts == sorted(parts)
    assert {2, 5} <= set(parts)
    assert watcher.board.state()["run"] is None
    workspace.ingest(write_pairs("bash.parquet", make_pairs(80, seed=1)))
    kill(workspace.directory, "update", "training", 2)
    run = watcher.board.state()["run"]
    assert (run["version"], run["state"], run["learning"]) == ("v2", "interrupted", ["bash"])


def test_the_server_answers_until_it_is_told_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    import uvicorn

    servers: list[uvicorn.Server] = []
    original = uvicorn.Server.run

    def run(self: uvicorn.Server, sockets: Any = None) -> None:
        servers.append(self)
        original(self, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    addresses: list[str] = []
    said = threading.Event()

    def say(address: str) -> None:
        addresses.append(address)
        said.set()

    board = Board(hostile_registry(tmp_path).root)
    thread = threading.Thread(target=serve, args=(board, 0), kwargs={"say": say})
    thread.start()
    assert said.wait(30)
    with urllib.request.urlopen(addresses[0] + "live") as answer:
        assert json.load(answer)["run"] is None
    servers[0].should_exit = True
    thread.join(30)
    assert not thread.is_alive()
