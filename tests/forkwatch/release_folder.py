"""A release that nobody has signed, and the commands that a release team gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import Result

from tests.forkwatch.conftest import invoke
from tests.forkwatch.family import CONFIG, card, weights


def make_folder(tmp_path: Path) -> Path:
    """A release that nobody has signed."""
    release = tmp_path / "release"
    (release / "sub").mkdir(parents=True)
    (release / "README.md").write_bytes(card())
    (release / "config.json").write_bytes(CONFIG)
    (release / "model.safetensors").write_bytes(weights())
    (release / "sub" / "tokenizer.json").write_bytes(b"{}")
    (release / ".gitattributes").write_bytes(b"*.safetensors filter=lfs\n")
    return release


def sign(folder: Path, *arguments: str, **environment: str) -> Result:
    return invoke(folder.parent / "state", "release", "sign", str(folder), *arguments, **environment)


def shown(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def write_card(folder: Path, *arguments: str) -> Result:
    known = ("--license", "apache-2.0", "--intended-use", "Chat <script>alert(1)</script>")
    return invoke(folder.parent / "state", "release", "card", str(folder), *known, *arguments)
