"""A server whose answers are written out one by one, for what the loopback hub cannot be made to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunked_off: bool = False
    """Announce no length: the body ends with the connection."""


@dataclass
class Liar:
    """A server whose answers are written out, by method (or *) and path."""

    url: str
    answers: dict[tuple[str, str], Answer]
    seen: list[tuple[str, str, str | None]]

    def answer(self, method: str, path: str) -> Answer:
        path = path.partition("?")[0]
        return self.answers.get((method, path)) or self.answers.get(("*", path)) or Answer(404)


@contextmanager
def lying() -> Iterator[Liar]:
    """A liar on a loopback port, while the context is open."""
    liar = Liar("", {}, [])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            liar.seen.append((self.command, self.path, self.headers.get("Authorization")))
            answer = liar.answer(self.command, self.path)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.chunked_off:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    liar.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield liar
    server.shutdown()
    thread.join()
    server.server_close()
