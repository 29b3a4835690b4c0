"""How many bytes one repository may cost a client, however it is read: a poison repository ends there."""

from __future__ import annotations

from collections import Counter
from threading import Lock

from crawler.interface import BudgetExceededError, Snapshot


class ByteBudget:
    """Bytes asked for, by repository. Thread-safe."""

    def __init__(self, limit: int | None) -> None:
        """Set the limit.

        Args:
            limit: bytes of any one repository, over all its commits; None is no limit.
        """
        self._limit = limit
        self._spent: Counter[str] = Counter()
        self._lock = Lock()

    def take(self, snapshot: Snapshot, count: int) -> None:
        """Reserve bytes before they are requested.

        Raises:
            BudgetExceededError: the limit would be crossed; nothing was reserved.
        """
        key = _key(snapshot)
        with self._lock:
            spent = self._spent[key]
            if self._limit is not None and spent + count > self._limit:
                raise BudgetExceededError(
                    f"{snapshot.repo}: {count:,} bytes more, after {spent:,}, are over its budget of "
                    f"{self._limit:,}",
                    self._limit,
                )
            self._spent[key] += count

    def check(self, snapshot: Snapshot, count: int) -> None:
        """Refuse what `take` would refuse, before a part of it is requested. Raises as `take`."""
        self.take(snapshot, count)
        self.give_back(snapshot, count)

    def give_back(self, snapshot: Snapshot, count: int) -> None:
        """Free what was reserved and did not come."""
        with self._lock:
            self._spent[_key(snapshot)] -= count


def _key(snapshot: Snapshot) -> str:
    """A renamed repository keeps what it has spent."""
    return snapshot.object_id or snapshot.repo.casefold()
