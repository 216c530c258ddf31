"""Continual learning for text-embedding models.

`Workspace` is the whole API. `Columns` names the columns of a data file. `continual.errors` holds the errors.
`import continual` loads neither of the classes; the first access does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continual.stream import Columns
    from continual.workspace import Workspace

__all__ = ["Columns", "Workspace", "__version__"]

__version__ = "0.1.0"

_MODULES = {"Columns": "continual.stream", "Workspace": "continual.workspace"}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'continual' has no attribute {name!r}")
