"""A static file server on loopback, for looking at the site."""

from __future__ import annotations

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from forkwatch.cli.output import data
from forkwatch.errors import SettingsError


class _Quiet(SimpleHTTPRequestHandler):
    """Headers a static host should set; no log line a request."""

    def end_headers(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Nothing."""


def serve_folder(folder: Path, port: int) -> None:
    """Serve `folder` on 127.0.0.1 until interrupted; prints the address first."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Quiet, directory=str(folder)))
    except OSError as error:
        raise SettingsError(f"port {port}: {error.strerror}", tip="Choose another with --port.") from error
    with server:
        data(f"http://127.0.0.1:{server.server_address[1]}/")
        server.serve_forever()
