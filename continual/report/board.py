"""The state behind the dashboard: the report as last read, and the progress of the running update.

The catalog is opened for milliseconds, and only after its file has changed. While another process has it open, the
dashboard keeps the last report. Progress comes from a separate file.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

from continual.conflicts.analysis import LAST as CONFLICTS
from continual.errors import ContinualError, NothingToDoError, WorkspaceBusy
from continual.registry import CURRENT, Registry, Run
from continual.report.build import build_report
from continual.report.html import Page, render_html, render_notice
from continual.report.live import read_live
from continual.report.report import Report
from continual.report.summary import current_since

BUSY_SECONDS = 1.0
"""How long the dashboard waits for the catalog before it keeps the last report."""


class Board:
    """The state of a workspace as pages and plain data. Thread-safe.

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
            "Reading the workspace", "Another command is using its catalog. This page retries automatically.", ""
        )
        self._revision = ""
        self._learning: dict[str, list[str]] = {}
        self._stale = True

    def page(self) -> Page:
        """Return the page with the newest report that can be read."""
        with self._lock:
            self._refresh()
            return self._page

    def report(self) -> Report | None:
        """Return the newest report that can be read; None if there is none yet."""
        with self._lock:
            self._refresh()
            return self._report

    def state(self) -> dict[str, Any]:
        """Return the state that the page polls.

        Keys: `revision` of the page; `stale`, whether the catalog could not be read; `run`, the running or interrupted
        update (the fields of `continual.report.live.Live`, and the domains it is `learning`) or None.
        """
        run = read_live(self.store)
        with self._lock:
            self._refresh()
            learning = self._learning.get(run.version, []) if run else []
            state = run.to_json() | {"learning": learning} if run else None
            return {"revision": self._revision, "stale": self._stale, "run": state}

    def _refresh(self) -> None:
        """Read the catalog if it has changed since it was last read."""
        signature = self._catalog_signature()
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
            self._report, self._page = None, self._notice("The workspace can't be read", str(error), revision)
        self._learning = {run.id: [window.domain for window in run.spec.provenance.new] for run in runs}
        self._signature, self._revision, self._stale = signature, revision, False

    def _read(self, revision: str) -> tuple[Report | None, Page]:
        try:
            report = build_report(self._registry, self._joint, self._confidence)
        except NothingToDoError as error:
            current = self._registry.alias(CURRENT)
            headline = current_since(current.version, current.at) if current else "There is no current version."
            return None, self._notice(headline, str(error), revision)
        return report, render_html(report, live=True, revision=revision)

    def _notice(self, headline: str, text: str, revision: str) -> Page:
        return render_notice(self.store.resolve().parent.name, headline, text, revision=revision)

    def _catalog_signature(self) -> tuple[object, ...]:
        """Return a value that changes with the catalog files or the stored analysis of conflicts."""
        signature: list[object] = []
        catalog = self._registry.catalog.path
        for file in (catalog, catalog.with_suffix(".duckdb.wal"), self.store / CONFLICTS):
            try:
                stat = file.stat()
            except OSError:
                continue
            signature.append((file.name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(signature)
