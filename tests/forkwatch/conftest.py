"""The demo, built and run once for all tests of the application; and an empty store with one release."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from forkwatch.cli.app import app
from forkwatch.demo.families.build import ensure_family
from forkwatch.demo.hub import LoopbackHub, load_family
from forkwatch.store.engine import open_engine
from forkwatch.store.models import Release
from forkwatch.store.store import Store
from tests.forkwatch.past import CREATED, Clock
from tests.forkwatch.samples import RELEASE as GUARDED

RELEASE = "lab/tiny-chat"


@dataclass(frozen=True)
class Demo:
    """A state folder in which `forkwatch demo --family tiny` has run, and what it printed."""

    state: Path
    document: dict[str, Any]
    exit_code: int
    stderr: str

    @property
    def family(self) -> Path:
        """Folder of the tiny family."""
        return next(path.parent for path in (self.state / "demo").glob("*/hub.json"))


Run = Callable[..., Result]


def invoke(state: Path, *arguments: str, **environment: str) -> Result:
    """Run a command as a user would, in this process so that it is measured."""
    env = {"FORKWATCH_STATE_DIR": str(state), "COLUMNS": "200", "HF_TOKEN": "", **environment}
    return CliRunner().invoke(app, list(arguments), env=env)


@pytest.fixture(scope="session")
def built_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family, built once for all workers: whoever comes second waits."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return ensure_family("tiny", shared / "families", 0, lambda _message: None)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, built_family: Path) -> Demo:
    state = tmp_path_factory.mktemp("demo-state")
    shutil.copytree(built_family, state / "demo" / built_family.name)
    done = invoke(state, "demo", "--family", "tiny", "--json")
    assert done.stdout, done.stderr
    return Demo(state, json.loads(done.stdout), done.exit_code, done.stderr)


@pytest.fixture
def run(demo: Demo) -> Run:
    """Commands in the demo's state."""

    def command(*arguments: str, **environment: str) -> Result:
        return invoke(demo.state, *arguments, **environment)

    return command


@dataclass(frozen=True)
class World:
    """A hub of our own making with the tiny release on it, and a state that guards the release."""

    hub: LoopbackHub
    state: Path
    key: Path

    def run(self, *arguments: str, **environment: str) -> Result:
        """Run a command against this hub; retries are off so that refusals come at once."""
        settings = {"FORKWATCH_HUB__ENDPOINT": self.hub.endpoint, "FORKWATCH_HUB__RETRIES": "0"}
        return invoke(self.state, *arguments, **{**settings, **environment})

    def scan_files(self, fork: str, files: dict[str, bytes | Path]) -> dict[str, Any]:
        """Publish a repository with these files, and scan what can be told without its weights."""
        self.hub.create_repo(fork)
        self.hub.commit(fork, files)
        done = self.run("scan", fork, "--depth", "match", "--json")
        assert done.stdout, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture
def family(built_family: Path) -> Path:
    return built_family


@pytest.fixture
def world(family: Path, tmp_path: Path) -> Iterator[World]:
    """A fresh state, guarding the tiny release on a hub that the test can spoil."""
    hub = LoopbackHub()
    load_family(hub, family)
    with hub:
        made = World(hub, tmp_path / "state", family / "keys" / "release.pub")
        added = made.run(
            "release", "add", RELEASE, "--public-key", str(made.key), "--suite", str(family / "suite.json")
        )
        assert added.exit_code == 0, added.stderr
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine, clock: Clock) -> Store:
    return Store(engine, clock)


def guarded(repo: str = GUARDED, *, digest: str = "1", signer: str = "ecdsa") -> Release:
    """A release that nobody signed, as a row that is not stored yet."""
    return Release(
        repo=repo,
        commit="a" * 40,
        root_digest="sha256:" + digest * 64,
        signer=signer,
        trust={"signers": [], "legacy": False, "unsigned": True},
        status="unsigned",
        signature="model.sig",
        suite="3" * 64,
        manifest={},
        added_at=CREATED,
        verified_at=CREATED,
    )


@pytest.fixture
def release(store: Store) -> int:
    row = store.add_release(guarded())
    assert row.id is not None
    return row.id
