"""The commands that make pairs: mine and synthesize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app
from continual.cli.options import JsonOption, SettingOption, WorkspaceOption, open_workspace, print_json
from continual.cli.parse import parse_settings, parse_weights
from continual.storage.terminal import warn


@app.command()
def mine(
    domains: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DOMAIN]...", help="Domains whose rows get negatives; by default all."),
    ] = None,
    negatives: Annotated[
        int | None, typer.Option("--negatives", "-n", metavar="N", help="Most per row; by default mine.negatives, 7.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|DOMAIN", help="Passages beside the domain's own: a file, or another domain; repeatable."
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="V", help="Version that finds them; by default the current one.")
    ] = None,
    show: Annotated[
        int, typer.Option("--show", metavar="N", min=0, help="Print N queries of each domain with what was found.")
    ] = 0,
    setting: SettingOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Find hard negatives for a domain's rows among its passages.

    The current version searches the distinct positives of the domain for each query. Passages that score close to the
    positive are left out (mine.relative_margin), since they are often right as well. Never taken: a positive of the
    query, a passage of the same document, a near duplicate of the positive, and what an evaluation task holds. Updates
    use what was mined last.
    """
    from continual.cli.render import pairs as render

    opened = open_workspace(workspace)
    options: dict[str, Any] = {"domains": domains or None, "negatives": negatives, "corpora": corpus or None}
    options |= {"version": version, "show": show, "settings": parse_settings(setting)}
    found = []
    with Bars() as bars:
        for mined in opened.mine(**options, progress=bars):
            found.append(mined)
            if not json:
                render.print_mined(mined, opened.config.train.max_negatives)
    if json:
        print_json({"domains": [mined.to_json() for mined in found]})


@app.command()
def synthesize(
    passages: Annotated[
        str, typer.Argument(metavar="PASSAGES", help="File with a column of documents, or .txt with one per line.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Parquet file to write; by default NAME-synthetic.parquet."),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="extract|llm", help="Parts of the passages, or queries of a language model.")
    ] = "extract",
    per_passage: Annotated[int, typer.Option("--queries", metavar="N", min=1, help="Most queries per passage.")] = 2,
    consistency: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Keep a query if its passage is among the N nearest ones; 0: always."),
    ] = 20,
    version: Annotated[
        str | None, typer.Option(metavar="V", help="Version that ranks the passages; by default the current one.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Language model at the endpoint.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Endpoint with OpenAI's protocol; by default $OPENAI_BASE_URL or OpenAI's."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="NAME", help="Language of the queries; by default that of the passage.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with system.txt, query.txt and personas.txt of your own.")
    ] = None,
    at_once: Annotated[int, typer.Option("--at-once", metavar="N", min=1, help="Requests at a time.")] = 8,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop at this many tokens, of requests and answers.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(metavar="X", help="Stop at this much money; needs --prices.")
    ] = None,
    prices: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="Price of a million tokens of requests, and of answers.")
    ] = None,
    show: Annotated[int, typer.Option("--show", metavar="N", min=0, help="Print N pairs of the file.")] = 5,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write queries for passages that have none.

    The result is a file of pairs for `continual ingest`. Queries are filtered: those that copy the passage, that occur
    twice, that a task holds, or for which the current version does not find the passage. A language model is asked
    through any server with OpenAI's protocol; the key is read from $OPENAI_API_KEY. A killed call goes on where it
    stopped: answers are kept beside the file, and nothing is asked twice.
    """
    from continual.cli.render import pairs as render

    opened = open_workspace(workspace)
    options: dict[str, Any] = {"out": out, "method": method, "per_passage": per_passage, "consistency": consistency}
    options |= {"version": version, "model": model, "endpoint": endpoint, "language": language, "prompts": prompts}
    options |= {"at_once": at_once, "max_tokens": max_tokens, "max_cost": max_cost}
    options["prices"] = parse_weights(prices)
    try:
        with Bars() as bars:
            found = opened.synthesize(passages, **options, progress=bars)
    except KeyboardInterrupt:
        warn("interrupted. Run the same command again to continue.")
        raise typer.Exit(130) from None
    print_json(found.to_json()) if json else render.print_synthesis(found, show)
