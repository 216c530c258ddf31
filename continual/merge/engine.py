"""The merge engine: it merges models tensor by tensor in fp32, from safetensors to safetensors.

Each worker reads one tensor from every model, merges it and writes it before it takes the next tensor. So memory does
not depend on the size of the models: a worker needs at most (number of models + 2) times the largest tensor, in fp32.
Two methods need more: `opcm` about eight times the largest matrix, because it decomposes matrices, and `regmean` some
matrices in float64 that are as wide as a layer's inputs. A worker computes with one thread, so that the same models
give the same bytes on any number of cores.
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
from continual.merge.inputs import read_gram
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
    grams: Sequence[Mapping[str, Path]] | None = None,
    progress: Progress = SILENT,
) -> None:
    """Publish the merge of models as a model folder.

    Integer tensors cannot be averaged and must be equal. A tensor that some models lack is left out if it holds
    integers, or if it is a copy of a tensor that all models have (tied weights, which some models store twice).

    Args:
        models: The models to merge; all must hold the same tensors.
        method: The merge method.
        out: Folder to publish; an existing one is replaced.
        weights: One per model, and one more for a base that is the method's first vector; 1 each by default.
        base: The base that task vectors are measured from, if the method takes one.
        parameters: Values for the method's parameters; its defaults otherwise.
        seed: Seed of the method's random numbers. The same seed gives the same bytes and drops the same elements, so
            every merge of a stream needs another seed.
        dtype: Type to store floating-point tensors in; by default the widest type that a tensor has in the models.
        layout: The model whose files, tokenizer, pooling and prompts the result takes; the first by default.
        workers: See `rewrite`.
        grams: For a method that needs texts, one per model, as `continual.merge.inputs` writes them.

    Raises:
        ModelError: A tensor is missing, differs in shape or in integers, or is not finite; the message names it.
        InputError: The method does not take this number of models, or a parameter is out of its range.
    """
    assert not method.rescaled, "this method needs the whole model: use continual.merge.sequence"
    assert method.needs_texts == (grams is not None), "only a method that needs texts gets Gram matrices"
    method.check(len(models), base is not None)
    settings = method.resolve(parameters or {})
    if base is not None and method.base == "first":
        models, base = [base, *models], None
    weights = [1.0] * len(models) if weights is None else list(weights)
    if not all(map(math.isfinite, weights)):
        raise InputError(f"Weights must be finite numbers, but are {', '.join(map(str, weights))}.")
    method.rehearse(weights, settings)
    inputs = [*models, base] if base is not None else list(models)
    keys = shared_keys(inputs)
    integers = {key for key in keys if not models[0].entries[key].dtype.is_floating_point}
    for key in sorted(integers):
        _check_equal(key, inputs)

    def compute(key: str) -> Tensor:
        if key in integers:
            return models[0].read(key)
        vectors = [model.read(key).float() for model in models]
        origin = base.read(key).float() if base is not None else None
        if origin is not None:
            for vector in vectors:
                vector.sub_(origin)
        more: dict[str, object] = {"generator": _generator(seed, key)} if method.seeded else {}
        more |= {"grams": [read_gram(each, key) for each in grams]} if grams is not None else {}
        merged = method(vectors, weights, **settings, **more)
        return merged if origin is None else merged.add_(origin)

    dtypes = stored_types(models, keys, dtype)
    if grams is not None and workers is None:
        # Some matrices in float64 for each layer: one per model, their sum, and what solving it needs.
        widths = [models[0].entries[key].shape[-1] for key in keys if key in grams[0]]
        workers = _workers((len(models) + 3) * 8 * max(widths, default=0) ** 2)
    rewrite(layout or models[0], out, compute, dtypes, workers, progress, models=len(inputs))


def save_model(model: Model, out: Path, dtype: torch.dtype | None = None, progress: Progress = SILENT) -> None:
    """Publish a model as a model folder, with its adapter folded in, or with another floating-point type."""
    rewrite(model, out, model.read, stored_types([model], list(model.entries), dtype), None, progress)


def shared_keys(models: Sequence[Model]) -> list[str]:
    """Return the keys of the tensors that all models have.

    Raises:
        ModelError: A shape differs, or a model lacks a floating-point tensor that is not tied to another one.
    """
    first = models[0]
    shared = [key for key in first.entries if all(key in model.entries for model in models)]
    for model in models[1:]:
        for key in shared:
            ours, theirs = first.entries[key], model.entries[key]
            if ours.shape != theirs.shape:
                raise ModelError(
                    f"{key} has shape {list(ours.shape)} in {first}, but {list(theirs.shape)} in {model}. Merge models "
                    "of one architecture."
                )
            if ours.dtype.is_floating_point != theirs.dtype.is_floating_point:
                raise ModelError(
                    f"{key} has type {ours.dtype} in {first}, but {theirs.dtype} in {model}, and integers cannot be "
                    "merged with floating-point numbers. Merge models of one architecture."
                )
    for model in models:
        for key in model.entries.keys() - set(shared):
            if model.entries[key].dtype.is_floating_point and not _tied(model, key, shared):
                lacking = next(other for other in models if key not in other.entries)
                raise ModelError(
                    f"{model} has the tensor {key}, but {lacking} does not. Merge models of one architecture."
                )
    return shared


def stored_types(models: Sequence[Model], keys: Sequence[str], dtype: torch.dtype | None) -> dict[str, torch.dtype]:
    """Return the type to store each tensor in: `dtype` for floating-point tensors if given, else the widest type."""
    stored = {}
    for key in keys:
        dtypes = [model.entries[key].dtype for model in models]
        try:
            widest = reduce(torch.promote_types, dtypes)
        except RuntimeError:
            names = " and ".join(sorted(map(str, set(dtypes))))
            raise ModelError(
                f"{key} is stored as {names}, which have no common type. Convert one of the models first."
            ) from None
        stored[key] = dtype or widest if widest.is_floating_point else widest
    return stored


def rewrite(
    layout: Model,
    out: Path,
    compute: Callable[[str], Tensor],
    dtypes: Mapping[str, torch.dtype],
    workers: int | None = None,
    progress: Progress = SILENT,
    models: int = 1,
) -> None:
    """Publish a model folder with computed weights and all other files of `layout`.

    Args:
        layout: The model whose files are copied and whose division into weight files is kept.
        out: Folder to publish; an existing one is replaced.
        compute: Returns the tensor of a key, in any type; called from several threads.
        dtypes: The keys to store, with their types.
        workers: Tensors merged at the same time; by default one per core, fewer if half of the free memory does not
            hold them.
        models: Number of models that `compute` reads for one tensor, to estimate its memory.
    """
    with publish(out) as partial, ExitStack() as files:
        shutil.copytree(layout.folder, partial, ignore=shutil.ignore_patterns(*UNUSED, "*.safetensors"))
        writers: dict[str, Writer] = {}
        for path, (keys, metadata) in layout.files.items():
            kept = {layout.entries[key].name: (dtypes[key], layout.entries[key].shape) for key in keys if key in dtypes}
            writer = files.enter_context(Writer(partial / path, kept, metadata))
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
        _update_descriptions(partial, layout, dtypes)


def _run(work: Callable[[str], None], keys: Sequence[str], workers: int, progress: Progress) -> None:
    """Call `work` for every key on a pool of threads. The first error stops the pool and is raised."""
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
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, wait only for tensors that are being merged
        torch.set_num_threads(threads)


def _workers(bytes_each: int) -> int:
    """Return one worker per core of this process, fewer if half of the free memory does not hold them."""
    return max(1, min(len(os.sched_getaffinity(0)), _free_memory() // 2 // max(bytes_each, 1)))


def _free_memory() -> int:
    """Return the free memory in bytes. On Linux this includes the page cache."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _update_descriptions(folder: Path, layout: Model, dtypes: Mapping[str, torch.dtype]) -> None:
    """Update the copied files that describe the weights: the index of a sharded module, and its dtype."""
    for module in {file.parent for file in layout.files}:
        stored = {
            layout.entries[key]: dtypes[key]
            for file, (keys, _) in layout.files.items()
            if file.parent == module
            for key in keys
            if key in dtypes
        }
        for path in (folder / module).glob(INDEX):
            if whole_file(path).is_file():
                remove(path)  # an outdated index: the module's weights are in one file
                continue
            index = read_json(path, dict)
            names = {entry.name for entry in stored}
            index["weight_map"] = {name: file for name, file in index["weight_map"].items() if name in names}
            size = sum(entry.bytes // entry.dtype.itemsize * dtype.itemsize for entry, dtype in stored.items())
            index["metadata"] = index.get("metadata", {}) | {"total_size": size}
            path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")
        changed = {dtype for entry, dtype in stored.items() if entry.dtype != dtype}
        if len(changed) == 1:
            declare_dtype(folder / module / CONFIG, changed.pop())


def declare_dtype(config: Path, dtype: torch.dtype) -> None:
    """Set the dtype in a module's `config.json`, which transformers reads; do nothing if the file is missing."""
    if config.is_file():
        settings = read_json(config, dict)
        settings.pop("torch_dtype", None)
        settings["dtype"] = str(dtype).removeprefix("torch.")
        config.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _check_fits(key: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Refuse values that would overflow in the type that they are stored in."""
    if not dtype.is_floating_point or torch.finfo(dtype).max >= torch.finfo(torch.bfloat16).max or not tensor.numel():
        return
    largest = max(abs(float(end)) for end in tensor.float().aminmax())
    if largest > torch.finfo(dtype).max:
        raise ModelError(
            f"The merged {key} has values up to {largest:.3g}, too large for {dtype}. Store the result in a wider "
            "type with --dtype bf16 or --dtype fp32."
        )


def _check_equal(key: str, models: Sequence[Model]) -> None:
    first = models[0].read(key)
    for model in models[1:]:
        if not torch.equal(first, model.read(key)):
            raise ModelError(
                f"{key} holds integers that differ between {models[0]} and {model}, and integers cannot be averaged. "
                "Merge models of one architecture."
            )


def _tied(model: Model, key: str, shared: Sequence[str]) -> bool:
    """Return whether a matrix is a copy of one that all models have. Constant matrices do not count as copies."""
    entry = model.entries[key]
    same_shape = [other for other in shared if model.entries[other].shape == entry.shape]
    if len(entry.shape) < 2 or not same_shape:
        return False
    matrix = model.read(key)
    constant = bool((matrix == matrix.flatten()[:1]).all())
    return not constant and any(torch.equal(matrix, model.read(other)) for other in same_shape)


def _generator(seed: int | str, key: str) -> torch.Generator:
    """Return a generator for one tensor. It depends on the key, not on the order in which tensors are merged."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))
