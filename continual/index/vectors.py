"""A folder of vectors: Parquet files of ids, texts and vectors, and a manifest.

A fill publishes one file after the other. A killed one leaves whole files, and the next one goes on from there. The
manifest is written last, so a folder without one is not filled yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from continual.errors import DataError
from continual.index.manifest import NAME, Manifest
from continual.storage.files import publish, remove, sweep_unfinished

MANIFEST = "_manifest.json"
"""Readers of Parquet folders skip names that begin with "_"."""

PARTS = "part-*.parquet"
READ = 8_192

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Stored:
    """Some texts of an index with their vectors, [texts, dimensions]."""

    ids: list[str]
    texts: list[str]
    vectors: Vectors


class VectorFolder:
    """The vectors in a folder.

    Args:
        folder: The folder; it may be missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def parts(self) -> list[Path]:
        """The files, in the order in which they were written."""
        return sorted(self.folder.glob(PARTS))

    def manifest(self) -> Manifest | None:
        """Return the manifest; None if the folder is not filled yet.

        Raises:
            DataError: It is damaged.
        """
        file = self.folder / MANIFEST
        return Manifest.from_json(file.read_bytes(), str(file)) if file.is_file() else None

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        if self.folder.is_dir():
            sweep_unfinished(self.folder, "*")

    def open(self) -> None:
        """Remove the manifest: until a fill ends, a text may be there twice, so the folder doesn't count as filled."""
        if (self.folder / MANIFEST).exists():
            remove(self.folder / MANIFEST)

    def begun(self) -> Manifest | None:
        """Return the manifest that the last file was written with; None if there is no file.

        Raises:
            DataError: The file is damaged, or `continual` didn't write it.
        """
        if not self.parts:
            return None
        last = self.parts[-1]
        try:
            metadata = pq.read_schema(last).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{last} cannot be read as Parquet: {error}. Delete it, and fill the index again."
            ) from None
        if NAME.encode() not in metadata:
            raise DataError(f"{last} was not written by `continual index fill`. Choose another folder.")
        return Manifest.from_json(metadata[NAME.encode()], str(last))

    def hashes(self) -> dict[str, str]:
        """Return the hash of each text by its id; of an id in several files, that of the last."""
        found: dict[str, str] = {}
        for part in self.parts:
            table = self._read(part, ["id", "hash"])
            found.update(zip(table["id"].to_pylist(), table["hash"].to_pylist(), strict=True))
        return found

    def add(
        self, ids: Sequence[str], hashes: Sequence[str], texts: Sequence[str], vectors: Vectors, manifest: Manifest
    ) -> None:
        """Publish texts with their vectors in a file of their own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = int(self.parts[-1].stem.removeprefix("part-")) + 1 if self.parts else 0
        width = vectors.shape[1]
        schema = pa.schema(
            [
                pa.field("id", pa.string(), False),
                pa.field("hash", pa.string(), False),
                pa.field("text", pa.string(), False),
                pa.field("vector", pa.list_(pa.float32(), width), False),
            ],
            {NAME: manifest.to_json()},
        )
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
        columns = [pa.array(ids), pa.array(hashes), pa.array(texts), pa.FixedSizeListArray.from_arrays(flat, width)]
        with publish(self.folder / f"part-{number:06}.parquet") as partial:
            pq.write_table(pa.table(columns, schema=schema), partial, compression="zstd", write_page_checksum=True)

    def finish(self, manifest: Manifest, keep: Collection[str]) -> None:
        """Drop texts that were replaced, or whose ids are not to be kept, and write the manifest."""
        newest: dict[str, int] = {}
        for place, part in enumerate(self.parts):
            newest.update(dict.fromkeys(self._read(part, ["id"])["id"].to_pylist(), place))
        for place, part in enumerate(self.parts):
            table = self._read(part, None)
            stays = [newest[each] == place and each in keep for each in table["id"].to_pylist()]
            if not any(stays):
                remove(part)
            elif not all(stays):
                with publish(part) as partial:
                    pq.write_table(table.filter(pa.array(stays)), partial, compression="zstd", write_page_checksum=True)
        with publish(self.folder / MANIFEST) as partial:
            partial.write_text(manifest.to_json() + "\n", "utf-8")

    def read(self) -> Iterator[Stored]:
        """Yield all texts with their vectors, some at a time.

        Raises:
            DataError: A file is damaged.
        """
        for part in self.parts:
            try:
                with pq.ParquetFile(part, page_checksum_verification=True) as opened:
                    for batch in opened.iter_batches(READ, columns=["id", "text", "vector"]):
                        vectors = batch.column(2).flatten().to_numpy().reshape(batch.num_rows, -1)
                        yield Stored(batch.column(0).to_pylist(), batch.column(1).to_pylist(), vectors)
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(part, error) from None

    def _read(self, part: Path, columns: list[str] | None) -> pa.Table:
        try:
            return pq.read_table(part, columns=columns, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(part, error) from None

    @staticmethod
    def _damaged(part: Path, error: Exception) -> DataError:
        return DataError(
            f"{part} is damaged: {error}. Delete it, and fill the index again: only its texts are embedded."
        )
