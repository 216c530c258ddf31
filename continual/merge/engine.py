"""The engine: merges models tensor by tensor, in fp32, from safetensors to safetensors.

A tensor is read from every model, merged and written before the next one is; as many as there are workers are on
their way at once. So memory is bounded by the largest tensor, whatever the size of the models: at most (number of
models + 2) times it, in fp32, per worker. A worker computes with one thread, so that the same models give the same
bytes on any number of cores. One method needs more memory than that: `opcm` decomposes matrices, in about eight times
the matrix.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from continual.errors import InputError, ModelError
from continual.merge.methods import Method
from continual.merge.sources import Model
from continual.models.base import UNUSED
from continual.models.folder import (
    CONFIG,
    INDEX,
    read_json,
    whole_file,
)
from continual.models.tensors import Writer
from continual.progress import SILENT, Progress
from continual.storage.files import publish, remove


def merge_models(
    models: Sequence[Model],
    method: Method,
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    base: Model | None = None,
    parameters: Mapping[str, float] | None = None,
    seed: int | str = 0,
    dtype: torch.dtype | None = None,
    layout: Model | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> None:
    """Publish the merge of models as a model folder.

    Integer tensors, which cannot be averaged, must be equal. A tensor that some models lack is left out if those
    that have it hold it twice (tied weights, stored by some and not by others) or if it holds integers.

    Args:
        models: What is merged; the folder is refused that does not hold the same tensors.
        method: How.
        out: Folder to publish; replaced if it is there.
        weights: One per model (with a method whose base is "first", one for the base too); 1 each by default.
        base: The base, if the method takes one.
        parameters: Of the method; its defaults where not given.
        seed: Of the method's random numbers: the same seed gives the same bytes, and the same elements dropped. A
            stream of merges needs another one for each.
        dtype: To store floating-point tensors in; by default the widest of the models' for each tensor.
        layout: The model whose files, tokenizer, pooling and prompts the result has; the first by default.
        workers: See `rewrite`.
        progress: Shows how far it is.

    Raises:
        ModelError: A tensor is missing, differs in shape or in its integers, or holds what is no finite number; it is
            named.
        InputError: The method does not merge this many models, or a parameter is out of its range.
    """
    assert not method.rescaled, "one tensor is not enough to merge by it: see continual.merge.sequence"
    method.check(len(models), base is not None)
    settings = method.resolve(parameters or {})
    if base is not None and method.base == "first":
        models, base = [base, *models], None
    weights = [1.0] * len(models) if weights is None else list(weights)
    if not all(map(math.isfinite, weights)):
        raise InputError(f"Weights are finite numbers, not {', '.join(map(str, weights))}.")
    method.rehearse(weights, settings)
    everything = [*models, base] if base is not None else list(models)
    keys = matching(everything)
    integers = {key for key in keys if not models[0].entries[key].dtype.is_floating_point}
    for key in sorted(integers):
        _check_the_same(key, everything)

    def compute(key: str) -> Tensor:
        if key in integers:
            return models[0].read(key)
        vectors = [model.read(key).float() for model in models]
        origin = base.read(key).float() if base is not None else None
        if origin is not None:
            for vector in vectors:
                vector.sub_(origin)
        random = {"generator": _generator(seed, key)} if method.seeded else {}
        merged = method(vectors, weights, **settings, **random)
        return merged if origin is None else merged.add_(origin)

    dtypes = types(models, keys, dtype)
    rewrite(layout or models[0], out, compute, dtypes, workers, progress, models=len(everything))


def save_model(model: Model, out: Path, dtype: torch.dtype | None = None, progress: Progress = SILENT) -> None:
    """Publish a model with its adapter folded in, or stored in another floating-point type, as a model folder."""
    rewrite(model, out, model.read, types([model], list(model.entries), dtype), None, progress)


def matching(models: Sequence[Model]) -> list[str]:
    """Return the keys of the tensors that all models have.

    Raises:
        ModelError: A shape differs, or a tensor that is neither tied nor made of integers is missing somewhere.
    """
    first = models[0]
    shared = [key for key in first.entries if all(key in model.entries for model in models)]
    for model in models[1:]:
        for key in shared:
            ours, theirs = first.entries[key], model.entries[key]
            if ours.shape != theirs.shape:
                raise ModelError(f"{key} is {list(ours.shape)} in {first}, and {list(theirs.shape)} in {model}.")
            if ours.dtype.is_floating_point != theirs.dtype.is_floating_point:
                raise ModelError(f"{key} is {ours.dtype} in {first}, and {theirs.dtype} in {model}.")
    for model in models:
        for key in model.entries.keys() - set(shared):
            if model.entries[key].dtype.is_floating_point and not _tied(model, key, shared):
                lacking = next(other for other in models if key not in other.entries)
                raise ModelError(f"{model} holds {key}, and {lacking} does not: they are not the same architecture.")
    return shared


def types(models: Sequence[Model], keys: Sequence[str], dtype: torch.dtype | None) -> dict[str, torch.dtype]:
    """Return what each tensor is stored as: the widest type it has, or for floating-point ones the type asked for."""
    found = {}
    for key in keys:
        kinds = [model.entries[key].dtype for model in models]
        try:
            widest = reduce(torch.promote_types, kinds)
        except RuntimeError:
            names = " and ".join(sorted({str(kind) for kind in kinds}))
            raise ModelError(f"{key} is stored as {names}, which have no common type. Convert one of them.") from None
        found[key] = dtype or widest if widest.is_floating_point else widest
    return found


def rewrite(
    layout: Model,
    out: Path,
    compute: Callable[[str], Tensor],
    dtypes: Mapping[str, torch.dtype],
    workers: int | None = None,
    progress: Progress = SILENT,
    models: int = 1,
) -> None:
    """Publish a model folder with computed weights and everything else of another one.

    Args:
        layout: The model whose files are copied and whose division into weight files is kept.
        out: Folder to publish; replaced if it is there.
        compute: Returns the tensor of a key, in any type; called from several threads.
        dtypes: The keys to store, with their types.
        workers: Tensors on their way at once; by default as many as there are cores, or as half of the free memory
            holds.
        progress: Shows how far it is.
        models: Models that `compute` reads for one tensor, for the memory it takes.
    """
    with publish(out) as partial, ExitStack() as files:
        shutil.copytree(layout.folder, partial, ignore=shutil.ignore_patterns(*UNUSED, "*.safetensors"))
        writers: dict[str, Writer] = {}
        for place, (keys, metadata) in layout.files.items():
            kept = {layout.entries[key].name: (dtypes[key], layout.entries[key].shape) for key in keys if key in dtypes}
            writer = files.enter_context(Writer(partial / place, kept, metadata))
            writers |= dict.fromkeys((key for key in keys if key in dtypes), writer)
        largest_first = sorted(dtypes, key=lambda key: -layout.entries[key].bytes)
        progress.start("writing weights", len(dtypes), "tensors")

        def work(key: str) -> None:
            tensor = compute(key)
            _check_fits(key, tensor, dtypes[key])
            writers[key].write(layout.entries[key].name, tensor.to(dtypes[key]))

        largest = max((math.prod(layout.entries[key].shape) for key in dtypes), default=0)
        _run(work, largest_first, workers or _workers((models + 2) * 4 * largest), progress)
        progress.finish()
        _describe(partial, layout, dtypes)


def _run(work: Callable[[str], None], keys: Sequence[str], workers: int, progress: Progress) -> None:
    """Do the work of every key on some threads; the first error ends it and is raised."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = {pool.submit(torch.no_grad()(work), key) for key in keys}
        while waiting:
            done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            progress.advance(len(done))
    finally:
        pool.shutdown(cancel_futures=True)  # an error or Ctrl-C waits for the tensors on their way, not for all
        torch.set_num_threads(threads)


def _workers(bytes_each: int) -> int:
    """Return how many tensors may be on their way at once: the cores this process has, within half the free memory."""
    return max(1, min(len(os.sched_getaffinity(0)), _available() // 2 // max(bytes_each, 1)))


def _available() -> int:
    """Return the bytes of memory that can be had, those of the page cache included where Linux tells."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _describe(folder: Path, layout: Model, dtypes: Mapping[str, torch.dtype]) -> None:
    """Bring what the copied files say of the weights up to date: the index of a sharded module, and its dtype."""
    for place in {file.parent for file in layout.files}:
        here = {
            layout.entries[key]: dtypes[key]
            for file, (keys, _) in layout.files.items()
            if file.parent == place
            for key in keys
            if key in dtypes
        }
        for path in (folder / place).glob(INDEX):
            if whole_file(path).is_file():
                remove(path)  # left from before, when the weights were in parts
                continue
            index = read_json(path, dict)
            names = {entry.name for entry in here}
            index["weight_map"] = {name: file for name, file in index["weight_map"].items() if name in names}
            size = sum(entry.bytes // entry.dtype.itemsize * dtype.itemsize for entry, dtype in here.items())
            index["metadata"] = index.get("metadata", {}) | {"total_size": size}
            path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")
        changed = {dtype for entry, dtype in here.items() if entry.dtype != dtype}
        if len(changed) == 1:
            declare_dtype(folder / place / CONFIG, changed.pop())


def declare_dtype(config: Path, dtype: torch.dtype) -> None:
    """Tell transformers which type the weights beside a `config.json` are stored in; the file may be missing."""
    if config.is_file():
        settings = read_json(config, dict)
        settings.pop("torch_dtype", None)
        settings["dtype"] = str(dtype).removeprefix("torch.")
        config.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _check_fits(key: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Refuse values that would become infinite in a smaller type."""
    if not dtype.is_floating_point or torch.finfo(dtype).max >= torch.finfo(torch.bfloat16).max or not tensor.numel():
        return
    largest = max(abs(float(end)) for end in tensor.float().aminmax())
    if largest > torch.finfo(dtype).max:
        raise ModelError(
            f"{key} would hold values up to {largest:.3g}, too large for {dtype}. Store the result in another type: "
            "--dtype bf16 or fp32."
        )


def _check_the_same(key: str, models: Sequence[Model]) -> None:
    first = models[0].read(key)
    for model in models[1:]:
        if not torch.equal(first, model.read(key)):
            raise ModelError(f"{key} holds integers that differ between {models[0]} and {model}.")


def _tied(model: Model, key: str, shared: Sequence[str]) -> bool:
    """Return whether a matrix is a second copy of one that all models have; equal constants are no tie."""
    entry = model.entries[key]
    alike = [other for other in shared if model.entries[other].shape == entry.shape]
    if len(entry.shape) < 2 or not alike:
        return False
    matrix = model.read(key)
    constant = bool((matrix == matrix.flatten()[:1]).all())
    return not constant and any(torch.equal(matrix, model.read(other)) for other in alike)


def _generator(seed: int | str, key: str) -> torch.Generator:
    """Return the random numbers of one tensor: whatever the order in which tensors are merged, they are the same."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))
