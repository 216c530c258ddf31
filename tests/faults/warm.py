"""Imports everything that a command can import, and computes nothing: a process forked after it starts at once."""

from __future__ import annotations

import importlib
import os
import pkgutil

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import continual

for _module in pkgutil.walk_packages(continual.__path__, "continual."):
    if not _module.name.endswith(("avalanche", "__main__")):
        importlib.import_module(_module.name)

for _name in (
    "datasets",
    "duckdb",
    "mteb",
    "peft",
    "pyarrow.compute",
    "pyarrow.dataset",
    "scipy.cluster.hierarchy",
    "scipy.optimize",
    "scipy.stats",
    "sentence_transformers.models",
    "sklearn.cluster",
    "torch._dynamo",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
):
    importlib.import_module(_name)
