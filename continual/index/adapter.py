"""A query map as modules of a sentence-transformers folder: plain `Dense` layers that every version can load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from torch import nn

from continual.errors import FoldError
from continual.eval.run import quiet
from continual.index.maps import QueryMap
from continual.train.similarity import Similarity

NOTE = "index.json"
"""The file with the comparison: which versions the folder is for, and what its queries find."""

TOLERANCE = 1e-4
"""Largest difference of a coordinate between the folder's vectors and the map's."""


def write_adapter(
    model: Path, query_map: QueryMap, target: Path, note: Mapping[str, Any], similarity: Similarity
) -> None:
    """Copy a model to a folder, with a map after its last module.

    Args:
        model: The new model's sentence-transformers folder.
        query_map: The map.
        target: The folder to make.
        note: Written to `NOTE`; it needs `old` and `new`, the ids of the versions.
        similarity: How the model compares embeddings. If it cuts them to leading dimensions, so does the first module
            of the map, because the library would cut only after the last one.
    """
    shutil.copytree(model, target, symlinks=False)
    listed = json.loads((target / "modules.json").read_text(encoding="utf-8"))
    for module in modules(query_map, similarity):
        kind = type(module).__name__
        place = len(listed)
        path = f"{place}_{kind}"
        (target / path).mkdir()
        module.save(str(target / path))
        # The name that old releases know too.
        listed.append({"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"})
    (target / "modules.json").write_text(json.dumps(listed, indent=2), encoding="utf-8")
    (target / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    (target / "README.md").write_text(_CARD.format(**note), encoding="utf-8")


def modules(query_map: QueryMap, similarity: Similarity) -> list[Dense | Normalize]:
    """Return the modules that do what a map does to a model's whole embeddings, in fp32."""
    made: list[Dense | Normalize] = []
    for layer in query_map.layers:
        outputs, inputs = layer.weight.shape
        made.append(
            Dense(
                inputs,
                outputs,
                bias=layer.bias is not None,
                activation_function=nn.ReLU() if layer.relu else nn.Identity(),
                init_weight=torch.from_numpy(layer.weight.astype(np.float32)),
                init_bias=None if layer.bias is None else torch.from_numpy(layer.bias.astype(np.float32)),
            )
        )
    if query_map.normalise:
        made = [Normalize(), *made, Normalize()] if made else [Normalize()]
    if similarity.truncated and made:
        sizes = similarity.whole, similarity.served
        cut = torch.eye(similarity.served, similarity.whole)
        made.insert(0, Dense(*sizes, bias=False, activation_function=nn.Identity(), init_weight=cut))
    return made


def prove_adapter(
    folder: Path,
    queries: Sequence[str],
    expected: np.ndarray[Any, Any],
    *,
    max_length: int | None = None,
    trust_remote_code: bool = False,
) -> float:
    """Load a folder as a user would, and compare its vectors of a few queries with the map's.

    Args:
        folder: The folder that `write_adapter` made.
        queries: A few texts.
        expected: Their vectors, [queries, dimensions].
        max_length: Tokens per text with which they were made; None for the model's own limit.
        trust_remote_code: Run Python code from the model folder.

    Returns:
        The largest difference of a coordinate.

    Raises:
        FoldError: It is larger than `TOLERANCE`.
    """
    with quiet():
        options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        loaded = SentenceTransformer(str(folder), device="cpu", **options)
    if max_length is not None:
        loaded.max_seq_length = min(max_length, loaded.max_seq_length or max_length)
    found = loaded.encode_query(list(queries), show_progress_bar=False)
    error = float(np.abs(np.asarray(found) - expected).max())
    if not error <= TOLERANCE:
        raise FoldError(
            f"{folder} does not encode queries as the fitted map does: a coordinate differs by {error:.1e}, at most "
            f"{TOLERANCE:g} is expected. The folder is not kept."
        )
    return error


_CARD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [continual, query-adapter]
---

# Queries of {new} for the index of {old}

The model {new} with a map into the embedding space of {old} after its last module. Encode **queries only** with it and
search the index that {old} filled, until it is rebuilt with {new}. Never encode documents with it.

```python
from sentence_transformers import SentenceTransformer

queries = SentenceTransformer("this folder").encode_query(["..."])
```

`index.json` holds its scores on that index, task by task.
"""
