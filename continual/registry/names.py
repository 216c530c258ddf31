"""Names of domains and tasks, checked because they become folder names."""

from __future__ import annotations

import unicodedata

from continual.errors import InvalidNameError

MAX_BYTES = 100


def check_name(name: str, what: str) -> str:
    """Return a name in Unicode normal form C, if it may name a folder of the workspace.

    Args:
        name: At most 100 bytes, without slash, backslash, control character, leading dot or dash, or outer space.
        what: "domain" or "task", for the message.

    Raises:
        InvalidNameError: The name is not allowed; the message says why.
    """
    name = unicodedata.normalize("NFC", name)
    fault = None
    if not name:
        fault = "it is empty"
    elif len(name.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        fault = f"it is longer than {MAX_BYTES} bytes"
    elif "/" in name or "\\" in name:
        fault = "it contains a slash or backslash"
    elif any(unicodedata.category(character)[0] == "C" for character in name):
        fault = "it contains a control or unprintable character"
    elif name.startswith(".") or name.startswith("-"):
        fault = "it starts with a dot or dash"
    elif name != name.strip():
        fault = "it starts or ends with a space"
    if fault:
        raise InvalidNameError(
            f"{name!r} is not allowed as the name of a {what}: {fault}. Use letters, digits, '-' and '_'."
        )
    return name
