"""Signed checkpoints of a few files, and what is done to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detector.provenance.checkpoint import NotAuthenticError, verify_checkpoint
from detector.provenance.interface import Trust
from detector.provenance.sign import KeyPair, sign_release

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "chat_template.jinja": b"{{ messages }}",
    "tokenizer/tokenizer.json": b"{}",
    "README.md": b"# card",
    SHARDS[0]: bytes(range(256)) * 9000,
    SHARDS[1]: b"\x01" * 4096,
}


def make(folder: Path, keys: KeyPair) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sign_release(folder, keys.private)
    return folder


def flip(path: Path) -> None:
    """One byte, with the size and the time of modification that it had before."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def refusal(folder: Path, trust: Trust, cache: Path | None = None) -> NotAuthenticError:
    with pytest.raises(NotAuthenticError) as raised:
        verify_checkpoint(folder, trust, cache=cache)
    return raised.value
