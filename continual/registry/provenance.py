"""How a version was made: all that decided its weights, as a typed record."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def libraries() -> dict[str, str]:
    """Return the installed versions of the libraries that decide weights and scores, by name."""
    found = {}
    for name in ("continual", "torch", "transformers", "peft", "sentence-transformers", "mteb"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
