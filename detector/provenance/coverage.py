"""Which files of a folder a loader could take something from: a signature that leaves one out says little."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CLIENT_CACHE = PurePosixPath(".cache/huggingface")
"""Bookkeeping that `hf download --local-dir` leaves in the folder; nothing is loaded from it."""

_PROSE_SUFFIXES = frozenset(
    (
        *(".md", ".rst", ".html", ".htm", ".pdf", ".bib", ".cff", ".log"),
        *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico", ".mp4", ".webm", ".mp3", ".wav"),
        *(".sig", ".asc", ".sha256", ".sha512", ".md5", ".pub", ".pem", ".crt"),
    )
)
"""Read by people, or about the files. Every other suffix is some loader's: formats outrun any list."""
_PROSE_NAMES = frozenset(
    (
        *("readme", "changelog", "changes", "authors", "contributors", "maintainers", "codeowners"),
        *(".gitattributes", ".gitignore", ".gitmodules", ".gitkeep", ".keep", ".mailmap"),
        *(".ds_store", ".directory", ".editorconfig", ".dockerignore"),
    )
)
"""Names without a suffix that are read by people, git or a desktop. Every other one is some loader's: Orbax
keeps weights in `d/<hash>`, Zarr in `0/0` beside `.zarray`, ONNX in files that are named like tensors."""
_LEGAL_TEXTS = ("license", "licence", "notice", "use_policy", "acceptable_use", "copying", "citation")


def files_below(folder: Path) -> Iterator[str]:
    """Relative paths of all files and links of a folder, without git's and the Hub client's bookkeeping.

    Raises:
        OSError: a folder cannot be listed, so that nobody knows what is in it.
    """
    waiting = [""]  # no recursion: a folder can be deeper than Python's stack
    while waiting:
        prefix = waiting.pop()
        with os.scandir(os.path.join(folder, prefix)) as entries:  # noqa: PTH118 - paths of many parts are slow
            for entry in entries:
                relative = f"{prefix}{entry.name}"
                if is_bookkeeping(relative):
                    continue
                # A link to a folder is not walked into: it counts as a file, which no manifest can cover.
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{relative}/")
                else:
                    yield relative


def is_bookkeeping(path: str) -> bool:
    """Whether it is git's or the Hub client's: no loader looks there."""
    return path.partition("/")[0] in {".git", ".github"} or f"{path}/".startswith(f"{CLIENT_CACHE}/")


def is_loaded(path: str) -> bool:
    """Whether a loader could take weights, configuration, vocabulary, a template or code from the file.

    In doubt it could: what is not prose, a picture, a legal text, a signature or a file of git's counts.
    """
    name = PurePosixPath(path.lower())
    if name.suffix in ("", ".txt"):
        return not name.name.startswith(_LEGAL_TEXTS) and name.name not in _PROSE_NAMES
    return name.suffix not in _PROSE_SUFFIXES
