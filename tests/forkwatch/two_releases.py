"""A Hub with two signed releases of one shape and a fork of the first; the tests of lineage start from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detector.provenance.sign import generate_key, sign_release
from forkwatch.demo.hub import LoopbackHub
from tests.detector import zoo
from tests.detector.zoo import Weights, safetensors_bytes
from tests.forkwatch.family import CONFIG, Family, card

FIRST, SECOND = "lab/First-1B", "lab/Second-1B"
BASES = {FIRST: 1, SECOND: 2}


def publish(hub: LoopbackHub, repo: str, weights: Weights, *bases: str) -> str:
    """A repository with a card and one weight file; its commit."""
    hub.create_repo(repo)
    files = {
        "README.md": card(*bases),
        "config.json": CONFIG,
        "model.safetensors": safetensors_bytes(weights),
    }
    return str(hub.commit(repo, files))


@contextmanager
def two_releases(tmp_path: Path) -> Iterator[Family]:
    """Two guarded releases, and one fork of the first."""
    hub = LoopbackHub()
    with hub:
        made = Family(hub, tmp_path / "state")
        for repo, seed in BASES.items():
            folder = tmp_path / repo
            folder.mkdir(parents=True)
            (folder / "config.json").write_bytes(CONFIG)
            (folder / "model.safetensors").write_bytes(safetensors_bytes(zoo.base(seed)))
            (tmp_path / f"key{seed}").mkdir()
            keys = generate_key(tmp_path / f"key{seed}")
            sign_release(folder, keys.private)
            hub.create_repo(repo)
            hub.commit(repo, {path.name: path for path in folder.iterdir()})
            added = made.run("release", "add", repo, "--public-key", str(keys.public))
            assert added.exit_code == 0, added.stderr
        publish(hub, "ann/tuned", zoo.dense(zoo.base(1), 5, 0.05), FIRST)
        yield made
