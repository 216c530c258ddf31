"""Locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual.errors import WorkspaceBusy
from continual.storage.locks import exclusive


def test_a_lock_is_exclusive_and_freed(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", "update"):
        with pytest.raises(WorkspaceBusy, match="continual update"), exclusive(tmp_path / "lock", "update"):
            pass
    with exclusive(tmp_path / "lock", "update"):
        pass
