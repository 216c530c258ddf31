"""Every request to a language model and its answer, in a file: nothing is asked twice, and all can be audited."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from continual.errors import DataError


def key_of(request: Mapping[str, Any]) -> str:
    """Return the digest that identifies a request."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Journal:
    """The answers so far, by request. An answer is on the disk before it is used.

    The file is JSON Lines. The last line of a killed process may be cut; it is dropped, and its request asked again.

    Attributes:
        tokens: Tokens of all requests, and of all answers.

    Args:
        path: The file; made if it is missing.

    Raises:
        DataError: It cannot be read or written, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens = (0, 0)
        self._answers: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        import fcntl

        try:
            self._file = self.path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise DataError(f"{self.path} is in use by another process. Wait until it ends.") from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}. Choose another --out.") from None
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                self._count(json.loads(line))
            except (ValueError, KeyError, TypeError):
                self._file.close()
                raise DataError(
                    f"{self.path}, line {number}, is damaged. Remove the line, and its request is asked again."
                ) from None
            whole += len(line)
        self._file.truncate(whole)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the entry of a request that was answered; None if it was not."""
        return self._answers.get(key_of(request))

    def add(self, request: Mapping[str, Any], **answer: Any) -> dict[str, Any]:
        """Record the answer to a request, and return its entry."""
        entry = {"key": key_of(request), "request": dict(request), **answer}
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._count(entry)
        return entry

    def _count(self, entry: dict[str, Any]) -> None:
        asked, told = entry["usage"]
        self._answers[entry["key"]] = entry
        self.tokens = (self.tokens[0] + asked, self.tokens[1] + told)
