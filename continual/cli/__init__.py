"""The command line. A command parses, calls one method of `Workspace`, and prints."""

from __future__ import annotations

import sys

from continual.cli.app import app
from continual.errors import ContinualError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line, and turn our own errors into one line on stderr and an exit code."""
    try:
        app()
    except ContinualError as error:
        print(f"continual: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
