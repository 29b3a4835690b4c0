"""The digests of a file on the disk, all from one reading of it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from detector.errors import InvalidBundleError
from detector.provenance.interface import ManifestFile


def hash_file(folder: Path, path: str) -> ManifestFile:
    """Size, SHA-256 and git blob id of a regular file below `folder`, from the same bytes.

    Raises:
        InvalidBundleError: it is not a regular file, or a symbolic link.
        OSError: it cannot be read.
    """
    with os.fdopen(os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidBundleError(f"{path!a} is not a regular file")
        content = hashlib.sha256()
        # Git's object id is SHA-1 by definition; it is used to recognise a file, never to trust one.
        blob = hashlib.sha1(b"blob %d\0" % status.st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            content.update(chunk)
            blob.update(chunk)
    return ManifestFile(path, content.hexdigest(), status.st_size, blob.hexdigest())
