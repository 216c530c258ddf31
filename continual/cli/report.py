"""The commands that show the report: report, dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from continual.cli.groups import app
from continual.cli.options import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)
from continual.errors import InputError
from continual.storage.terminal import say


@app.command()
def report(
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one self-contained HTML file.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="Write every chart as SVG, PNG and CSV, and a report.md."),
    ] = None,
    mteb: Annotated[
        Path | None,
        typer.Option("--mteb", metavar="DIR", help="Write the scores of every version as mteb's result files."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print every score as CSV.")] = False,
    joint: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION|DIR",
            help="Model trained on all domains at once, for intransigence: a version, or another workspace; by default "
            "eval.joint.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show gain, forgetting and cost, version by version."""
    from continual.cli.render import report as render

    if csv and json:
        raise InputError("--csv and --json print the same report in two formats. Choose one.")
    opened = open_workspace(workspace)
    found = opened.report(joint, full=html is not None or figures is not None)
    if html is not None:
        render.write_html(found, html)
    if json:
        print_json(found.to_json())
    elif csv:
        say(found.to_csv().removesuffix("\n"))
    else:
        render.print_report(found, html)
    if figures is not None:
        render.print_figures(opened.write_figures(figures, found), quiet=csv or json)
    if mteb is not None:
        render.print_mteb(opened.export_scores(mteb), quiet=csv or json)


@app.command()
def dashboard(
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Port on 127.0.0.1; 8765 by default, 0 for any free one.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Serve the report as a page that follows a running update.

    Only this machine can open the page, and it is read-only. Ctrl-C stops it.
    """

    def tell(address: str) -> None:
        print_json({"address": address}) if json else say(f"The dashboard is at {address} (Ctrl-C stops it)")

    open_workspace(workspace).dashboard(port, open_browser=open_browser, say=tell)
