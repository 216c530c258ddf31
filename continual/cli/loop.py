"""The commands of the weekly loop: init, ingest, update, status."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app
from continual.cli.options import (
    JsonOption,
    SettingOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)
from continual.cli.parse import parse_merge, parse_settings
from continual.errors import GateRefused, InputError
from continual.storage.terminal import warn


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the workspace.")] = Path(),
    base: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Base model: a sentence-transformers folder, a Hub id, or 'packaged' (all-MiniLM-L6-v2).",
        ),
    ] = "packaged",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code from the model folder.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make a workspace from a base model."""
    from continual.cli.render import workspace as render
    from continual.workspace import Workspace

    made = Workspace.init(workspace or directory, base, trust_remote_code=trust_remote_code)
    print_json(made.status().to_json()) if json else render.print_init(made.status(), base)


@app.command()
def ingest(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Parquet, JSONL, CSV or TSV files, folders of them, or hf:NAME[:CONFIG][:SPLIT]."
        ),
    ],
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="Domain of the rows; by default the name of the file.")
    ] = None,
    query_column: Annotated[str | None, typer.Option(metavar="C", help="Column with the query.")] = None,
    positive_column: Annotated[
        str | None, typer.Option(metavar="C", help="Column with the passage that answers the query, or with a list.")
    ] = None,
    negatives_column: Annotated[
        str | None, typer.Option(metavar="C", help="Column with a list of passages that don't answer it.")
    ] = None,
    doc_id_column: Annotated[
        str | None, typer.Option(metavar="C", help="Column with the id of the passage's document.")
    ] = None,
    score_column: Annotated[
        str | None,
        typer.Option(
            metavar="C", help="Column with a score or label of the pair; 'none' if no column is about the pair."
        ),
    ] = None,
    positive_at: Annotated[
        float | None, typer.Option(metavar="X", help="Least score of a positive pair; true counts as 1.")
    ] = None,
    negative_at: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest score of a negative pair, whose passage becomes a negative of the rows with the same query. "
            "Other rows below --positive-at are left out.",
        ),
    ] = None,
    score_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Smallest and largest possible score of graded pairs; by default those of the domain's last file, or "
            "of the scores in the file.",
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the texts of the passages, if the rows name them by id."),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the texts of the queries, likewise.")
    ] = None,
    quote: Annotated[
        bool | None,
        typer.Option(
            "--quote/--no-quote",
            help="Whether cells of CSV and TSV files may be quoted; by default in CSV only.",
            show_default=False,
        ),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(metavar="CHAR", help="Character between cells; by default ',' in CSV, a tab in TSV.")
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The first line is a row; columns are called 1, 2, ...")
    ] = False,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoding of text files, such as latin-1; by default utf-8.")
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the documents to hold out as the domain's task, 0 to 1; by default ingest.holdout, 0.1, "
            "for a new domain.",
        ),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder with corpus, queries and qrels to use as the domain's task, or its qrels file."
        ),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Licence of the data, such as cc-by-4.0; listed in model cards."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Kind of task the rows are for, set when the domain is new: retrieval (the default), reranking, sts, "
            "pair-classification, classification, clustering or graded. Rows of classification and clustering use only "
            "their own negatives; those of graded are pairs with a score.",
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Instruction before each query, set when the domain is new, such as 'Given a question, retrieve the "
            "passage that answers it'.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Add files of pairs to a domain, and hold some out as its task.

    Rows are checked. Duplicates and rows that leak into an evaluation task are left out. Ingesting the same file twice
    changes nothing.
    """
    from continual.cli.render import ingest as render
    from continual.stream import Columns, Dialect

    opened = open_workspace(workspace)
    columns = Columns(
        query=query_column,
        positive=positive_column,
        negatives=negatives_column,
        doc_id=doc_id_column,
        score=score_column,
        positive_at=positive_at,
        negative_at=negative_at,
        score_range=score_range,
    )
    options: dict[str, Any] = {"domain": domain, "columns": columns, "holdout": holdout, "task": task}
    options |= {"license": license, "kind": kind, "instruction": instruction, "corpus": corpus, "queries": queries}
    options["dialect"] = Dialect(quote=quote, delimiter=delimiter, header=not no_header, encoding=encoding)
    reports = []
    try:
        with Bars() as bars:
            for report in opened.ingest_files(files, **options, progress=bars):
                reports.append(asdict(report))
                if not json:
                    render.print_ingest(report, opened.registry.root)
    finally:
        if json and reports:
            print_json({"batches": reports})


@app.command()
def update(
    replay: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of each learned domain's rows to train on again, 0 to 1; by default replay.share, 0.3.",
        ),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Domain to learn, repeatable; by default all with new rows."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="current|base", help="Model that training starts from.")
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Merge rule: interpolate, search, self-positioning, running-mean, equal, opcm or a method of "
            "`continual merge --list`; or the weight of the update, above 0 and up to 1. By default merge.method and "
            "merge.weight.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed, 0 or more; 0 by default.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Recipe for this step: boom or sequential. It sets replay, merge and training; other options "
            "override it.",
        ),
    ] = None,
    setting: SettingOption = None,
    compatible: Annotated[
        bool,
        typer.Option(
            "--compatible",
            help="Train so that new queries keep working on the current index (train.anchor = current).",
        ),
    ] = False,
    mine: Annotated[
        bool, typer.Option("--mine", help="First find hard negatives for the new rows; see `continual mine`.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the rows and the cost, and change nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted update.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the interrupted update and start over.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Train on the new rows, score the result, and make it current unless the gate refuses it.

    One step: draw replay, train a LoRA adapter, fold it, merge it with the current version, evaluate. If the gate
    accepts the new version, it becomes current; if not, the exit code is 3.
    """
    from continual.cli.render import plan as render_plan
    from continual.cli.render import step as render

    if plan and (resume or restart):
        raise InputError("--plan is for a new update. Leave --resume and --restart out, or leave --plan out.")
    if plan and mine:
        raise InputError(
            "--plan changes nothing, so it can't mine. Leave --mine out, or run `continual mine` first: a plan counts "
            "the negatives that it found."
        )
    opened = open_workspace(workspace)
    options: dict[str, Any] = {"replay": replay, "domains": domain or None, "start": start, "seed": seed}
    options |= {"merge": parse_merge(merge), "recipe": recipe, "compatible": compatible, "mine": mine}
    options["settings"] = parse_settings(setting)
    try:
        with Bars() as bars:
            if plan:
                planned = opened.plan(**options, progress=bars)
            else:
                step = opened.update(**options, resume=resume, restart=restart, progress=bars)
    except KeyboardInterrupt:
        version = opened.status().interrupted
        hint = f" `continual update --resume` continues the update to {version}." if version else ""
        warn(f"interrupted.{hint}")
        raise typer.Exit(130) from None
    if plan:
        print_json(planned.to_json()) if json else render_plan.print_plan(planned)
        return
    print_json(step.to_json()) if json else render.print_step(step)
    if not step.passed:
        raise GateRefused(
            f"the gate refused {step.version.id}, so {step.parent.id} is still the current version. `continual report` "
            f"shows the scores; `continual promote {step.version.id}` overrules the gate."
        )


@app.command()
def status(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show the current version, and which rows are not learned yet."""
    from continual.cli.render import workspace as render

    found = open_workspace(workspace).status()
    print_json(found.to_json()) if json else render.print_status(found)
