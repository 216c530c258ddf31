"""A server that speaks OpenAI's protocol and misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], str]
"""Status, headers and body of an answer."""


def completion(content: str) -> Reply:
    """Return the answer of a model."""
    message = {"role": "assistant", "content": content}
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
    return 200, {}, json.dumps(body)


def queries(*texts: str) -> Reply:
    """Return an answer with queries, as it was asked for."""
    traits = {"persona": "anyone", "type": "factual", "difficulty": "low", "length": "short", "language": "made-up"}
    return completion(json.dumps({"queries": [traits | {"query": text} for text in texts]}))


@dataclass
class Endpoint:
    """A running server.

    Attributes:
        url: Where it is.
        asked: How often each passage was asked for.
        answered: How often an answer with status 200 was sent, by passage.
        keys: The keys that requests had.
    """

    url: str
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)


@contextmanager
def serve(reply: Callable[[str, int], Reply | float]) -> Iterator[Endpoint]:
    """Run a server while the body runs.

    Args:
        reply: Returns the answer for a passage when it is asked for the n-th time, or seconds to stall.
    """
    found = Endpoint("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            passage = request["messages"][1]["content"].split("Passage:\n")[1].split("\n\n")[0]
            with lock:
                found.asked[passage] += 1
                number = found.asked[passage]
                found.keys.add(self.headers["Authorization"])
            answer = reply(passage, number)
            if isinstance(answer, float):
                time.sleep(answer)
                self.close_connection = True
                return
            status, headers, body = answer
            data = body.encode()
            try:
                self.send_response(status)
                for name, value in (
                    headers | {"Content-Length": str(len(data)), "Content-Type": "application/json"}
                ).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client was killed
                return
            if status == 200:
                with lock:
                    found.answered[passage] += 1

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
