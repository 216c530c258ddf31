"""Continual learning for text-embedding models.

`Workspace` is the whole API; `continual.errors` is what it raises. It is imported when first asked for, so that
`import continual` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continual.workspace import Workspace

__all__ = ["Workspace", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Workspace":
        return import_module("continual.workspace").Workspace
    raise AttributeError(f"module 'continual' has no attribute {name!r}")
