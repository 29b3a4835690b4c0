"""The files of a checkpoint folder, and how to open them without being led elsewhere.

Links are refused, with one exception: the cache of `huggingface_hub` keeps a repository's content once, in
`models--org--name/blobs/`, and every snapshot folder links to it. A link from a snapshot into that very
`blobs` folder is followed; all others are not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from detector.provenance.coverage import is_bookkeeping


class RefusedFileError(OSError):
    """A file that is not opened: a link that leads elsewhere, a device, a pipe."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that a checkpoint is loaded from."""

    root: Path
    """Without links."""
    blobs: Path | None
    """Where links may lead: the `blobs` folder beside the snapshots of a Hub cache."""

    @classmethod
    def at(cls, path: Path) -> Folder:
        """The folder at `path`, which may itself be a link.

        Raises:
            OSError: it is not a folder, or not there.
        """
        root = path.resolve(strict=True)
        if not root.is_dir():
            raise NotADirectoryError(f"{path} is not a folder")
        repo = root.parent.parent
        cached = root.parent.name == "snapshots" and repo.name.startswith("models--")
        return cls(root, repo / "blobs" if cached else None)

    def files(self) -> Mapping[str, str]:
        """Relative path of every file, and why it cannot be used: empty for one that can be opened.

        A link to a folder is one entry, which cannot be used: a loader would follow it.

        Raises:
            OSError: a folder cannot be listed.
        """
        return dict(sorted(self._below()))

    def open(self, path: str) -> int:
        """A descriptor of a regular file that `files` lists. It is the caller's to close.

        Raises:
            RefusedFileError: it is, or has become, something else.
            OSError: it cannot be opened.
        """
        target = self.root / path
        if self.blobs is not None and target.is_symlink():
            target = Path(os.path.realpath(target))
            if target.parent != self.blobs:
                raise RefusedFileError("a link that leads out of the repository's cache")
        if target.is_symlink():
            raise RefusedFileError("a link")
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RefusedFileError("not a regular file")
        return descriptor

    def _below(self) -> Iterator[tuple[str, str]]:
        waiting = [""]  # no recursion: a folder can be deeper than Python's stack
        while waiting:
            prefix = waiting.pop()
            with os.scandir(os.path.join(self.root, prefix)) as entries:  # noqa: PTH118 - as in `files_below`
                for entry in entries:
                    path = f"{prefix}{entry.name}"
                    if is_bookkeeping(path):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/")
                    elif entry.is_symlink() and entry.is_dir():
                        yield path, "a link to a folder"
                    else:
                        yield path, ""
