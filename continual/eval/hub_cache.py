"""The local cache of Hugging Face data sets: which revisions it holds.

Where the Hub cannot be reached, `datasets` takes whatever revision of a data set was cached last, and asks nobody. A
task is one revision for good, so that one is put first, and what came from another one is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets.naming import camelcase_to_snakecase

from continual.errors import DataError

COMMIT = re.compile("[0-9a-f]{40}")


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
    yield
    held = sorted({folder.name for folder in _cached(name)})
    if held and revision not in held:
        raise DataError(f"the Hub was not reached, and the cache holds other revisions of it ({', '.join(held)})")


def _cached(name: str) -> list[Path]:
    """Return the folders CONFIG/VERSION/REVISION of a data set."""
    *owner, last = name.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "___".join([*owner, camelcase_to_snakecase(last)])
    return [path for path in folder.glob("*/*/*") if path.is_dir()]
