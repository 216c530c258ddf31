"""The local cache of Hugging Face data sets: which revisions it holds, and which configurations.

Where the Hub cannot be reached, `datasets` takes whatever revision of a data set was cached last, and asks nobody. A
task is one revision for good, so that one is put first, and what came from another one is refused.

It then also names a single configuration, "default", whatever the cache holds. mteb would load a task without its
instructions and without the documents to rerank, and score that; so the cache is read for it.
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
"""How the name of a configuration ends that somebody made by naming files; the data set itself has none such."""


@contextmanager
def pinned(name: str, revision: str) -> Iterator[None]:
    """Have the data set `name` loaded at a revision within the block, also without the Hub.

    Raises:
        DataError: At the end, if the cache holds only other revisions, so that one of them was loaded.
    """
    if not COMMIT.fullmatch(revision):
        yield
        return
    for folder in _cached(name):
        if folder.name == revision:
            os.utime(folder)  # the newest is the one that is taken
    asked = retrieval_dataset_loaders.get_dataset_config_names
    retrieval_dataset_loaders.get_dataset_config_names = _config_names
    try:
        yield
    finally:
        retrieval_dataset_loaders.get_dataset_config_names = asked
    held = sorted({folder.name for folder in _cached(name)})
    if held and revision not in held:
        raise DataError(f"the Hub was not reached, and the cache holds other revisions of it ({', '.join(held)})")


def _config_names(name: str, revision: str | None = None) -> list[str]:
    """Return the configurations of a data set, from the cache where the Hub is not reached."""
    found: list[str] = datasets.get_dataset_config_names(name, revision)
    if found != ["default"]:
        return found
    cached = {folder.parent.parent.name for folder in _cached(name) if folder.name == revision}
    return sorted(config for config in cached if not OF_FILES.search(config)) or found


def _cached(name: str) -> list[Path]:
    """Return the folders CONFIG/VERSION/REVISION of a data set."""
    *owner, last = name.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "___".join([*owner, camelcase_to_snakecase(last)])
    return [path for path in folder.glob("*/*/*") if path.is_dir()]
