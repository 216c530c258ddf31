"""The local Hugging Face cache of datasets: the revisions and configurations it holds.

If the Hub can't be reached, `datasets` silently loads the newest cached revision. A task is registered at one revision,
so `pinned` makes that revision the newest one and raises if another was loaded.

Offline, `datasets` also reports a single configuration, "default", whatever the cache holds. mteb would then score a
task without its instructions and without the documents to rerank, so `pinned` reads the configurations from the cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets.naming import camelcase_to_snakecase
from mteb.abstasks import retrieval_dataset_loaders

from continual.errors import DataError

COMMIT = re.compile("[0-9a-f]{40}")
OF_FILES = re.compile("-[0-9a-f]{16}$")
"""Suffix of the configurations that `datasets` creates for user-chosen data files; a dataset's own have none."""


@contextmanager
def pinned(name: str, revision: str) -> Iterator[None]:
    """Load the dataset `name` at a fixed revision within the block, even without the Hub.

    Raises:
        DataError: On leaving the block, if the cache holds only other revisions, so that one of these was loaded.
    """
    if not COMMIT.fullmatch(revision):
        yield
        return
    for folder in _cached(name):
        if folder.name == revision:
            os.utime(folder)  # `datasets` loads the newest one
    original = retrieval_dataset_loaders.get_dataset_config_names
    retrieval_dataset_loaders.get_dataset_config_names = _config_names
    try:
        yield
    finally:
        retrieval_dataset_loaders.get_dataset_config_names = original
    cached = sorted({folder.name for folder in _cached(name)})
    if cached and revision not in cached:
        raise DataError(
            f"the Hub can't be reached, and the cache has only other revisions of the dataset ({', '.join(cached)})"
        )


def _config_names(name: str, revision: str | None = None) -> list[str]:
    """Return the configurations of a dataset, from the cache if the Hub can't be reached."""
    configs: list[str] = datasets.get_dataset_config_names(name, revision)
    if configs != ["default"]:
        return configs
    cached = {folder.parent.parent.name for folder in _cached(name) if folder.name == revision}
    return sorted(config for config in cached if not OF_FILES.search(config)) or configs


def _cached(name: str) -> list[Path]:
    """Return the folders CONFIG/VERSION/REVISION of a dataset."""
    *owner, last = name.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "___".join([*owner, camelcase_to_snakecase(last)])
    return [path for path in folder.glob("*/*/*") if path.is_dir()]
