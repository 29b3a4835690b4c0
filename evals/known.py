"""Answers of an original that were made before, found by a hash of all that they depend on.

The tier is not part of it: what a smaller tier asked is known in a larger one, which asks only the rest
(`EvalRequest.known`). The files hold raw answers and stay on the box.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from evals.interface import EvalRequest
from evals.wire import load_transcript, write_transcript

ENGINE: Final = "transformers-engine/2"
"""Changes when the same model may answer differently by our doing."""

_LIBRARIES = ("tokenizers", "torch", "transformers")


def answers_key(request: EvalRequest, *, original: str, suite: str, device: str) -> str:
    """Hex SHA-256 of what the original's answers depend on.

    Args:
        request: Seed and length; how many samples does not matter, as more are other ones beside them.
        original: Root digest of the release.
        suite: Digest of the suite.
        device: Where the model runs, `EvalResult.device`: another one rounds differently.
    """
    libraries = {name: _version(name) for name in _LIBRARIES}
    parts = [ENGINE, original, suite, request.max_new_tokens, request.seed, device, libraries]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True, slots=True)
class KnownAnswers:
    """A folder of transcripts by key."""

    folder: Path

    def find(self, key: str) -> Path | None:
        """The transcript kept under a key, whatever part of the suite it covers."""
        path = self._path(key)
        return path if path.is_file() else None

    def keep(self, key: str, transcript: Path) -> Path:
        """Keep a transcript; answers that are known already stay beside its own.

        Raises:
            EvaluationFailedError: it, or what is kept, is no transcript.
        """
        new = load_transcript(transcript)
        if (before := self.find(key)) is not None:
            old = load_transcript(before)
            longer = {
                name: max(old.sampled.get(name, ()), texts, key=len) for name, texts in new.sampled.items()
            }
            new = replace(new, greedy={**old.greedy, **new.greedy}, sampled={**old.sampled, **longer})
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, staging = tempfile.mkstemp(dir=self.folder)
        os.close(descriptor)
        write_transcript(Path(staging), new)
        return Path(staging).replace(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"
