"""Releases that nobody signed: pinned by the hash of every file on first use, and held to it ever after.

What is covered: the copy that is opened later is, byte for byte and name for name, the one that was pinned.
What is not covered: who made that copy. A root digest leaves names out (OMS spec 1.0), so whole manifests are
compared, never root digests alone.
"""

from __future__ import annotations

from pathlib import Path

from detector.errors import InvalidBundleError
from detector.provenance.coverage import files_below
from detector.provenance.hashing import hash_file
from detector.provenance.interface import Manifest, root_digest


def pin_folder(folder: Path) -> Manifest:
    """The manifest of all files of a folder, without git's and the Hub client's bookkeeping.

    Raises:
        InvalidBundleError: there is no file, or one is a link or no regular file.
        OSError: a file cannot be read.
    """
    folder = folder.resolve()
    files = tuple(hash_file(folder, path) for path in sorted(files_below(folder)))
    if not files:
        raise InvalidBundleError("there is no file to pin")
    return Manifest(root_digest(tuple((file.path, file.sha256) for file in files)), files)


def differences(pinned: Manifest, found: Manifest) -> tuple[str, ...]:
    """Paths that are in one manifest only, or with other bytes; sorted, empty when all is as pinned."""
    before = {file.path: file for file in pinned.files}
    after = {file.path: file for file in found.files}
    return tuple(sorted(path for path in before | after if before.get(path) != after.get(path)))
