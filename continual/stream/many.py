"""Ingest several files in one call: the files are checked together and ingested in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from continual.config import IngestConfig
from continual.errors import ContinualError, InputError
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.stream.ingest import ingest
from continual.stream.readers.base import HUB
from continual.stream.report import IngestReport


def ingest_files(
    registry: Registry,
    config: IngestConfig,
    sources: Sequence[str],
    *,
    domain: str | None = None,
    holdout: float | None = None,
    task: Path | None = None,
    progress: Progress = SILENT,
    **about: Any,
) -> Iterator[IngestReport]:
    """Ingest files in order, and yield the report of each file when it is done; see `Workspace.ingest_files`.

    Args:
        registry: Registry of the workspace.
        config: Limits and defaults.
        sources: Files, or names of Hub data sets.
        domain: See `ingest`.
        holdout: See `ingest`; applies until a file has a row to keep, because a domain has one task.
        task: See `ingest`; likewise.
        progress: Reports rows checked and written.
        **about: Further arguments of `ingest`, for all files.
    """
    if task is not None and domain is None and len(sources) > 1:
        raise InputError(
            f"--task is the task of one domain, but {len(sources)} files give {len(sources)} domains. "
            "Name the domain with --domain."
        )
    missing = [source for source in sources if not source.startswith(HUB) and not Path(source).expanduser().exists()]
    if missing and len(sources) > 1:
        raise InputError(f"{missing[0]} does not exist. None of the {len(sources)} files was ingested. Check the path.")
    split: dict[str, Any] = {"holdout": holdout, "task": task}
    for place, source in enumerate(sources):
        try:
            report = ingest(registry, config, source, domain=domain, **split, **about, progress=progress)
        except ContinualError as error:
            if place:
                error.add_note(
                    f"The files before {source} were ingested: {', '.join(sources[:place])}. Fix it and run the same "
                    "command again; it skips those files."
                )
            raise
        if domain is not None and report.batch is not None:
            split = {}
        yield report
