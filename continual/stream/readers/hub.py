"""Data sets loaded by the `datasets` library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from continual.errors import DataError
from continual.stream.readers.arrays import dense, pieces, to_piece
from continual.stream.readers.base import HUB, Piece
from continual.stream.readers.bounds import check_names
from continual.stream.readers.column_types import check_types, is_id, is_list, is_text
from continual.stream.schema import Mapping


class HubSource:
    """A split loaded by the `datasets` library: Arrow files in its cache, mapped into memory.

    It is not streamed over the network, because the content is read twice (fingerprint, rows) and an interrupted
    download would start again.
    """

    def __init__(self, name: str, stem: str, dataset: Any) -> None:
        self.name = name
        self.dialect: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.stem = stem
        self.rows: int | None = len(dataset)
        self._dataset = dataset
        self.schema: pa.Schema = dataset.features.arrow_schema
        self.columns = check_names(self.schema.names, name)
        if not self.rows:
            raise DataError(f"{name} has no rows. Choose another split with hf:NAME:SPLIT.")

    def sha256(self) -> str:
        """Return the SHA-256 over the rows; the library's own fingerprint depends on paths and versions."""
        plain = [field.name for field in self.schema if is_text(field.type) or is_list(field.type) or is_id(field)]
        result = hashlib.sha256(json.dumps(plain).encode())
        for piece in self.read(plain, 1000):
            for row in zip(*piece.columns.values(), strict=True):
                result.update(json.dumps(row, default=repr).encode() + b"\n")
        return result.hexdigest()

    def check(self, mapping: Mapping) -> None:
        """Raise `DataError` if a column's type cannot hold what the mapping takes from it."""
        check_types(self.schema, mapping, self.name)

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order."""
        first = 1
        selected = self._dataset.select_columns(list(columns)).with_format("arrow")
        for table in selected.iter(batch_size=min(batch_rows, 1000)):
            for batch in pieces(dense(table.combine_chunks().to_batches(), self.name), batch_rows):
                yield to_piece(batch, columns, first)
                first += batch.num_rows


def open_hub(source: str) -> HubSource:
    """Load `hf:NAME[:CONFIG][:SPLIT]` with `datasets`.

    A single part after the name is a configuration if the data set has one of this name, and a split otherwise. The
    split defaults to "train", or to the only one.

    Raises:
        DataError: The data set doesn't exist or cannot be downloaded, or its configuration or split must be named.
    """
    import datasets

    name, *parts = source.removeprefix(HUB).split(":")
    if not name or len(parts) > 2 or not all(parts):
        raise DataError(
            f"{source!r} is not of the form hf:NAME[:CONFIG][:SPLIT]. An example is hf:sentence-transformers/gooaq."
        )
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        configs = datasets.get_dataset_config_names(name)
        config = parts[0] if parts and (len(parts) == 2 or parts[0] in configs) else None
        split = parts[-1] if len(parts) == 2 or (parts and config is None) else None
        if config is not None and config not in configs:
            raise DataError(f"{name} has no configuration {config!r}. Choose one of {', '.join(configs)}.")
        if config is None and len(configs) > 1 and "default" not in configs:
            raise DataError(f"{name} has the configurations {', '.join(configs)}. Choose one with hf:{name}:CONFIG.")
        splits = datasets.get_dataset_split_names(name, config)
        if split is None:
            split = "train" if "train" in splits else splits[0] if len(splits) == 1 else None
        if split not in splits:
            missing = f"no {split!r}" if split else "no 'train'"
            raise DataError(
                f"{name} has the splits {', '.join(splits)} and {missing}. Choose one with hf:{name}:...:SPLIT."
            )
        loaded = datasets.load_dataset(name, config, split=split)
    except DataError:
        raise
    except Exception as error:  # the library passes on any exception of its file systems and parsers
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{source} could not be loaded by the datasets library ({type(error).__name__}: {first_line}). "
            "Check the name and the network, or download the data and give the file."
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    return HubSource(source, name.rstrip("/").rsplit("/", 1)[-1], loaded)
