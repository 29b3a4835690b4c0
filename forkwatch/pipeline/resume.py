"""A comparison that was interrupted goes on where it was: its journal lies in the state folder meanwhile."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detector.journal import Journal, open_journal
from forkwatch.pipeline.context import Talk
from forkwatch.pipeline.sides import Opened
from forkwatch.state import StateDir

KEPT_SECONDS = 30 * 86_400
"""Journals of comparisons that nobody took up again are dropped after a month."""


@contextmanager
def journal_of(state: StateDir, base: Opened, fork: Opened, talk: Talk) -> Iterator[Journal | None]:
    """The journal of a comparison; removed when the block ends well, kept when it does not.

    None where the state folder cannot be written to: the comparison is made all the same.
    """
    # Headers would not do: two fine-tunes of one architecture have the same, over other values.
    identity = "\n".join((*base.checkpoint.identity, "\0", *fork.checkpoint.identity))
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    path = state.journals / f"{name}.jsonl"
    try:
        state.journals.mkdir(parents=True, exist_ok=True, mode=0o700)
        _drop_old(state.journals)
        journal = open_journal(path, base.reader, fork.reader, name)
    except OSError as error:
        talk.note(f"{state.journals}: {error.strerror}; an interrupted comparison starts again")
        yield None
        return
    with journal:
        if known := len(journal.records()):
            talk.note(f"{known:,} tensors are known from an interrupted run")
        yield journal
    path.unlink(missing_ok=True)
    with suppress(OSError):  # another comparison's journal is in it
        state.journals.rmdir()


def _drop_old(folder: Path) -> None:
    oldest = time.time() - KEPT_SECONDS
    for path in folder.glob("*.jsonl*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()
