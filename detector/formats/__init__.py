"""File formats: `open_weights` turns the files of a repository into a `WeightReader`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError, NoWeightsError
from detector.formats.gguf import GgufReader
from detector.formats.gguf_split import SplitGgufReader, checkpoints
from detector.formats.hints import NO_HINTS, Hints, read_hints
from detector.formats.peft import PeftReader, read_adapter_config
from detector.formats.safetensors import SafetensorsReader, read_index
from detector.interface import WeightReader

__all__ = [
    "GgufReader",
    "PeftReader",
    "SafetensorsReader",
    "SplitGgufReader",
    "checkpoints",
    "is_gguf",
    "is_weight_file",
    "open_adapter",
    "open_weights",
    "open_with_paths",
]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
CONFIGS = ("config.json", "quantize_config.json", "quant_config.json")
"""Where a quantisation describes itself; the first that is there counts."""
_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz")
_TRAINING = re.compile(r"(?:training_args|optimizer|scheduler|rng_state(?:_\d+)?|scaler)\.(?:bin|pt|pth)")
"""What a trainer leaves beside the weights."""


def is_weight_file(path: str) -> bool:
    """A file that may hold weights, in a format we read or not."""
    name = PurePosixPath(path).name.lower()
    return name.endswith(_SUFFIXES) and not _TRAINING.fullmatch(name)


def open_weights(files: Mapping[str, ByteSource]) -> WeightReader:
    """Open the checkpoint that transformers would load from these files.

    Full weights win over an adapter in the same folder; `open_adapter` finds that one. Safetensors win over
    GGUF, and the largest GGUF checkpoint over smaller ones, because it keeps most of the values; shards are
    read together. Only the shallowest folder with weights is looked at.

    Args:
        files: repository path → bytes; files that are not weights may be among them.

    Raises:
        NoWeightsError: no weights in a format we read.
        MalformedWeightsError: a file breaks its format, or a shard is missing.
        CrawlerError: the bytes could not be had.
    """
    return open_with_paths(files)[0]


def open_with_paths(files: Mapping[str, ByteSource]) -> tuple[WeightReader, tuple[str, ...]]:
    """As `open_weights`, and which of the files hold the weights that were opened, sorted."""
    folder = _folder(files)
    shards, places = _safetensors(folder)
    if shards:
        return SafetensorsReader(shards, _hints(folder), places), tuple(sorted(shards))
    if ggufs := checkpoints(path for path in folder if is_gguf(path)):
        largest = min(ggufs, key=lambda paths: (-sum(folder[path].size for path in paths), paths))
        if len(largest) > 1:
            return SplitGgufReader({path: folder[path] for path in largest}), tuple(sorted(largest))
        return GgufReader(largest[0], folder[largest[0]]), largest
    if adapter := open_adapter(files):
        return adapter, tuple(sorted(path for path in files if PurePosixPath(path).name == ADAPTER))
    raise NoWeightsError("no safetensors, GGUF or PEFT adapter file")


def open_adapter(files: Mapping[str, ByteSource]) -> PeftReader | None:
    """The PEFT adapter among these files, if there is one.

    transformers applies it on top of full weights in the same folder, so it is never to be overlooked.

    Raises:
        MalformedWeightsError: the adapter breaks its format.
    """
    found = sorted(
        (path for path in files if PurePosixPath(path).name == ADAPTER),
        key=lambda path: (path.count("/"), path),
    )
    if not found:
        return None
    config_path = str(PurePosixPath(found[0]).with_name(ADAPTER_CONFIG))
    if config_path not in files:
        raise MalformedWeightsError(f"{found[0]}: no {ADAPTER_CONFIG} beside it")
    config = read_adapter_config(files[config_path], config_path)
    return PeftReader({found[0]: files[found[0]]}, config)


def _folder(files: Mapping[str, ByteSource]) -> dict[str, ByteSource]:
    """The files of the shallowest folder that holds full weights, by their path."""
    weights = [path for path in files if _is_full_safetensors(path) or is_gguf(path)]
    if not weights:
        return {}
    parents = {PurePosixPath(path).parent for path in weights}
    shallowest = min(parents, key=lambda parent: (len(parent.parts), str(parent)))
    return {path: source for path, source in files.items() if PurePosixPath(path).parent == shallowest}


def _safetensors(folder: Mapping[str, ByteSource]) -> tuple[dict[str, ByteSource], dict[str, str]]:
    """The files that transformers would load, and which tensor the index, if it counts, has in which."""
    by_name = {PurePosixPath(path).name: path for path in folder}
    if SINGLE in by_name:
        return {by_name[SINGLE]: folder[by_name[SINGLE]]}, {}
    if INDEX in by_name:
        index = by_name[INDEX]
        places = read_index(folder[index], index)
        shards = sorted(set(places.values()))
        if missing := [shard for shard in shards if shard not in by_name]:
            raise MalformedWeightsError(f"{index}: shard {missing[0][:120]!a} is missing")
        paths = {shard: by_name[shard] for shard in shards}
        return {path: folder[path] for path in paths.values()}, {
            name: paths[shard] for name, shard in places.items()
        }
    paths_found = sorted(path for path in folder if _is_full_safetensors(path))
    preferred = [path for path in paths_found if PurePosixPath(path).name.startswith("model")]
    return {path: folder[path] for path in preferred or paths_found}, {}


def _hints(folder: Mapping[str, ByteSource]) -> Hints:
    by_name = {PurePosixPath(path).name: path for path in folder}
    found = (read_hints(folder[by_name[name]]) for name in CONFIGS if name in by_name)
    return next((hints for hints in found if hints.method or hints.bits or hints.block), NO_HINTS)


def _is_full_safetensors(path: str) -> bool:
    name = PurePosixPath(path).name
    return name.endswith(".safetensors") and not name.startswith("adapter_")


def is_gguf(path: str) -> bool:
    """Of a language model: a projector beside it is a vision tower's."""
    name = PurePosixPath(path).name.lower()
    return name.endswith(".gguf") and "mmproj" not in name
