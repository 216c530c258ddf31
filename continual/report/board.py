"""What the dashboard shows: the last state that could be read, and how far the running update is.

The catalog is opened for milliseconds, and only after its file has changed; how far an update is comes from a file of
its own. A catalog that is busy costs nobody an error: the last state stays until it can be read again.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

from continual.conflicts.analysis import LAST as CONFLICTS
from continual.errors import ContinualError, NothingToDoError, WorkspaceBusy
from continual.registry import Registry, Run
from continual.registry.registry import CURRENT, utc
from continual.report.html import Page, render_html, render_notice
from continual.report.live import read_live
from continual.report.report import Report, build_report

BUSY_SECONDS = 1.0
"""How long the dashboard waits for the catalog before it shows the last state."""


class Board:
    """The state of a workspace as pages and plain data; safe to ask from several threads.

    Args:
        store: The workspace's `.continual` folder.
        joint: The joint version, as for `build_report`.
        confidence: Level of the intervals.
        busy_seconds: How long to wait for a catalog that another process has open.
    """

    def __init__(
        self,
        store: Path,
        *,
        joint: str | None = None,
        confidence: float = 0.95,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self.store = store
        self._joint, self._confidence = joint, confidence
        self._registry = Registry(store, busy_seconds)
        self._lock = threading.Lock()
        self._signature: tuple[object, ...] | None = None
        self._report: Report | None = None
        self._page = self._notice(
            "Reading the workspace", "Its catalog is in use. This page tries again by itself.", ""
        )
        self._revision = ""
        self._learning: dict[str, list[str]] = {}
        self._stale = True

    def page(self) -> Page:
        """Return the page of the newest state that can be read."""
        with self._lock:
            self._refresh()
            return self._page

    def report(self) -> Report | None:
        """Return the report of the newest state that can be read; None while there is none."""
        with self._lock:
            self._refresh()
            return self._report

    def state(self) -> dict[str, Any]:
        """Return what the page asks for every few seconds.

        Keys: `revision` of the page; `stale`, whether the catalog could not be read; `run`, None or how far the
        running or interrupted update is (see `continual.report.live.Live`), with the domains it is `learning`.
        """
        run = read_live(self.store)
        with self._lock:
            self._refresh()
            learning = self._learning.get(run.version, []) if run else []
            shown = run.to_json() | {"learning": learning} if run else None
            return {"revision": self._revision, "stale": self._stale, "run": shown}

    def _refresh(self) -> None:
        """Read the catalog if it has changed since it was last read."""
        signature = self._signed()
        if signature == self._signature:
            self._stale = False
            return
        revision = hashlib.sha256(repr(signature).encode()).hexdigest()[:12]
        runs: list[Run] = []
        try:
            runs = self._registry.runs()
            self._report, self._page = self._read(revision)
        except WorkspaceBusy:
            self._stale = True
            return
        except ContinualError as error:
            self._report, self._page = None, self._notice("The workspace cannot be read", str(error), revision)
        self._learning = {run.id: [window.domain for window in run.spec.provenance.new] for run in runs}
        self._signature, self._revision, self._stale = signature, revision, False

    def _read(self, revision: str) -> tuple[Report | None, Page]:
        try:
            report = build_report(self._registry, self._joint, self._confidence)
        except NothingToDoError as error:
            current = self._registry.alias(CURRENT)
            head = f"{current.version} is in service since {utc(current.at)}." if current else "Nothing is in service."
            return None, self._notice(head, str(error), revision)
        return report, render_html(report, live=True, revision=revision)

    def _notice(self, headline: str, text: str, revision: str) -> Page:
        return render_notice(self.store.resolve().parent.name, headline, text, revision=revision)

    def _signed(self) -> tuple[object, ...]:
        """Return what changes when the catalog, or the analysis of conflicts, does."""
        found: list[object] = []
        catalog = self._registry.catalog.path
        for file in (catalog, catalog.with_suffix(".duckdb.wal"), self.store / CONFLICTS):
            try:
                known = file.stat()
            except OSError:
                continue
            found.append((file.name, known.st_ino, known.st_mtime_ns, known.st_size))
        return tuple(found)
