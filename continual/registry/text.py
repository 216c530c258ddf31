"""Normal form of a text, and hashes of texts and rows.

Rows and tasks are hashed once, when they are ingested; later steps compare the stored hashes.

A text is *stored* in Unicode normal form C without outer whitespace. It is *compared* in its normalised form: NFKC,
runs of whitespace replaced with one space, no outer whitespace, case kept. Whitespace is that of `str.split`, which
includes U+001F, so a normalised text never contains the separator of a row's hash.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

SEPARATOR = "\x1f"
DIGEST_BYTES = 16


def clean(text: str) -> str:
    """Return the form in which a text is stored: NFC, without outer whitespace."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def normalise(text: str) -> str:
    """Return the form in which a text is compared: NFKC, one space per run of whitespace, no outer whitespace.

    >>> normalise("  Caf\\u00e9 \\n \\ufb01ne ")
    'Café fine'
    """
    text = (text if text.isascii() else unicodedata.normalize("NFKC", text)).strip()
    if "  " not in text and text.isprintable():
        return text  # the space is the only printable whitespace, so there is nothing to collapse
    return " ".join(text.split())


def hash_normalised(normalised: str) -> str:
    """Return BLAKE2b-128 of a normalised text, as 32 lower-case hex digits.

    Raises:
        UnicodeEncodeError: The text contains a lone surrogate.
    """
    return blake2b(normalised.encode(), digest_size=DIGEST_BYTES).hexdigest()


def hash_text(text: str) -> str:
    """Return the hash of a text's normalised form, 32 hex digits."""
    return hash_normalised(normalise(text))


def hash_row(query: str, positive: str) -> str:
    """Return the hash of a row, 32 hex digits. Rows are stored in this order; duplicates have the same hash."""
    return hash_normalised(normalise(query) + SEPARATOR + normalise(positive))


def fault(text: str, max_chars: int | None = None) -> str | None:
    """Return why a text cannot be stored: "empty", "over N characters", "NUL character" or "lone surrogate"; or None.

    Args:
        text: A text from `clean`.
        max_chars: Most characters; None for any number.
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
