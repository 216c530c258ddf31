"""Read and write safetensors files one tensor at a time.

The safetensors library maps whole files, so everything that was read stays in memory, and it writes a file only from
tensors that are all in memory. Here, a tensor is read into its own memory, which is freed with the tensor. A file to
write is laid out first and filled in any order, by several threads. Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from continual.errors import ModelError

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
"""Torch dtype by its name in the format. The library writes tensors in the reverse of this order."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES.values())}
_LENGTH = 8  # bytes of the number before the header
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in a file.

    Attributes:
        path: The file.
        name: Name of the tensor in the file.
        dtype: The stored dtype.
        shape: The stored shape.
        start: Offset of its first byte in the file.
    """

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Return the size of the tensor in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """Return the tensor in its stored dtype, in its own memory.

        Raises:
            ModelError: The file ends before the tensor does.
        """
        tensor = torch.empty(self.shape, dtype=self.dtype)
        view = _bytes(tensor)
        with self.path.open("rb", buffering=0) as file:
            done = 0
            while done < len(view):
                count = os.preadv(file.fileno(), [view[done:]], self.start + done)
                if count == 0:
                    raise ModelError(f"{self.path} is truncated: it ends within {self.name}. Copy it again.")
                done += count
        return tensor


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor an infinite value.

    A sum with NaN or an infinite value is never finite, and computing it is one fast pass over memory. A sum that is
    not finite can also be an overflow, so then all elements are checked.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.dtype.itemsize == 1:
        tensor = tensor.float()  # torch cannot sum 8-bit floats
    wide = tensor.dtype if tensor.dtype.itemsize > 2 else torch.float32
    return math.isfinite(float(tensor.sum(dtype=wide))) or bool(tensor.isfinite().all())


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors of a file by name, in their order in the file, and the file's metadata.

    Raises:
        ModelError: The file is not a safetensors file, is truncated, or holds a dtype that torch doesn't have.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            if not 0 < length <= min(size - _LENGTH, _LARGEST_HEADER):
                raise ValueError("its header has an impossible length")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        entries = {}
        for name, item in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
            if item["dtype"] not in DTYPES:
                raise ValueError(f"{name} has the type {item['dtype']}, which torch doesn't have")
            start, stop = item["data_offsets"]
            entry = Entry(path, name, DTYPES[item["dtype"]], tuple(item["shape"]), _LENGTH + length + start)
            if entry.bytes != stop - start:
                raise ValueError(f"{name} takes {stop - start:,} bytes, but its shape needs {entry.bytes:,}")
            if entry.start + entry.bytes > size:
                raise ValueError(f"it is truncated: it ends within {name}")
            entries[name] = entry
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors: {error}. Copy the file again, or save the model again with "
            "`model.save_pretrained(DIR)`."
        ) from None
    return entries, metadata


class Writer:
    """Writer of a safetensors file that is laid out first and then filled in any order, by any thread.

    The file has the same bytes as from the library's `save_file`. Use the writer as a context manager.

    Args:
        path: The file; an existing file is replaced.
        tensors: dtype and shape of every tensor, by name.
        metadata: Metadata of the file, by key.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        offsets, end = {}, 0
        for name in sorted(tensors, key=lambda name: (-_RANK[tensors[name][0]], name)):
            dtype, shape = tensors[name]
            size = math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [end, end + size]}
            offsets[name], end = end, end + size
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _LENGTH)
        start = _LENGTH + len(text)
        self._entries = {name: Entry(path, name, *tensors[name], start + offset) for name, offset in offsets.items()}
        self._file = path.open("wb", buffering=0)
        self._file.write(len(text).to_bytes(_LENGTH, "little") + text)
        self._file.truncate(start + end)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a tensor to its place in the file.

        Raises:
            ValueError: Its dtype or shape differs from the declared one.
        """
        entry = self._entries[name]
        if tensor.dtype != entry.dtype or tuple(tensor.shape) != entry.shape:
            raise ValueError(f"{name} was declared {entry.dtype} {entry.shape}, not {tensor.dtype} {tensor.shape}")
        view, done = _bytes(tensor.contiguous()), 0
        while done < len(view):
            done += os.pwrite(self._file.fileno(), view[done:], entry.start + done)


def _bytes(tensor: Tensor) -> memoryview:
    """Return a view of the memory of a contiguous tensor."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
