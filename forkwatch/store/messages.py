"""What somebody is told, and who decides that: for code that keeps verdicts and needs no outbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.scan import ScanDocument, VerdictLabel


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What somebody is told."""

    kind: str
    """`verdict`, `upstream`, `stalled`."""
    key: str
    """Two with one key are one."""
    payload: Mapping[str, Any]
    """JSON values; hostile text."""
    id: int = 0
    attempts: int = 0


Rules = Callable[[ScanDocument, VerdictLabel | None], Sequence[Message]]
"""A verdict that is about to be kept, and the label that it replaces: what to tell."""


def no_rules(_document: ScanDocument, _before: VerdictLabel | None) -> Sequence[Message]:
    """Nobody is told anything."""
    return ()
