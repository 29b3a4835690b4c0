"""Which files of a snapshot are its weights, when it ships several kinds."""

from __future__ import annotations

from pathlib import PurePosixPath

from crawler.interface import RepoFile, Snapshot
from detector.errors import NoWeightsError
from detector.formats import checkpoints, is_gguf

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_BESIDE = ("model.safetensors.index.json", "config.json")
"""The index of the shards, and what says how packed ones are read."""


def weight_files(snapshot: Snapshot) -> tuple[RepoFile, ...]:
    """The files that make one checkpoint: a PEFT adapter, else safetensors at the root, else one GGUF.

    Of several GGUF checkpoints the largest is taken: it is closest to the original, so an edit shows best.

    Raises:
        NoWeightsError: there is none of these.
    """
    root = [file for file in snapshot.files if PurePosixPath(file.path).parent == PurePosixPath()]
    names = {file.path for file in root}
    if {ADAPTER_CONFIG, ADAPTER_WEIGHTS} <= names:
        return tuple(file for file in root if file.path in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
    shards = tuple(file for file in root if file.path.endswith(".safetensors"))
    if shards:
        return shards + tuple(file for file in root if file.path in _BESIDE)
    ggufs = {file.path: file for file in snapshot.files if is_gguf(file.path)}
    if sets := checkpoints(ggufs):
        largest = max(sets, key=lambda paths: (sum(ggufs[path].size for path in paths), paths))
        return tuple(ggufs[path] for path in largest)
    raise NoWeightsError(f"{snapshot.repo} holds no safetensors, GGUF or PEFT adapter")
