"""Every error that `continual` raises on purpose.

    ContinualError                     exit code
    ├── InputError                     2   the input or the call is wrong
    │   ├── ConfigError                    wrong settings, in continual.toml or in a call
    │   │   └── DivergedError                  the training loss is no longer a number
    │   ├── DataError                      an unreadable file, missing columns, or too many bad rows
    │   ├── ModelError                     not a sentence-transformers model, or models that do not match
    │   ├── InvalidNameError               a name that is not allowed or already taken
    │   ├── NotFoundError                  no such workspace, domain, task or version
    │   ├── NothingToDoError               no new rows to learn, no task to evaluate ...
    │   ├── SchemaError                    a workspace written by a newer `continual`, or a damaged catalog
    │   └── ResourceError                  no space, no permission, a read-only disk, or too little memory
    ├── FoldError                      1   the folded model encodes differently from the trained one
    ├── RebuildError                   1   a rebuilt version differs from its record
    ├── GateRefused                    3   the update breaks a limit of the gate
    └── WorkspaceBusy                  4   another process is using the workspace

`continual.storage.faults` turns what libraries raise for a full disk, missing permissions and too little memory into a
ResourceError. A message says what happened with the values, what was expected, and which command or setting fixes it.
Any other exception that reaches the command line is a bug in `continual`: exit code 1, with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ContinualError(Exception):
    """Root of the tree. `exit_code` is the exit code of the command line."""

    exit_code: int = 1


class InputError(ContinualError):
    """The input or the call is wrong. Nothing was changed, except that of several files, those before it are stored."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is missing, has the wrong type, or is out of its range."""


class DataError(InputError):
    """A data file cannot be read, lacks columns, or has too many bad rows."""


class ModelError(InputError):
    """A path or id is not a sentence-transformers model, or two models do not match."""


class InvalidNameError(InputError):
    """A domain, task or alias name is not allowed or already taken."""


class NotFoundError(InputError):
    """There is no workspace, domain, task or version of this name."""


class NothingToDoError(InputError):
    """The command is right, but it has nothing to work on."""


class SchemaError(InputError):
    """A newer version of `continual` wrote the workspace, or a record in it is damaged."""


class ResourceError(InputError):
    """The disk is full, read-only or not accessible, or the memory does not suffice."""


class DivergedError(ConfigError):
    """The training loss is no longer a number. Another run with the same settings ends the same way."""


class FoldError(ContinualError):
    """The folded model does not encode as the base model with its adapter does."""


class RebuildError(ContinualError):
    """The weights of a rebuilt version differ from those recorded."""


class GateRefused(ContinualError):
    """The update breaks a limit of the gate. Its version is kept, but does not become the current version."""

    exit_code = 3


class WorkspaceBusy(ContinualError):
    """Another process used the workspace for longer than the configured wait."""

    exit_code = 4


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint that starts with a space, to append to a message about an unknown name.

    The hint names the most similar of `names`, or lists all of them if none is similar. It is empty if there are no
    names.
    """
    names = sorted(names)
    similar = difflib.get_close_matches(name, names, n=1)
    if similar:
        return f" Did you mean {similar[0]!r}?"
    return f" Known: {', '.join(names)}." if names else ""
