"""Several files in one call: checked together, ingested one after another."""

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
    """Ingest files in their order, and yield the report of each as soon as it is done; see `Workspace.ingest_files`.

    Args:
        **about: Further arguments of `ingest`, for every file.
    """
    if task is not None and domain is None and len(sources) > 1:
        raise InputError(f"--task is the task of one domain, but {len(sources)} files give {len(sources)} domains. "
                         "Name the domain with --domain.")  # fmt: skip
    missing = [source for source in sources if not source.startswith(HUB) and not Path(source).expanduser().exists()]
    if missing and len(sources) > 1:
        raise InputError(f"There is no file {missing[0]}. None of the {len(sources)} files was ingested.")
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
            split = {}  # a domain has one task: the first file with a row to keep makes it
        yield report
