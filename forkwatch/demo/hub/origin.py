"""One HTTP origin on a loopback port, and how a reply leaves through its socket, faults included."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from threading import Event, Lock, Thread

from forkwatch.demo.hub.wire import BlobSlice, Reply, Request, error_reply

_HOST = "127.0.0.1"
BODY_LIMIT = 64 << 20
"""Bytes. A commit carries its files."""
_LENGTH = re.compile(r"\d{1,9}", re.ASCII)
_JOIN_SECONDS = 30.0
_DRIP_SECONDS = 0.05

Answer = Callable[[Request], Reply]


class Origin:
    """A listening server with a thread per connection.

    `stop` ends every connection, stalled ones too, and joins every thread. An error in an answer is ours: it
    is kept in `errors` for the owner, and the client gets 500.
    """

    def __init__(self, answer: Answer) -> None:
        self._server = _Server(answer)
        self._thread: Thread | None = None
        self.url = f"http://{_HOST}:{self._server.server_address[1]}"

    @property
    def errors(self) -> list[BaseException]:
        """What went wrong on our side while answering."""
        return self._server.errors

    def start(self) -> None:
        """Answer requests until `stop`."""
        self._thread = Thread(
            target=self._server.serve_forever, args=(0.02,), name=f"origin {self.url}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until no thread and no socket is left."""
        self._server.stopping.set()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join(_JOIN_SECONDS)
        self._server.disconnect()
        self._server.server_close()


class _Server(TCPServer):
    """Threads and sockets, tracked so that all of them can be ended."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.stopping = Event()
        self.errors: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._threads: list[Thread] = []
        self._tracking = Lock()
        super().__init__((_HOST, 0), _Handler)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]  # typeshed also allows UDP
        thread = Thread(target=self._converse, args=(request, client_address), daemon=True)
        with self._tracking:
            self._open.add(request)
            self._threads = [*(known for known in self._threads if known.is_alive()), thread]
            thread.start()

    def _converse(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        try:
            with contextlib.suppress(ConnectionError):  # the client went away
                self.finish_request(request, client_address)
        finally:
            with self._tracking:
                self._open.discard(request)
            self.shutdown_request(request)

    def disconnect(self) -> None:
        """End all conversations."""
        with self._tracking:
            for connection in self._open:
                _hang_up(connection)
            threads = self._threads
        for thread in threads:
            thread.join(_JOIN_SECONDS)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer was faster
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Reads requests, sends replies, keeps the connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        """Say nothing: a test or a demo owns stderr."""

    def version_string(self) -> str:
        return "loopback-hub"

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not _LENGTH.fullmatch(length) or int(length) > BODY_LIMIT:
            self.close_connection = True  # the body is not read, so the stream is out of step
            self._send(error_reply(413, "Request body too large"))
            return
        request = Request(self.command, self.path, headers, self.rfile.read(int(length)))
        self._send(self._answer(request))

    def _answer(self, request: Request) -> Reply:
        try:
            return self.server.answer(request)
        except Exception as error:  # noqa: BLE001  # edge of the thread: kept for the owner, who raises it
            self.server.errors.append(error)
            return error_reply(500, "Internal error of the loopback hub")

    def _send(self, reply: Reply) -> None:
        if reply.transport == "reset":
            self._reset()
        elif reply.transport == "stall":
            self.close_connection = True
            self.server.stopping.wait(reply.seconds)
        else:
            self._send_headers(reply)
            if self.command != "HEAD" and self._send_body(reply) < reply.length:
                self.close_connection = True

    def _send_headers(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in (*reply.headers, ("Content-Length", str(reply.length))):
            self.send_header(name, "".join(char if " " <= char <= "~" else "?" for char in value))
        self.end_headers()

    def _send_body(self, reply: Reply) -> int:
        """Send the body, or what the fault leaves of it; the number of bytes sent."""
        sent = 0
        for piece in _pieces(reply):
            if reply.transport == "drip" and self.server.stopping.wait(reply.seconds or _DRIP_SECONDS):
                break
            self.wfile.write(piece)
            sent += len(piece)
        return sent

    def _reset(self) -> None:
        """Close with an RST: lingering for zero seconds drops what is unsent (socket(7))."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _pieces(reply: Reply) -> Iterator[bytes]:
    pieces = iter((reply.body,)) if isinstance(reply.body, bytes) else _stream(reply.body)
    match reply.transport:
        case "truncate":
            left = reply.length // 2
            for piece in pieces:
                yield piece[:left]
                left -= len(piece[:left])
        case "corrupt":
            first = next(pieces, b"")
            yield bytes(byte ^ 0xFF for byte in first[:1]) + first[1:]
            yield from pieces
        case "drip":
            yield from (piece[index : index + 1] for piece in pieces for index in range(len(piece)))
        case _:
            yield from pieces


def _stream(body: BlobSlice) -> Iterator[bytes]:
    """The blob's bytes; ends early when its file is gone, and the connection with it."""
    with contextlib.suppress(OSError):
        yield from body.blob.chunks(body.start, body.length)
