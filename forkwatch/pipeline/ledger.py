"""Results that are computed once: look up the key, else compute, time, count and keep."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from pydantic import TypeAdapter

from forkwatch.pipeline.context import Context, StageDeferredError
from forkwatch.store.values import Spent, StageKey

T = TypeVar("T")


class Ledger:
    """The results of one snapshot against one release; remembers what it reused and when they were made."""

    def __init__(self, context: Context, repo: str, snapshot_id: int, root_digest: str) -> None:
        self._context = context
        self._repo = repo
        self._snapshot_id = snapshot_id
        self._root_digest = root_digest
        self.reused: list[str] = []
        self.computed: list[str] = []
        self.newest: datetime | None = None

    def once(self, stage: str, version: str, kind: TypeAdapter[T], compute: Callable[[], T]) -> T:
        """The stored result of a stage, or a newly computed and stored one.

        `version` names the stage's version and the parameters that change its result; `kind` reads
        the result back from the store.

        Raises:
            StageDeferredError: there is none, and this process leaves the stage to another.
        """
        key = StageKey(self._snapshot_id, self._root_digest, stage, version)
        stored = self._context.store.result(key, kind)
        if stored is not None:
            self.reused.append(stage)
            self._saw(stored[1])
            return stored[0]
        if stage in self._context.deferred:
            raise StageDeferredError(stage)
        self._context.talk.stage(self._repo, stage)
        began, before = time.monotonic(), self._context.hub.cost
        value = compute()
        spent = Spent(0.0, 0, 0)
        if self._context.costs:
            cost = self._context.hub.cost - before
            spent = Spent(round(time.monotonic() - began, 3), cost.requests, cost.bytes_downloaded)
        self.computed.append(stage)
        self._saw(self._context.store.put_result(key, kind, value, spent))
        return value

    def stored(self, stage: str, version: str, kind: TypeAdapter[T]) -> T | None:
        """The result of a stage if there is one; nothing is computed."""
        key = StageKey(self._snapshot_id, self._root_digest, stage, version)
        found = self._context.store.result(key, kind)
        return None if found is None else found[0]

    def spent(self) -> Spent:
        """What all results of this snapshot cost, whenever they were made."""
        return self._context.store.spent(self._snapshot_id, self._root_digest)

    def _saw(self, at: datetime) -> None:
        self.newest = at if self.newest is None else max(self.newest, at)
