"""A release signed with a certificate that ends: what was pinned stays, what is new must be valid now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from forkwatch.cli.session import session
from forkwatch.demo.hub import LoopbackHub
from forkwatch.errors import SignatureInvalidError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import add_release, open_original
from forkwatch.pipeline.upstream import watch
from forkwatch.sections.hub import HubSettings
from forkwatch.settings import Settings
from forkwatch.state import StateDir
from forkwatch.store.upstream import UpstreamKind
from forkwatch.trust import TrustPolicy
from tests.detector.provenance.bundles import seal, statement_of
from tests.detector.provenance.pki import END, SIGNER, START, intermediate, signer, trusting_root
from tests.forkwatch.family import CONFIG, RELEASE, card, weights

WITHIN, AFTER = START + timedelta(days=400), END + timedelta(days=1)
POLICY = TrustPolicy(trusting_root())


def publish(hub: LoopbackHub, folder: Path, marker: int) -> None:
    """A commit of the release, signed under the private root."""
    folder.mkdir()
    (folder / "README.md").write_bytes(card())
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(weights(marker))
    chain = (signer().certificate, intermediate().certificate)
    (folder / "model.sig").write_bytes(seal(statement_of(folder), signer().key, chain=chain))
    hub.commit(RELEASE, {path.name: path for path in folder.iterdir()})


At = Callable[[datetime], Context]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[tuple[LoopbackHub, At]]:
    """A hub with the release, and sessions at any time."""
    hub = LoopbackHub()
    hub.create_repo(RELEASE)
    publish(hub, tmp_path / "first", 0)
    with (
        hub,
        session(
            Settings(hub=HubSettings(endpoint=hub.endpoint, retries=0)), StateDir(tmp_path / "state")
        ) as context,
    ):
        yield hub, lambda now: replace(context, now=lambda: now)


def test_a_pinned_release_outlives_its_certificate(at: tuple[LoopbackHub, At]) -> None:
    """It was verified while the certificate was valid, and is checked as of then."""
    _, context = at
    add_release(context(WITHIN), RELEASE, policy=POLICY, suite=b"{}")
    (row,) = context(AFTER).store.releases()
    original = open_original(context(AFTER), row)

    assert original.signer == f"x509:{SIGNER}"
    assert row.verified_at == WITHIN
    add_release(context(AFTER), RELEASE, policy=POLICY, suite=b"{}")
    assert context(AFTER).store.releases()[0].verified_at == WITHIN


def test_a_release_is_not_added_after_the_end_of_its_certificate(at: tuple[LoopbackHub, At]) -> None:
    """Nobody vouches for when it was signed, so it might have been signed afterwards."""
    _, context = at
    with pytest.raises(SignatureInvalidError):
        add_release(context(AFTER), RELEASE, policy=POLICY, suite=b"{}")


def test_a_new_commit_needs_a_certificate_that_is_valid_now(
    at: tuple[LoopbackHub, At], tmp_path: Path
) -> None:
    """Signed by the same signer while the certificate is valid; by nobody trusted afterwards."""
    hub, context = at
    add_release(context(WITHIN), RELEASE, policy=POLICY, suite=b"{}")
    publish(hub, tmp_path / "second", 1)
    (row,) = context(WITHIN).store.releases()

    kinds = [[event.change.kind for event in watch(context(now), row).open] for now in (WITHIN, AFTER)]
    assert kinds == [[UpstreamKind.NEW_COMMIT], [UpstreamKind.SIGNATURE_UNTRUSTED]]
