"""From a name to a source: a file by its ending, or a data set of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from continual.errors import DataError
from continual.stream.readers import arrow, text
from continual.stream.readers.base import HUB, Source


def open_source(source: str) -> Source:
    """Open a file by its ending, or a data set of the Hugging Face hub.

    Args:
        source: A path that ends in .parquet, .jsonl, .ndjson, .json, .csv or .tsv (the last five also
            with .gz), or `hf:NAME[:CONFIG][:SPLIT]`.

    Raises:
        DataError: It is missing, empty, truncated, or not what its name says.
    """
    if source.startswith(HUB):
        return arrow.open_hub(source)
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{source} is a folder. Name a file in it: .parquet, .jsonl or .csv.")
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise DataError(f"{source} does not exist.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be opened: {error}.") from None
    if size == 0:
        raise DataError(f"{source} is empty (0 bytes).")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if kind == ".parquet" and suffixes[-1] != ".gz":
        return arrow.ParquetSource(source)
    if kind in (".jsonl", ".ndjson", ".json"):
        return text.JsonLinesSource(source)
    if kind in (".csv", ".tsv"):
        return text.CsvSource(source, delimiter="," if kind == ".csv" else "\t")
    raise DataError(
        f"{source} has no known ending. continual reads .parquet, .jsonl, .json, .csv, .tsv (the text ones "
        "also with .gz) and hf:NAME."
    )
