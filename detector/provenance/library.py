"""The second opinion: `model_signing` verifies the same folder against the same bytes."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.provenance.coverage import CLIENT_CACHE
from detector.provenance.hashing import hash_file
from detector.provenance.interface import ManifestFile
from detector.provenance.refusal import refusing
from detector.provenance.trusted import TrustedSigner

if TYPE_CHECKING:
    from model_signing import hashing
    from model_signing._hashing.hashing import Digest


def verify_with_library(
    folder: Path, bundle: bytes, signer: TrustedSigner, *, signature: str
) -> Mapping[str, ManifestFile]:
    """Let model-signing 1.1.1 verify `folder` against exactly these bytes of bundle and trust.

    Which files there are, and whether they are the signed ones, is the library's decision; the bytes are read
    by `hash_file`, so that a release of hundreds of gigabytes is read once for both.

    Returns:
        The files that were hashed, by path.

    Raises:
        InvalidBundleError: it refuses, with its exception as the cause.
    """
    from model_signing import verifying

    seen: dict[str, ManifestFile] = {}
    with (
        tempfile.TemporaryDirectory(prefix="forkwatch-verify-") as private,
        # The library prints warnings to stdout, which is data in our programs, and logs through a deprecated
        # method, which a strict interpreter would turn into a refusal.
        contextlib.redirect_stdout(sys.stderr),
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),
        refusing(),
    ):
        copy = Path(private, "model.sig")
        copy.write_bytes(bundle)
        library = verifying.Config().set_hashing_config(_hashing(folder, signature, seen))
        signer.arm(library, Path(private))
        library.verify(folder, copy)
    return seen


def _hashing(folder: Path, signature: str, seen: dict[str, ManifestFile]) -> hashing.Config:
    """How the library is to hash a folder; `seen` is told what each file is."""
    from model_signing import hashing

    class Config(hashing.Config):  # type: ignore[misc]  # the library has no types for it
        # The hook that 1.1.1, our pin, has: `use_file_serialization` asks it for the reader of each file.
        def _build_file_hasher_factory(self, *_args: object, **_options: object) -> Callable[[Path], _Reader]:
            return lambda path: _Reader(folder, path, seen)

    # Explicit, so that a bundle cannot choose another hash, sharding, or to follow symbolic links.
    config = Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    config.set_ignored_paths(paths=[signature, str(CLIENT_CACHE)], ignore_git_paths=True)
    return config


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one file, where the library has a reader of its own."""

    folder: Path
    path: Path
    seen: dict[str, ManifestFile]

    @property
    def digest_name(self) -> str:
        return "sha256"

    def compute(self) -> Digest:
        """Called by several threads at once, for a file each.

        Raises:
            InvalidBundleError: it has become something else than a regular file.
        """
        from model_signing._hashing.hashing import Digest

        file = hash_file(self.folder, self.path.relative_to(self.folder).as_posix())
        self.seen[file.path] = file
        return Digest(self.digest_name, bytes.fromhex(file.sha256))
