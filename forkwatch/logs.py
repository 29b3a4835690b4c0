"""Logs of processes that nobody watches: one line an event, JSON unless a terminal reads it, on stderr.

Tokens are taken out, and control characters escaped: names of repositories are hostile, and a log is read on
a terminal.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

from forkwatch.text import plain

_SECRETS = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=://)[^/\s@]+:[^/\s@]+(?=@)|(?i:bearer)\s+\S+")
MAX_TEXT = 2000
"""Characters of one value."""


def redacted(text: str) -> str:
    """Without tokens, passwords in addresses and control characters."""
    return plain(_SECRETS.sub("[redacted]", text), MAX_TEXT)


def configure(*, json: bool | None = None, level: int = logging.INFO) -> None:
    """Set up structlog and the standard library's logging for a daemon or a worker."""
    import structlog  # commands of a person log nothing, and want `redacted`

    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _clean,
    ]
    render: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(render, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx2", "httpcore2", "apscheduler", "alembic"):  # the first two log signed addresses
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _clean(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redacted(value)
    return event
