"""Which files of a folder a loader could take something from: a signature that leaves one out says little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CLIENT_CACHE = PurePosixPath(".cache/huggingface")
"""Bookkeeping that `hf download --local-dir` leaves in the folder; nothing is loaded from it."""

_LOADED_SUFFIXES = (
    *(".safetensors", ".gguf", ".ggml", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"),
    *(".h5", ".keras", ".msgpack", ".npz", ".npy", ".onnx", ".pb"),
    *(".json", ".jsonl", ".yaml", ".yml", ".jinja", ".jinja2"),
    *(".model", ".spm", ".bpe", ".tiktoken", ".txt"),
    *(".py", ".so"),
)
_LEGAL_TEXTS = ("license", "licence", "notice", "use_policy", "acceptable_use", "copying", "citation")


def files_below(folder: Path) -> Iterator[str]:
    """Relative paths of all files of a release folder, without git's and the Hub client's bookkeeping."""
    for path in folder.rglob("*"):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        bookkeeping = relative.parts[0] in {".git", ".github"} or relative.is_relative_to(CLIENT_CACHE)
        if not bookkeeping and not path.is_dir():
            yield str(relative)


def is_loaded(path: str) -> bool:
    """Whether a loader could take weights, configuration, vocabulary, a template or code from the file."""
    name = PurePosixPath(path.lower())
    legal = name.suffix == ".txt" and name.name.startswith(_LEGAL_TEXTS)
    return name.suffix in _LOADED_SUFFIXES and not legal
