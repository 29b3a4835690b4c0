"""Guarded releases as what copies are compared with."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, select

from detector.provenance.coverage import is_loaded
from detector.provenance.interface import SignedFiles, Trust
from forkwatch.pipeline.authentic import Reference
from forkwatch.state import StateDir
from forkwatch.store.engine import open_engine
from forkwatch.store.models import Release
from forkwatch.store.values import manifest_of
from forkwatch.trust import load_policy


def trust_of(row: Release) -> Trust:
    """Whom a guarded release is believed to be signed by."""
    return load_policy(row.trust).trust


def reference(row: Release) -> Reference:
    """A guarded release as it was verified when it was pinned."""
    manifest = manifest_of(row)
    trust = trust_of(row)
    digests = tuple((file.path, file.sha256) for file in manifest.files)
    if not trust.signers:
        digests = tuple((path, sha256) for path, sha256 in digests if is_loaded(path))
    return Reference(
        f"{row.repo}@{row.commit}",
        SignedFiles(row.root_digest, digests),
        trust,
        row.verified_at,
        row.signature,
        {file.sha256: file.git_oid for file in manifest.files},
    )


def stored_releases(state: StateDir) -> Sequence[Release]:
    """The guarded releases by name, without a session's Hub and settings; none where there is no database."""
    if not state.database.is_file():
        return ()
    engine = open_engine(f"sqlite:///{state.database}")
    try:
        with Session(engine) as session:
            return session.exec(select(Release).order_by(Release.repo)).all()
    finally:
        engine.dispose()
