"""Names of domains and tasks: they become folders, so they are checked before they touch the disk."""

from __future__ import annotations

import unicodedata

from continual.errors import InvalidNameError

MAX_BYTES = 100


def check_name(name: str, what: str) -> str:
    """Return `name` in Unicode normal form C if it may name a folder below the workspace.

    Args:
        name: One path component: no slash, backslash, control character, leading dot or outer space.
        what: "domain" or "task", for the message.

    Raises:
        InvalidNameError: It may not; the message says why.
    """
    name = unicodedata.normalize("NFC", name)
    fault = None
    if not name:
        fault = "it is empty"
    elif len(name.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        fault = f"it is longer than {MAX_BYTES} bytes"
    elif "/" in name or "\\" in name:
        fault = "it has a slash"
    elif any(unicodedata.category(character)[0] == "C" for character in name):
        fault = "it has a control or unprintable character"
    elif name.startswith(".") or name.startswith("-"):
        fault = "it starts with a dot or a dash"
    elif name != name.strip():
        fault = "it starts or ends with a space"
    if fault:
        raise InvalidNameError(f"{name!r} cannot name a {what}: {fault}. Choose letters, digits, '-' and '_'.")
    return name
