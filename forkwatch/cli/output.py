"""One place that writes: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from forkwatch.text import plain


def stderr() -> Console:
    """A console on stderr as it is now (tests and pipes replace it)."""
    return Console(file=sys.stderr, soft_wrap=True, highlight=False, emoji=False)


class _Stdout(Console):
    """Rich would exit with 1 when the reader goes away, which is our code for a finding."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: `handled` places it."""
        raise BrokenPipeError


def stdout(width: int | None = None) -> Console:
    """A console on stdout as it is now; without colour unless it is a terminal."""
    return _Stdout(file=sys.stdout, highlight=False, emoji=False, width=width)


def say(text: str) -> None:
    """One line to the reader."""
    stderr().print(escape(text))


def data(text: str) -> None:
    """A line of data."""
    sys.stdout.write(text + "\n")


def data_json(document: object) -> None:
    """A JSON document, on one line a field. In ASCII: names in it are hostile, and a terminal may show it."""
    data(json.dumps(document, indent=2, allow_nan=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table as data: what a person asked to see."""
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(escape(plain(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 160
    stdout(width).print(shown)


def amount(done: float, total: float) -> str:
    """`12/40`, and `1.25/16.10 G` for what is counted in elements or bytes."""
    unit, scale = next(((u, s) for u, s in (("G", 1e9), ("M", 1e6)) if max(total, done) >= s), ("", 1.0))
    digits = 2 if unit else 0
    shown = f"{done / scale:.{digits}f}" + (f"/{total / scale:.{digits}f}" if total else "")
    return f"{shown} {unit}".rstrip()


class _Amount(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(amount(task.completed, task.total or 0))


@dataclass(slots=True)
class Progresses:
    """Progress bars on stderr; lines instead of bars when it is not a terminal."""

    bars: Progress | None
    every: float = 30.0
    """Seconds between two lines about something long, where there are no bars."""
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)
    _said: float = field(default_factory=time.monotonic)

    def stage(self, repo: str, stage: str) -> None:
        """A stage begins."""
        self.note(f"{repo}: {stage}")

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the bar of `what`, and drop it when it is full."""
        if self.bars is None:
            self._line(what, done, total)
            return
        name = plain(what, 60)
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = self.bars.add_task(escape(name), total=total or None)
        self.bars.update(task, completed=done, total=total or None)
        if total and done >= total:
            self.bars.remove_task(self._tasks.pop(name))

    def _line(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        began = self._began.setdefault(what, now)
        if now - self._said < self.every:
            return
        self._said = now
        left = (now - began) * (total - done) / done if done and total else 0.0
        eta = f", about {left / 60:.0f} min left" if left >= 60 else ""
        say(f"{plain(what, 60)}: {amount(done, total)}{eta}")

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
        _Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield Progresses(bars)
