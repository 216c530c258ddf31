"""Open a source by its name: a file by its suffix, or a data set of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from continual.errors import DataError
from continual.stream.readers import arrow, text
from continual.stream.readers.base import HUB, Source


def open_source(source: str) -> Source:
    """Open a file by its suffix, or a data set of the Hugging Face Hub.

    Args:
        source: A path that ends in .parquet, .jsonl, .ndjson, .json, .csv or .tsv (all but .parquet also with .gz), or
            `hf:NAME[:CONFIG][:SPLIT]`.

    Raises:
        DataError: The source is missing, empty, truncated, or not in the format of its suffix.
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
        raise DataError(f"{source} does not exist. Check the path, or use hf:NAME for a dataset on the Hub.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be opened: {error}. Check its permissions and the path.") from None
    if size == 0:
        raise DataError(f"{source} is empty (0 bytes). Copy or write it again.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if suffix == ".parquet" and suffixes[-1] != ".gz":
        return arrow.ParquetSource(source)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return text.JsonLinesSource(source)
    if suffix in (".csv", ".tsv"):
        return text.CsvSource(source, delimiter="," if suffix == ".csv" else "\t")
    raise DataError(
        f"{source} has a suffix that continual doesn't read. It reads .parquet, .jsonl, .ndjson, .json, .csv and .tsv "
        "(all but .parquet also with .gz), and hf:NAME."
    )
