"""`forkwatch.diff/1`: two checkpoints compared, whatever holds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from crawler.interface import ByteSource, parse_repo_id
from crawler.local import LocalFile
from detector.errors import NoWeightsError
from detector.interface import Diff
from forkwatch.errors import SettingsError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.document import edit_view
from forkwatch.pipeline.weight_files import weight_files
from reports.scan import EditView

_EDITS = TypeAdapter(tuple[EditView, ...])
_DIFF = TypeAdapter(Diff)


@dataclass(frozen=True, slots=True)
class PairDiff:
    """Two names and what differs."""

    base: str
    fork: str
    diff: Diff
    bytes_total: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The `forkwatch.diff/1` document; `edits`, `lineage` and `cost` as in `forkwatch.scan/1`."""
        whole = _DIFF.dump_python(self.diff, mode="json")
        edits = tuple(edit_view(edit) for edit in self.diff.edits)
        return {
            "schema": "forkwatch.diff/1",
            "base": self.base,
            "fork": self.fork,
            "lineage": {"claimed": None, "relation": None, **whole["lineage"]},
            "edits": _EDITS.dump_python(edits, mode="json"),
            "tensors": whole["tensors"],
            "cost": {
                "bytes_downloaded": self.diff.bytes_read,
                "bytes_total": self.bytes_total,
                "requests": 0,
                "seconds": round(self.seconds, 2),
            },
        }


def compare_pair(
    base: str,
    base_files: dict[str, ByteSource],
    fork: str,
    fork_files: dict[str, ByteSource],
    progress: Callable[[str, int, int], None],
) -> PairDiff:
    """Full diff of two sets of weight files.

    Raises:
        MalformedWeightsError: a file breaks its format.
    """
    from detector.diff import diff_weights
    from detector.formats import open_weights

    began = time.monotonic()
    diff = diff_weights(open_weights(base_files), open_weights(fork_files), progress=progress)
    total = sum(file.size for file in fork_files.values())
    return PairDiff(base, fork, diff, total, time.monotonic() - began)


def folder_files(folder: Path) -> dict[str, ByteSource]:
    """Weight files of a local folder.

    Raises:
        NoWeightsError: there are none.
    """
    wanted = ("*.safetensors", "*.gguf", "adapter_config.json", "config.json", "model.safetensors.index.json")
    paths = sorted({path for pattern in wanted for path in folder.glob(pattern)})
    if not any(path.suffix in (".safetensors", ".gguf") for path in paths):
        raise NoWeightsError(f"{folder} holds no safetensors or GGUF file")
    return {path.name: LocalFile(path) for path in paths}


def repo_files(context: Context, name: str) -> dict[str, ByteSource]:
    """Weight files of a repository, downloaded and verified. `name` may end in `@REVISION`."""
    repo, _, revision = name.partition("@")
    if "/" not in repo:
        raise SettingsError(f"{name} is neither a folder nor ORG/NAME", tip="Check the path.")
    snapshot = context.hub.snapshot(parse_repo_id(repo), revision or None)
    return {
        file.path: LocalFile(context.hub.download(snapshot, file.path, context.talk.progress))
        for file in weight_files(snapshot)
    }
