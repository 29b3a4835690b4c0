"""A signed release with forks found by each channel, on a loopback hub. Nothing is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from typer.testing import Result

from detector.provenance.sign import generate_key, sign_release
from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.conftest import invoke

RELEASE = "lab/Guarded-1B"
OLDER = "lab/Older-1B"
"""What the release itself declares as its base."""
CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()


def card(*bases: str, relation: str = "", tags: tuple[str, ...] = (), text: str = "# A model\n") -> bytes:
    """A model card."""
    lines = [f"base_model: {json.dumps(list(bases))}"] if bases else []
    lines += [f"base_model_relation: {relation}"] if relation else []
    lines += [f"tags: {json.dumps(list(tags))}"] if tags else []
    return "\n".join(["---", *lines, "---", text]).encode()


def weights(marker: int = 0, rows: int = 64) -> bytes:
    """A safetensors file with one tensor of `rows` × 4 numbers."""
    header = json.dumps(
        {"model.w.weight": {"dtype": "F32", "shape": [rows, 4], "data_offsets": [0, rows * 16]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes([marker]) * (rows * 16)


@dataclass(frozen=True)
class Family:
    """A hub, and a state folder that guards the release."""

    hub: LoopbackHub
    state: Path

    def run(self, *arguments: str, **environment: str) -> Result:
        """Run a command against this hub."""
        return invoke(self.state, *arguments, **{**self.environment(), **environment})

    def environment(self) -> dict[str, str]:
        """What leads a command to this hub; retries are off so that refusals come at once."""
        return {"FORKWATCH_HUB__ENDPOINT": self.hub.endpoint, "FORKWATCH_HUB__RETRIES": "0"}

    def fork(self, repo: str, readme: bytes, marker: int = 1) -> None:
        """Publish a model."""
        self.hub.create_repo(repo)
        self.hub.commit(
            repo, {"README.md": readme, "config.json": CONFIG, "model.safetensors": weights(marker)}
        )


def publish_release(hub: LoopbackHub, folder: Path) -> Path:
    """Put a signed release on the hub; the public key's file."""
    folder.mkdir()
    (folder / "README.md").write_bytes(card(OLDER))
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(weights())
    keys = generate_key(folder.parent)
    sign_release(folder, keys.private)
    hub.create_repo(OLDER)
    hub.commit(OLDER, {"README.md": card(), "config.json": CONFIG, "model.safetensors": weights(9)})
    hub.create_repo(RELEASE)
    hub.commit(RELEASE, {path.name: path for path in folder.iterdir()})
    return keys.public


def populate(family: Family) -> None:
    """Forks by each channel, and strangers."""
    family.fork("ann/tuned", card(RELEASE, relation="finetune"))
    family.fork("bob/abl", card(RELEASE, tags=("abliterated",)))
    family.fork("bob/abl-GGUF", card("bob/abl", relation="quantized"))
    family.fork("cyd/Guarded-1B-copy", card())
    family.fork("dan/heretical", card(OLDER, tags=("heretic",), text=f"decensored version of {RELEASE}\n"))
    family.fork("eve/gated", card(RELEASE))
    family.hub.set_access("eve/gated", gated=True)
    family.fork("zoe/stranger", card("other/thing"))


def change(family: Family) -> None:
    """What happened by the next crawl: one of each kind of event, and a new fork."""
    hub = family.hub
    hub.commit(
        "ann/tuned", {"README.md": card(RELEASE), "config.json": CONFIG, "model.safetensors": weights(7)}
    )
    hub.rename_repo("bob/abl", "bob/abliterated")
    hub.delete_repo("cyd/Guarded-1B-copy")
    hub.set_access("eve/gated", gated=False)
    hub.delete_repo("dan/heretical")
    family.fork("dan/heretical", card(RELEASE), marker=5)
    family.fork("fay/new", card(RELEASE))
