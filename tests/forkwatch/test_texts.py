"""Files beside the weights: tokenizers and embedded templates count as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from tests.forkwatch.conftest import RELEASE, World

FORK = "someone/tiny-chat-copy"


def release_files(family: Path) -> dict[str, bytes | Path]:
    folder = family / "repos" / RELEASE
    return {path.name: path for path in folder.iterdir()}


def kinds(document: dict[str, Any]) -> set[str]:
    return {edit["kind"] for edit in document["edits"]}


def test_changed_vocabulary_is_a_configuration_change(world: World, family: Path) -> None:
    """Two words that swap their ids leave weights and templates as they were, and change the answers."""
    files = release_files(family)
    tokenizer = json.loads((family / "repos" / RELEASE / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.__getitem__)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    document = world.scan_files(FORK, {**files, "tokenizer.json": json.dumps(tokenizer).encode()})

    assert "config-change" in kinds(document)
    assert any("tokenizer.json" in json.dumps(edit) for edit in document["edits"])


def test_resaved_vocabulary_is_no_change(world: World, family: Path) -> None:
    """Other white space and a padding rule that a training run left are not other tokens."""
    tokenizer = json.loads((family / "repos" / RELEASE / "tokenizer.json").read_text())
    tokenizer["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_id": 0}
    resaved = json.dumps(tokenizer, indent=4).encode()

    document = world.scan_files(FORK, {**release_files(family), "tokenizer.json": resaved})

    assert kinds(document) == {"identical"}


def test_template_inside_a_gguf_is_compared(world: World, family: Path) -> None:
    """A GGUF carries the chat template that its users get; another one than the original's is named."""
    source = next((family / "repos/demo/tiny-chat-GGUF").glob("*.gguf"))
    content = bytearray(source.read_bytes())
    field = GGUFReader(source).fields["tokenizer.chat_template"]
    start = bytes(content).index(bytes(field.parts[-1]))
    content[start + len(field.parts[-1]) // 2] ^= 1

    document = world.scan_files(FORK, {source.name: bytes(content), "README.md": b"Quantised.\n"})

    assert "template-change" in kinds(document)


def test_template_of_the_family_s_gguf_is_the_original_s(world: World, family: Path) -> None:
    """The faithful conversion carries the very template of the release."""
    source = next((family / "repos/demo/tiny-chat-GGUF").glob("*.gguf"))

    document = world.scan_files(FORK, {source.name: source, "README.md": b"Quantised.\n"})

    assert "template-change" not in kinds(document)
