"""Sources of rows: Parquet, JSON Lines, CSV and Hugging Face data sets, read in pieces of bounded size."""

from continual.stream.readers.base import Piece, Source
from continual.stream.readers.dialect import Dialect
from continual.stream.readers.ids import IdSource, TextFiles, text_columns
from continual.stream.readers.open import naming_header, open_ids, open_source
from continual.stream.readers.watched import WatchedSource

__all__ = [
    "Dialect",
    "IdSource",
    "Piece",
    "Source",
    "TextFiles",
    "WatchedSource",
    "naming_header",
    "open_ids",
    "open_source",
    "text_columns",
]
