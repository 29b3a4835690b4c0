"""Small repositories for the loopback hub's tests."""

from __future__ import annotations

import json
import struct

from forkwatch.demo.hub import LoopbackHub

REPO = "demo/model"

CARD = b"""---
license: apache-2.0
base_model: lab/base
tags: [uncensored]
---
# A model
"""
CONFIG = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2}'


def safetensors(tensors: dict[str, tuple[int, ...]]) -> bytes:
    """A safetensors file of zeros in F32 with these shapes."""
    header: dict[str, dict[str, object]] = {}
    end = 0
    for name, shape in tensors.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(range(256)) * (end // 256) + bytes(end % 256)


WEIGHTS = safetensors({"embed": (64, 32), "head": (32,)})


def add_model(
    hub: LoopbackHub, repo: str = REPO, *, gated: bool = False, disabled: bool = False, private: bool = False
) -> str:
    """A repository with a card, a configuration, weights and a file in a folder; its commit id."""
    hub.create_repo(repo, gated=gated, disabled=disabled, private=private)
    files = {
        "README.md": CARD,
        "config.json": CONFIG,
        "model.safetensors": WEIGHTS,
        "extra/note.txt": b"note",
    }
    return hub.commit(repo, dict(files), message="Upload model\n\nAll of it.")
