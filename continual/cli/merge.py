"""The command that merges any models, in or out of a workspace: merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app
from continual.cli.options import JsonOption, print_json
from continual.cli.parse import parse_parameters, parse_weights
from continual.errors import InputError


@app.command()
def merge(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="sentence-transformers folders, Hub ids, or PEFT adapters of the base."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", "-m", metavar="NAME", help="Merge method; --list shows them.")
    ] = "linear",
    base: Annotated[str | None, typer.Option("--base", "-b", metavar="MODEL", help="Base model of the others.")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="W,W,...", help="Weight of each model, with commas; 1 each by default.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Parameter of the method, repeatable."),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="For regmean: texts that a model is good at, once per model in their order, or once for all.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of methods that draw random numbers, 0 or more.")] = 0,
    dtype: Annotated[
        str | None, typer.Option(metavar="TYPE", help="fp32, fp16 or bf16; by default that of the models.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Tensors to merge at once; memory grows with it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="New folder for the result.")] = None,
    list_methods: Annotated[bool, typer.Option("--list", help="List the methods with their parameters.")] = False,
    json: JsonOption = False,
) -> None:
    """Merge models into one, tensor by tensor.

    Works on any sentence-transformers models of the same architecture; no workspace is needed. Memory does not grow
    with the size of the models. The result keeps the pooling, prompts and tokenizer of the first model, and its model
    card names all of them.
    """
    from continual.cli.render import merge as render

    if list_methods:
        from continual.merge.methods import methods

        print_json(render.methods_json(methods())) if json else render.print_methods(methods())
        return
    if not models or out is None:
        raise InputError("Name the models to merge and a new folder: continual merge MODEL MODEL --out DIR.")
    from continual.merge.folders import merge_folders
    from continual.stream.sample import read_sample

    call: dict[str, Any] = {"method": method, "base": base, "weights": parse_weights(weights)}
    call |= {"parameters": parse_parameters(parameter), "seed": seed, "dtype": dtype, "workers": workers}
    samples = [read_sample(str(file)) for file in texts or ()]
    call["texts"] = [sample.texts for sample in samples] or None
    with Bars() as bars:
        target = merge_folders(models, out, **call, progress=bars)
    if json:
        print_json(render.merged_json(target))
        return
    for file, sample in zip(texts or (), samples, strict=True):
        render.print_sample(str(file), sample)
    render.print_merged(models, method, target)
