"""Standard output that may be closed before the command ends, as by `continual report | head`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Closable:
    """A stream that drops what nobody reads any more, so that the command still does its work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, or drop it if the reader is gone."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush what is written, or drop it if the reader is gone."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """Point the stream's descriptor at nothing, where everything still in its buffer goes too."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def closable_output() -> Iterator[None]:
    """Let the reader of standard output leave early."""
    stream = sys.stdout
    sys.stdout = _Closable(stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = stream
