"""Repositories for the discovery tests: a release with a known shape, and forks and strangers around it."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from crawler.client import HubClient
from crawler.discover import default_sources, describe, discover
from crawler.interface import Candidate, Channel, RepoId
from crawler.memory import InMemory
from crawler.sources.interface import Memory, Source
from crawler.walk import Discovery
from forkwatch.demo.hub import LoopbackHub
from tests.crawler.conftest import REPO

PARAMETERS = 4000


def weights(parameters: int = PARAMETERS) -> bytes:
    """A safetensors file of one tensor."""
    header = json.dumps(
        {"w": {"dtype": "U8", "shape": [parameters], "data_offsets": [0, parameters]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(parameters)


def put(
    hub: LoopbackHub,
    repo: str,
    card: str = "",
    prose: str = "",
    *,
    shape: tuple[str, int] | None = None,
    files: dict[str, bytes] | None = None,
    created: bool = False,
) -> None:
    """A repository with a card, and with weights if it has a shape."""
    if not created:
        hub.create_repo(repo)
    content = {"README.md": f"---\n{card}\n---\n{prose}\n".encode(), **(files or {})}
    if shape is not None:
        content["config.json"] = json.dumps({"model_type": shape[0]}).encode()
        content["model.safetensors"] = weights(shape[1])
    hub.commit(repo, content)


def release(hub: LoopbackHub, card: str = "base_model: lab/tiny-base") -> None:
    """The release, of architecture llama with `PARAMETERS`, made from `lab/tiny-base`."""
    put(hub, REPO, card, shape=("llama", PARAMETERS), created=True)


def crawl(
    client: HubClient, memory: Memory | None = None, sources: Sequence[Source] | None = None, **options: Any
) -> tuple[Memory, Discovery]:
    """One run with every channel; and what is remembered after it."""
    memory = InMemory() if memory is None else memory
    done = discover(client, describe(client, REPO), sources or default_sources(), memory, **options)
    return memory, done


def found(memory: Memory, channel: Channel | None = None) -> list[str]:
    """Candidates, or those of one channel, sorted."""
    return sorted(
        repo for repo, one in memory.members().items() if channel is None or channel in one.channels
    )


def member(memory: Memory, repo: str) -> Candidate:
    return memory.members()[RepoId(repo)]


def decensored(parent: str) -> str:
    """The sentence that the tools put on top of the card."""
    return f"# This is a decensored version of [{parent}](https://huggingface.co/{parent}), made at home"


def village(hub: LoopbackHub) -> None:
    """Forks by every channel, some that only a chain of channels finds, and decoys of every kind."""
    release(hub)
    put(hub, "lab/tiny-base", shape=("llama", PARAMETERS))
    put(hub, "q/child-of-late", "base_model: s/stated")
    put(hub, "d/child", "base_model: lab/tiny-chat\nbase_model_relation: adapter")
    put(hub, "d/grandchild", "base_model: d/child")
    put(hub, "d/great", "base_model: d/grandchild\ntags: [heretic]")
    put(hub, "t/tiny-chat-abliterated", "tags: [abliterated]")
    put(hub, "n/TinyChat-v2")
    put(hub, "s/stated", "tags: [heretic, uncensored]", decensored(REPO))
    put(hub, "s/of-a-fork", "tags: [heretic]", decensored("q/child-of-late"))
    put(
        hub,
        "s/inherits",
        "tags: [heretic]\nbase_model: lab/tiny-base",
        decensored(REPO),
        shape=("llama", PARAMETERS),
    )
    put(hub, "d/quiet", shape=("llama", PARAMETERS))
    put(hub, "x/shape", shape=("llama", PARAMETERS + 7))
    put(hub, "x/else", "tags: [heretic]", decensored("y/other"))
    put(hub, "x/foreign", "base_model: y/other", shape=("llama", PARAMETERS))
    put(hub, "x/sibling", "base_model: lab/tiny-base", shape=("llama", PARAMETERS))
    put(hub, "d/big", shape=("llama", 3 * PARAMETERS))
    put(hub, "d/not-mine", "base_model: y/other", shape=("llama", PARAMETERS))
    put(hub, "x/plain")


VILLAGE = {
    "d/child": {Channel.DECLARED},
    "d/grandchild": {Channel.DECLARED},
    "d/great": {Channel.DECLARED, Channel.TAG},
    "d/quiet": {Channel.NAMESPACE, Channel.SHAPE},
    "n/TinyChat-v2": {Channel.NAME},
    "q/child-of-late": {Channel.DECLARED},
    "s/inherits": {Channel.STATEMENT, Channel.TAG},
    "s/of-a-fork": {Channel.STATEMENT, Channel.TAG},
    "s/stated": {Channel.STATEMENT, Channel.TAG},
    "t/tiny-chat-abliterated": {Channel.TAG, Channel.NAME},
    "x/shape": {Channel.SHAPE},
}
"""What there is to find in the village, and the least channels that find it."""
