"""Hostile repositories through `forkwatch scan`: a finding and a verdict each, and nothing hides the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.forkwatch.conftest import RELEASE, World
from tests.hostile.build import gguf, imports, string, value

FORK = "someone/hostile"
ATTACK = "{{ ''.__class__.__mro__ }}"


def ids(document: dict[str, Any]) -> set[str]:
    return {finding["id"] for finding in document["findings"]}


def test_a_bad_name_does_not_hide_a_repository(world: World, family: Path) -> None:
    """A second spelling of a file is told; the file that loaders ask for is examined all the same."""
    files: dict[str, bytes | Path] = {path.name: path for path in (family / "repos" / RELEASE).iterdir()}
    document = world.scan_files(FORK, {**files, "Config.json": b"{}", "notes.txt": imports("os", "system")})
    assert {"colliding-names", "disguised-file", "unsafe-pickle", "identical"} <= ids(document)
    assert document["verdict"]["label"] == "unsafe-files"


def test_a_template_in_any_place_is_found(world: World) -> None:
    """One quantisation of two, a named template of its own file: each is read, and none is rendered."""
    poisoned = gguf([value("tokenizer.chat_template", 8, string(ATTACK))])
    files: dict[str, bytes | Path] = {
        "model-Q4.gguf": poisoned,
        "model-Q8.gguf": gguf([value("general.name", 8, string("x" * 1000))]),
        "additional_chat_templates/tools.jinja": ATTACK.encode(),
    }
    document = world.scan_files(FORK, files)
    found = [finding for finding in document["findings"] if finding["id"] == "unsafe-template"]
    paths = {evidence["value"] for finding in found for evidence in finding["evidence"]}
    assert paths == {"model-Q4.gguf#tokenizer.chat_template", "additional_chat_templates/tools.jinja"}
    assert document["verdict"]["label"] == "unsafe-files"
