"""The commands that make pairs better before a model learns them: mine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app
from continual.cli.options import JsonOption, SettingOption, WorkspaceOption, open_workspace, print_json
from continual.cli.parse import parse_settings


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
