"""Every error that `continual` raises on purpose.

    ContinualError                     exit code
    ├── InputError                     2   the input or the call is wrong
    │   ├── ConfigError                    continual.toml, or a setting out of its range
    │   │   └── DivergedError                  a training whose loss is no longer a number
    │   ├── DataError                      a file, its columns, or too many of its rows
    │   ├── ModelError                     not a sentence-transformers model, or models that do not match
    │   ├── InvalidNameError               a name that is not allowed, or already taken
    │   ├── NotFoundError                  no such workspace, domain, task, version
    │   ├── NothingToDoError               an update with nothing new, a report with no version
    │   └── SchemaError                    a workspace written by a newer `continual`
    ├── FoldError                      1   the folded weights are not what was trained
    ├── RebuildError                   1   a version built again is not what was recorded
    ├── GateRefused                    3   the update is worse than the limits allow
    └── WorkspaceBusy                  4   another process uses the workspace

A message names the fact, the values, and the next command to run. Anything else that reaches the
command line is a bug of ours: exit code 1, with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ContinualError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code: int = 1


class InputError(ContinualError):
    """The input or the call is wrong; nothing was changed."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is missing, of the wrong type, or out of its range."""


class DataError(InputError):
    """A data file cannot be read, lacks columns, or has too many bad rows."""


class ModelError(InputError):
    """A path or id is no sentence-transformers model, or two models do not match."""


class InvalidNameError(InputError):
    """A domain, task or alias name is not allowed, or already taken."""


class NotFoundError(InputError):
    """Nothing is known under this name."""


class NothingToDoError(InputError):
    """The command is right, but there is nothing for it to work on."""


class SchemaError(InputError):
    """The workspace was written by a newer version of `continual`."""


class DivergedError(ConfigError):
    """The loss is no longer a number: the same settings would end so again."""


class FoldError(ContinualError):
    """The folded weights do not encode as the model that was trained."""


class RebuildError(ContinualError):
    """A version that was built again has not the weights that were recorded."""


class GateRefused(ContinualError):
    """The update is worse than the gate allows; it stays as a candidate."""

    exit_code = 3


class WorkspaceBusy(ContinualError):
    """Another process holds the workspace for longer than the configured wait."""

    exit_code = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or what is known, or an empty string."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(known)}." if known else ""
