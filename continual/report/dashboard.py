"""The dashboard's web server: a few GET routes, for this machine only."""

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
"""Allowed values of the Host header. Other values are rejected, to prevent DNS rebinding by other sites."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""Content security policy of responses that aren't pages."""


def make_app(board: Board) -> Starlette:
    """Return the application: the page at `/`, its state at `/live`, the data at `/report.json` and `/report.csv`."""

    def page(_: Request) -> Response:
        current = board.page()
        policy = f"{current.policy}; frame-ancestors 'none'"
        return Response(current.html, media_type="text/html", headers=HEADERS | {"Content-Security-Policy": policy})

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
        port: Port on 127.0.0.1; 0 takes any free port.
        open_browser: Whether to open the dashboard in the default browser.
        say: Called with the address once the server accepts connections.

    Raises:
        InputError: The port is taken, reserved, or out of range.
    """
    if not 0 <= port <= 65535:
        raise InputError(
            f"Port {port} is out of range. Choose a port from 0 to 65535 with --port; 0 takes any free port."
        )
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"The dashboard can't use port {port} on {HOST}: {error.strerror}. Choose another port "
                "with --port; 0 takes any free port."
            ) from None
        listener.listen()
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        say(address)
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(make_app(board), log_level="warning", access_log=False, lifespan="off", ws="none")
        uvicorn.Server(config).run(sockets=[listener])


def _plain(response: Response) -> Response:
    response.headers.update(HEADERS | {"Content-Security-Policy": DATA_POLICY})
    return response
