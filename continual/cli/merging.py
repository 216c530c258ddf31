"""The command that merges any models, in or out of a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from continual.cli.app import app
from continual.cli.options import (
    JsonOption,
    ParameterOption,
    parse_parameters,
    print_json,
)


@app.command()
def merge(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="sentence-transformers folders, Hub ids, or PEFT adapters of the base."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", "-m", metavar="NAME", help="How; --list names the methods.")
    ] = "linear",
    base: Annotated[
        str | None, typer.Option("--base", "-b", metavar="MODEL", help="The model that the others come from.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="W,W,...", help="A weight for each model, with commas; 1 each by default.")
    ] = None,
    parameter: ParameterOption = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the methods that draw random numbers, from 0 up.")
    ] = 0,
    dtype: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Store as fp32, fp16 or bf16; by default as the models are.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Tensors merged at once; memory grows with it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder to make.")] = None,
    list_methods: Annotated[bool, typer.Option("--list", help="List the methods with their parameters.")] = False,
    json: JsonOption = False,
) -> None:
    """Merge models into one, tensor by tensor.

    Works on any sentence-transformers models of one architecture, outside a workspace too. Memory does not grow with
    their size. The result keeps pooling, prompts and tokenizer of the first, and its card names the parents.
    """
    from continual.cli import render_versions as render
    from continual.cli.bars import Bars
    from continual.errors import InputError

    if list_methods:
        from continual.merge.methods import methods

        print_json(render.methods_json(methods())) if json else render.print_methods(methods())
        return
    if not models or out is None:
        raise InputError("Name the models to merge and the folder to make: continual merge MODEL MODEL -o DIR.")
    from continual.merge.folders import merge_folders
    from continual.models.weights import weights_sha256

    with Bars() as bars:
        target = merge_folders(
            models,
            out,
            method=method,
            base=base,
            weights=_numbers(weights),
            parameters=parse_parameters(parameter),
            seed=seed,
            dtype=dtype,
            workers=workers,
            progress=bars,
        )
    if json:
        print_json({"directory": str(target), "sha256": weights_sha256(target)})
    else:
        what = f"{len(models)} models" if len(models) > 1 else "1 model"
        print(f"{what} merged by {method}: SentenceTransformer({str(target)!r}) loads the result.")


def _numbers(text: str | None) -> list[float] | None:
    from continual.errors import InputError

    if text is None:
        return None
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise InputError(f"--weights takes numbers with commas, such as 0.4,0.6; not {text!r}.") from None
