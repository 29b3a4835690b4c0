"""A guarded release with one fork that has a verdict, and the site that tells of it."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typer.testing import Result

from crawler.interface import Commit, RepoFile, RepoId
from forkwatch.cli.session import utc_now
from forkwatch.store.engine import open_engine
from forkwatch.store.store import Store
from forkwatch.store.values import Spent, StageKey
from reports.scan import ScanDocument
from tests.forkwatch.family import RELEASE, Family, weights
from tests.forkwatch.samples import SNAPSHOT
from tests.reports.samples import view

FORK = "abl/smollm2-directional"
COMMIT = "b" * 40
WEIGHTS = {"model-1.safetensors": weights(), "model-2.safetensors": weights(5)}
"""The first shard is the release's own."""
PAGE = "api/v1/forks/abl/smollm2-directional"


@dataclass(frozen=True)
class Judged:
    """A state in which one fork of a guarded release has a verdict."""

    family: Family

    @property
    def state(self) -> Path:
        return self.family.state

    def run(self, *arguments: str, **environment: str) -> Result:
        return self.family.run(*arguments, **environment)

    def build(self) -> Path:
        """Publish; the site's folder."""
        built = self.run("report", "build")
        assert built.exit_code == 0, built.stderr
        return self.state / "site"

    def key(self, *arguments: str) -> Path:
        """Make a key; the public one's file."""
        made = self.run("attest", "key", "--json", *arguments)
        assert made.exit_code == 0, made.stderr
        shown = json.loads(made.stdout)
        file = self.state.parent / f"{shown['id'][:8]}.pem"
        file.write_text(shown["public_key"])
        return file


def document(family: Family) -> ScanDocument:
    listed = json.loads(family.run("release", "list", "--json").stdout)["releases"][0]
    found = next(scan for scan in view().releases[0].scans if scan.repo == FORK)
    original = replace(found.original, root_digest=listed["root_digest"], signer=listed["signer"])
    return replace(found, commit=COMMIT, release=f"{RELEASE}@{listed['commit']}", original=original)


def judge(family: Family, scan: ScanDocument) -> None:
    """What a scan to full depth leaves in the store."""
    files = tuple(
        RepoFile(path, len(content), "d" * 40, hashlib.sha256(content).hexdigest())
        for path, content in WEIGHTS.items()
    )
    snapshot = replace(
        SNAPSHOT,
        repo=RepoId(FORK),
        commit=Commit(COMMIT),
        files=(*files, RepoFile("adapter_model.bin", 3, "c" * 40, None), SNAPSHOT.files[0]),
    )
    store = Store(open_engine(f"sqlite:///{family.state / 'forkwatch.db'}"), utc_now)
    row = store.releases()[0]
    pinned = store.pin(snapshot)
    for version in ("2", "3"):
        key = StageKey(pinned, row.root_digest, "match", version)
        store.put_result(key, TypeAdapter(int), 1, Spent(0.0, 0, 0))
    assert row.id is not None
    assert store.add_verdict(row.id, pinned, scan)
    store.close()


@dataclass(frozen=True)
class Published:
    """A site whose verdicts are signed. Tests leave it as it is."""

    judged: Judged
    key: Path
    site: Path

    @property
    def bundle(self) -> Path:
        return self.site / f"{PAGE}.attestation.json"

    @property
    def scan(self) -> Path:
        return self.site / f"{PAGE}.json"

    def verify(self, file: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
        """With its key."""
        return verify(self.judged, file, "--public-key", str(self.key), *arguments)


def verify(judged: Judged, file: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = judged.run("attest", "verify", str(file), "--json", *arguments)
    return done.exit_code, json.loads(done.stdout)


def payload(bundle: Path) -> dict[str, Any]:
    envelope = json.loads(bundle.read_bytes())["dsseEnvelope"]
    statement: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return statement


def contents(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*") if path.is_file()}
