"""One place that writes: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from forkwatch.text import plain


def stderr() -> Console:
    """A console on stderr as it is now (tests and pipes replace it)."""
    return Console(file=sys.stderr, soft_wrap=True, highlight=False, emoji=False)


def say(text: str) -> None:
    """One line to the reader."""
    stderr().print(escape(text))


def data(text: str) -> None:
    """A line of data."""
    sys.stdout.write(text + "\n")


def data_json(document: object) -> None:
    """A JSON document, on one line a field."""
    data(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table as data: what a person asked to see."""
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(escape(plain(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, highlight=False, width=width, emoji=False).print(shown)


@dataclass(slots=True)
class Progresses:
    """Progress bars on stderr; lines instead of bars when it is not a terminal."""

    bars: Progress | None
    _tasks: dict[str, TaskID] = field(default_factory=dict)

    def stage(self, repo: str, stage: str) -> None:
        """A stage begins."""
        self.note(f"{repo}: {stage}")

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the bar of `what`, and drop it when it is full."""
        if self.bars is None:
            return
        name = plain(what, 60)
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = self.bars.add_task(escape(name), total=total or None)
        self.bars.update(task, completed=done, total=total or None)
        if total and done >= total:
            self.bars.remove_task(self._tasks.pop(name))

    def note(self, text: str) -> None:
        """A line above the bars."""
        if self.bars is None:
            say(plain(text))
        else:
            self.bars.console.print(escape(plain(text)), highlight=False)


@contextmanager
def progress() -> Iterator[Progresses]:
    """Progress for the length of a command."""
    console = stderr()
    if not console.is_terminal:
        yield Progresses(None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield Progresses(bars)
