"""Guarded releases: fetch, verify, and open again. Nothing is compared with files that do not verify."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from crawler.interface import ByteSource, Commit, RepoId, Snapshot, parse_repo_id
from crawler.local import LocalFile
from detector.interface import Manifest, SignatureCheck, SignatureStatus
from detector.provenance.interface import KeyTrust, Trust
from detector.provenance.verify import verify_release
from forkwatch.errors import NothingToExamineError, SignatureInvalidError, UnknownReleaseError
from forkwatch.pipeline.blobs import blob_path, keep_bytes
from forkwatch.pipeline.cards import keep_card
from forkwatch.pipeline.context import Context
from forkwatch.store.models import Release

_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True, slots=True)
class Original:
    """A verified release on this machine."""

    release_id: int
    repo: RepoId
    commit: Commit
    root_digest: str
    signer: str
    license: str | None
    folder: Path
    """Real files, every one covered by the signature or named in its ignore list."""
    manifest: Manifest
    suite: Path
    suite_digest: str

    @property
    def name(self) -> str:
        """`org/name@commit`."""
        return f"{self.repo}@{self.commit}"


def add_release(  # noqa: PLR0913 - the fields of a pin
    context: Context,
    repo: str,
    *,
    public_key: str,
    suite: bytes,
    revision: str | None = None,
    signature: str = "model.sig",
) -> Original:
    """Fetch a release, verify it, and pin it.

    `public_key` is the PEM of the publisher's EC key, `suite` the content of a prompt suite
    (`forkwatch.prompts/1`) that it and its forks are measured with.

    Raises:
        SignatureInvalidError: the signature is missing or does not verify; nothing is stored.
        CrawlerError: the release could not be fetched.
    """
    snapshot = context.hub.snapshot(parse_repo_id(repo), revision)
    folder = fetch_folder(context, snapshot)
    check = check_release(context, folder, public_key=public_key, signature=signature)
    if check.manifest is None:
        raise SignatureInvalidError(f"{repo}: the signature is {check.status}: {check.reason}")
    row = context.store.add_release(
        Release(
            repo=snapshot.repo,
            commit=snapshot.commit,
            root_digest=check.manifest.root_digest,
            signer=check.signer,
            public_key=public_key,
            signature=signature,
            suite=keep_bytes(context.state, suite),
            manifest=_MANIFEST.dump_python(check.manifest, mode="json"),
            license=snapshot.license,
            added_at=context.now(),
        )
    )
    context.store.pin(snapshot)
    return _original(context, row, folder)


def open_original(context: Context, row: Release) -> Original:
    """A guarded release, fetched again if its folder is gone, and verified again in any case.

    Raises:
        SignatureInvalidError: the files no longer verify, or are not the ones that were pinned.
    """
    context.talk.stage(row.repo, "verify signature")
    folder = _folder(context, RepoId(row.repo), row.commit)
    if not folder.is_dir():
        fetch_folder(context, context.hub.snapshot(RepoId(row.repo), row.commit))
    check = check_release(context, folder, public_key=row.public_key, signature=row.signature)
    if check.status is not SignatureStatus.VERIFIED or check.manifest is None:
        raise SignatureInvalidError(f"{row.repo}: the signature is {check.status}: {check.reason}")
    if check.manifest.root_digest != row.root_digest:
        raise SignatureInvalidError(f"{row.repo}: verifies, but is not the release that was pinned")
    return _original(context, row, folder)


def is_fetched(context: Context, row: Release) -> bool:
    """Whether its files are on this machine, verified or not."""
    return _folder(context, RepoId(row.repo), row.commit).is_dir()


def release_snapshot(context: Context, original: Original) -> Snapshot:
    """The release as it was pinned; one call when the store does not have it.

    Raises:
        CrawlerError: the Hub could not be asked.
    """
    stored = context.store.snapshot(original.repo, original.commit)
    return stored or context.hub.snapshot(original.repo, original.commit)


def find_release(context: Context, repo: str | None) -> Release:
    """The guarded release of that name, or the only one there is.

    Raises:
        UnknownReleaseError: none of that name, or several to choose from.
        NothingToExamineError: none at all.
    """
    releases = context.store.releases()
    if repo is not None:
        match = next((row for row in releases if row.repo == repo), None)
        if match is None:
            raise UnknownReleaseError(f"{repo} is not a guarded release")
        return match
    if not releases:
        raise NothingToExamineError("no release is guarded")
    if len(releases) > 1:
        raise UnknownReleaseError(f"there are {len(releases)} guarded releases; name one with --release")
    return releases[0]


def check_release(context: Context, folder: Path, *, public_key: str, signature: str) -> SignatureCheck:
    """Verify a folder with a PEM key."""
    trust = Trust((KeyTrust(public_key.encode()),))
    return verify_release(folder, trust, at=context.now(), signature=signature)


def fetch_folder(context: Context, snapshot: Snapshot) -> Path:
    """All files of a release as real files under their own names; complete or absent."""
    folder = _folder(context, snapshot.repo, snapshot.commit)
    if folder.is_dir():
        return folder
    part = Path(tempfile.mkdtemp(dir=context.state.scratch))
    try:
        for file in snapshot.files:
            place_file(context.hub.download(snapshot, file.path, context.talk.progress), part / file.path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def place_file(cached: Path, target: Path) -> None:
    """A cached file under the name it has in its repository: a hard link, or a copy across file systems."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(cached, target)
    except OSError:
        shutil.copyfile(cached, target)


def _folder(context: Context, repo: RepoId, commit: str) -> Path:
    return context.state.originals / repo.replace("/", "--") / commit


def _original(context: Context, row: Release, folder: Path) -> Original:
    if row.id is None:
        raise AssertionError("a stored release has an id")
    manifest = _MANIFEST.validate_python(row.manifest)
    keep_card(context.state, manifest, folder)
    return Original(
        release_id=row.id,
        repo=RepoId(row.repo),
        commit=Commit(row.commit),
        root_digest=row.root_digest,
        signer=row.signer,
        license=row.license,
        folder=folder,
        manifest=manifest,
        suite=blob_path(context.state, row.suite),
        suite_digest=row.suite,
    )


def original_files(original: Original) -> Mapping[str, ByteSource]:
    """The release's weight files, local."""
    names = sorted(path.name for path in original.folder.iterdir() if path.name.endswith(".safetensors"))
    index = original.folder / "model.safetensors.index.json"
    paths = [original.folder / name for name in names] + ([index] if index.is_file() else [])
    return {path.name: LocalFile(path) for path in paths}
