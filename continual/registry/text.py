"""When two texts are the same, and the hashes that say so.

Rows and tasks are hashed here when they come in, and nowhere else: a draw compares the stored hashes.

A text is *stored* in Unicode normal form C without outer whitespace, and *compared* in its normalised
form: NFKC, every run of whitespace one space, none outside, case kept. Whitespace is what `str.split`
takes for it, which includes U+001F: so no normalised text holds the separator of a row's hash.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

SEPARATOR = "\x1f"
DIGEST_BYTES = 16


def clean(text: str) -> str:
    """Return a text as it is stored: NFC, without outer whitespace."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def normalise(text: str) -> str:
    """Return a text as it is compared: NFKC, runs of whitespace as one space, none outside.

    >>> normalise("  Caf\\u00e9 \\n \\ufb01ne ")
    'Café fine'
    """
    text = (text if text.isascii() else unicodedata.normalize("NFKC", text)).strip()
    if "  " not in text and text.isprintable():
        return text  # the only printable whitespace is the space, so there is nothing to collapse
    return " ".join(text.split())


def digest(normalised: str) -> str:
    """Return BLAKE2b-128 of a text that is already normalised, as 32 lower hex digits.

    Raises:
        UnicodeEncodeError: It holds a lone surrogate.
    """
    return blake2b(normalised.encode(), digest_size=DIGEST_BYTES).hexdigest()


def hash_text(text: str) -> str:
    """Return the 32 hex digits that are equal exactly for texts with the same normalised form."""
    return digest(normalise(text))


def hash_row(query: str, positive: str) -> str:
    """Return the 32 hex digits of a pair: the order of stored rows, and what makes two rows duplicates."""
    return digest(normalise(query) + SEPARATOR + normalise(positive))


def fault(text: str, max_chars: int | None = None) -> str | None:
    """Return why a cleaned text cannot be stored, or None.

    Args:
        text: What `clean` returned.
        max_chars: Characters allowed; None for any number.

    Returns:
        "empty", "over N characters", "NUL character", "lone surrogate", or None.
    """
    if not text:
        return "empty"
    if max_chars is not None and len(text) > max_chars:
        return f"over {max_chars} characters"
    if "\0" in text:
        return "NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "lone surrogate"
    return None
