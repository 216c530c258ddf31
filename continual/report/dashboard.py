"""The dashboard's web server: a few addresses that answer GET, on this machine only."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable
from contextlib import closing

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from continual.errors import InputError
from continual.report.board import Board

HOST = "127.0.0.1"
PORT = 8765

NAMES = [HOST, "localhost"]
"""Names that a request may call this server by: a page of another site that points its own name here is refused."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'"


def make_app(board: Board) -> Starlette:
    """Return the application: the page at `/`, its state at `/live`, the report as `/report.json` and `/report.csv`."""

    def page(_: Request) -> Response:
        shown = board.page()
        policy = f"{shown.policy}; frame-ancestors 'none'"
        return Response(shown.html, media_type="text/html", headers=HEADERS | {"Content-Security-Policy": policy})

    def live(_: Request) -> Response:
        return _plain(JSONResponse(board.state()))

    def as_json(_: Request) -> Response:
        report = board.report()
        return _plain(JSONResponse(report.to_json()) if report else PlainTextResponse("nothing to report yet", 404))

    def as_csv(_: Request) -> Response:
        report = board.report()
        if report is None:
            return _plain(PlainTextResponse("nothing to report yet", 404))
        return _plain(Response(report.to_csv(), media_type="text/csv"))

    routes = [Route("/", page), Route("/live", live), Route("/report.json", as_json), Route("/report.csv", as_csv)]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=NAMES)])


def serve(board: Board, port: int = PORT, *, open_browser: bool = False, say: Callable[[str], None] = print) -> None:
    """Serve the dashboard until it is interrupted.

    Args:
        board: What it shows.
        port: On 127.0.0.1; 0 takes any that is free.
        open_browser: Open it in the browser of this machine.
        say: Is told the address once it can be asked.

    Raises:
        InputError: The port is taken, or may not be used.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port takes a number from 0 to 65535, not {port}.")
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"Port {port} of {HOST} cannot be had: {error.strerror}. Choose another with --port; 0 takes any."
            ) from None
        listener.listen()
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        say(address)
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(make_app(board), log_level="warning", access_log=False, lifespan="off", ws="none")
        uvicorn.Server(config).run(sockets=[listener])


def _plain(response: Response) -> Response:
    response.headers.update(HEADERS | {"Content-Security-Policy": NOTHING})
    return response
