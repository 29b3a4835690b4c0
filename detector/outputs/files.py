"""Files of outputs (`outputs.jsonl`) and of scored outputs (`scored.jsonl`), read strictly, written whole.

A line is a JSON object (`detector.outputs.lines`); the format is in docs/outputs.md. Reading is bounded in
bytes a line and in lines. Files are readable by their owner alone: answers stay on the machine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from errno import ELOOP
from pathlib import Path

from detector.outputs.interface import BadOutputsError, Output, ScoredOutput
from detector.outputs.lines import dump_line, load_line

MAX_LINE = 8 << 20
"""Bytes: 16,384 tokens scored under the authentic model and thirty forks."""
MAX_LINES = 1_000_000
_BEGINNING = b'{"prompt_id":'


def read_entries(path: Path) -> Iterator[Output | ScoredOutput]:
    """The lines of a file, one after the other; empty lines are skipped.

    Raises:
        BadOutputsError: it cannot be read, is too large, or a line breaks the format; says which.
    """
    try:
        with path.open("rb") as file:
            for count, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
                if count > MAX_LINES or len(line) > MAX_LINE:
                    what = f"longer than {MAX_LINE >> 20} MiB" if count <= MAX_LINES else "one too many"
                    raise BadOutputsError(f"{path}: line {count} is {what}")
                if not line.strip():
                    continue
                try:
                    entry = load_line(line)
                except BadOutputsError as error:
                    raise BadOutputsError(f"{path}: line {count}: {error}") from error
                yield entry
    except OSError as error:
        raise BadOutputsError(f"{path}: {error.strerror}") from error


def read_outputs(path: Path) -> tuple[Output, ...]:
    """All outputs of a file, with scores or without, in order.

    Raises:
        BadOutputsError: it cannot be read, a line breaks the format, or there is none.
    """
    found = tuple(entry.output if isinstance(entry, ScoredOutput) else entry for entry in read_entries(path))
    if not found:
        raise BadOutputsError(f"{path}: no output")
    return found


def read_scored(path: Path) -> tuple[tuple[ScoredOutput, ...], tuple[Output, ...]]:
    """The outputs of a file that have scores, and those that have none, such as refusal probes.

    Raises:
        BadOutputsError: it cannot be read, a line breaks the format, there is none, or two lines were scored
            by different releases.
    """
    entries = tuple(read_entries(path))
    if not entries:
        raise BadOutputsError(f"{path}: no output")
    scored = tuple(entry for entry in entries if isinstance(entry, ScoredOutput))
    if len({entry.scorer for entry in scored}) > 1:
        raise BadOutputsError(f"{path}: scored by more than one release")
    return scored, tuple(entry for entry in entries if isinstance(entry, Output))


def write_entries(path: Path, entries: Iterable[Output | ScoredOutput]) -> int:
    """Write a file for its owner alone, whole or not at all.

    Returns:
        How many lines it has.

    Raises:
        BadOutputsError: it cannot be written.
    """
    count = 0
    try:
        descriptor, part = tempfile.mkstemp(prefix=".outputs-", dir=path.absolute().parent)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                for entry in entries:
                    file.write(dump_line(entry))
                    count += 1
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(part).unlink()
            raise
    except OSError as error:
        raise BadOutputsError(f"{path}: {error.strerror}") from error
    return count


class Growing:
    """A file that outputs are added to, each whole at once; what is there stays but for an unfinished end."""

    def __init__(self, path: Path, subject: str) -> None:
        """Open it, or make it.

        Args:
            path: no symbolic link: what it points to is not ours to add to, or to close to others.
            subject: digest of what is asked; every output says it.

        Raises:
            BadOutputsError: it cannot be opened, or what is there is no file of outputs of this subject.
        """
        self._path, self._subject = path, subject
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
            try:
                self.known = self._resume()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            what = "is a symbolic link" if error.errno == ELOOP else error.strerror
            raise BadOutputsError(f"{path}: {what}") from error

    known: tuple[Output, ...]
    """What the file held when it was opened."""

    def close(self) -> None:
        """No more is added."""
        os.close(self._descriptor)

    def add(self, output: Output) -> None:
        """Append one.

        Raises:
            BadOutputsError: it cannot be written.
        """
        self._write(dump_line(replace(output, subject=self._subject)))

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise BadOutputsError(f"{self._path}: {error.strerror}") from error

    def _resume(self) -> tuple[Output, ...]:
        """What is there. A last line without an end is finished, or dropped if it is the beginning of one."""
        size = os.fstat(self._descriptor).st_size
        tail = os.pread(self._descriptor, MAX_LINE, max(0, size - MAX_LINE))
        tail = tail[tail.rfind(b"\n") + 1 :]
        if tail and _is_line(tail):
            self._write(b"\n")
        elif tail and (tail.startswith(_BEGINNING) or _BEGINNING.startswith(tail)):
            os.ftruncate(self._descriptor, size - len(tail))
        entries = read_entries(self._path)
        known = tuple(entry.output if isinstance(entry, ScoredOutput) else entry for entry in entries)
        if any(one.subject != self._subject for one in known):
            raise BadOutputsError(
                f"{self._path}: holds outputs of another model or endpoint; take another file"
            )
        os.fchmod(self._descriptor, 0o600)
        return known


def _is_line(raw: bytes) -> bool:
    try:
        load_line(raw)
    except BadOutputsError:
        return False
    return True
