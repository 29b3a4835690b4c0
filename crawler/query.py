"""What is asked of a model listing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Order(StrEnum):
    """Orders of a model listing, newest first. `CREATED` is stable while pages are read; `MODIFIED` moves."""

    CREATED = "createdAt"
    MODIFIED = "lastModified"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """One model listing. All conditions must hold."""

    tags: tuple[str, ...] = ()
    search: str | None = None
    """Substring of the repository's id."""
    author: str | None = None
    parameters: tuple[int, int] | None = None
    """Least and greatest parameter count."""
    order: Order = Order.CREATED
