"""Guarded releases: fetch, verify, and open again. Nothing is compared with files that do not verify."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from crawler.interface import ByteSource, Commit, RepoId, Snapshot, parse_repo_id
from crawler.local import LocalFile
from detector.errors import DetectorError
from detector.interface import Manifest
from detector.match import same_content
from detector.provenance.coverage import is_bookkeeping
from detector.provenance.interface import SignatureStatus
from detector.provenance.pinned import differences, pin_folder
from detector.provenance.verify import verify_release
from evals.suite import CORE
from forkwatch.errors import (
    NothingToExamineError,
    SettingsError,
    SignatureInvalidError,
    UnknownReleaseError,
)
from forkwatch.pipeline.blobs import blob_path, keep_bytes
from forkwatch.pipeline.cards import keep_card
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.release_section import require_agreement
from forkwatch.pipeline.scratch import scratch_folder
from forkwatch.store.models import Release
from forkwatch.store.upstream import move_pin
from forkwatch.store.values import json_of, manifest_of
from forkwatch.text import plain
from forkwatch.trust import TrustPolicy, describe, dump_policy, load_policy


@dataclass(frozen=True, slots=True)
class Original:
    """A release on this machine, verified or as it was pinned."""

    release_id: int
    repo: RepoId
    commit: Commit
    root_digest: str
    signature: SignatureStatus
    """VERIFIED; or CLAIMED or UNSIGNED, and then pinned by hash on first use."""
    signer: str
    """Empty unless VERIFIED."""
    license: str | None
    folder: Path
    """Real files, every one covered by the signature or named in its ignore list, or pinned."""
    manifest: Manifest
    suite: Path
    suite_digest: str

    @property
    def name(self) -> str:
        """`org/name@commit`."""
        return f"{self.repo}@{self.commit}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A release folder that may be compared with."""

    status: SignatureStatus
    signer: str
    manifest: Manifest


def add_release(  # noqa: PLR0913 - the fields of a pin
    context: Context,
    repo: str,
    *,
    policy: TrustPolicy,
    suite: bytes | None = None,
    revision: str | None = None,
    signature: str = "model.sig",
    replace: bool = False,
    reregistered: bool = False,
) -> Original:
    """Fetch a release, verify it, and pin it. What was to decide about the pin before is decided by that.

    Args:
        context: where.
        repo: `org/name`.
        policy: whom to trust.
        suite: content of a prompt suite that it and its forks are measured with;
            None: the one that it has, and for a new release the built-in one.
        revision: commit, tag or branch.
        signature: path of the bundle.
        replace: allows to move the pin, to trust others, or to take another suite, for a release that is
            guarded already.
        reregistered: allows to take another repository that has the release's name by now.

    Raises:
        SignatureInvalidError: the signature is missing or does not verify; nothing is stored.
        SettingsError: it is guarded otherwise, and `replace` or `reregistered` was not said.
        CrawlerError: the release could not be fetched.
    """
    snapshot = context.hub.snapshot(parse_repo_id(repo), revision)
    known = _guarded(context, snapshot)
    if known is not None and _is_another(known, snapshot) and not reregistered:
        raise SettingsError(
            f"{known.repo} was registered again: another repository has the name now",
            tip="Find out whose it is; --reregistered takes it for the release.",
        )
    trust = dump_policy(policy)
    same = known is not None and _is_pinned(known, snapshot, trust, signature)
    at = known.verified_at if known is not None and same else context.now()
    folder = fetch_folder(context, snapshot)
    checked = check_release(folder, repo, policy, signature=signature, at=at)
    content = _suite(context, known, suite)
    if known is not None and not replace:
        _require_same(known, content, same=same)
    _require_no_tampering(checked.manifest, snapshot, known if same else None, policy)
    release = Release(
        id=None if known is None else known.id,
        repo=snapshot.repo,
        object_id=snapshot.object_id,
        commit=snapshot.commit,
        branch=_watched(known, snapshot, revision),
        root_digest=checked.manifest.root_digest,
        status=str(checked.status),
        signer=checked.signer,
        trust=trust,
        signature=signature,
        suite=keep_bytes(context.state, content),
        manifest=json_of(Manifest).dump_python(checked.manifest, mode="json"),
        license=snapshot.license,
        added_at=at,
        verified_at=at,
    )
    row = context.store.add_release(release) if same else move_pin(context.store, release)
    context.store.pin(snapshot)
    return _original(context, row, folder)


def _suite(context: Context, known: Release | None, chosen: bytes | None) -> bytes:
    """Results of different suites cannot be compared: a release keeps its own until another one is named."""
    if chosen is not None:
        return chosen
    return (CORE if known is None else blob_path(context.state, known.suite)).read_bytes()


def _require_same(known: Release, suite: bytes, *, same: bool) -> None:
    """Nothing about a guarded release changes by being added again.

    Raises:
        SettingsError: something would.
    """
    if not same:
        raise SettingsError(
            f"{known.repo} is guarded at {known.commit[:12]}, trusting {describe(load_policy(known.trust))}",
            tip="Say --replace to move the pin or to trust others; verdicts about the old pin stay.",
        )
    if hashlib.sha256(suite).hexdigest() != known.suite:
        raise SettingsError(
            f"{known.repo} is measured with another prompt suite",
            tip="Leave --suite out to keep it, or say --replace; forks are then measured anew.",
        )


def _is_another(known: Release, snapshot: Snapshot) -> bool:
    """Whether a name is another repository's by now, as far as ids are known."""
    return bool(known.object_id and snapshot.object_id) and known.object_id != snapshot.object_id


def _is_pinned(known: Release, snapshot: Snapshot, trust: dict[str, Any], signature: str) -> bool:
    """Whether a release is guarded at this very commit of this very repository, with this trust."""
    pin = (known.repo, known.commit, known.trust, known.signature)
    return pin == (snapshot.repo, snapshot.commit, trust, signature) and not _is_another(known, snapshot)


def _require_no_tampering(
    found: Manifest, snapshot: Snapshot, known: Release | None, policy: TrustPolicy
) -> None:
    """A folder that was here already is no new first use: it must be what was fetched, and what was pinned.

    Raises:
        SignatureInvalidError: files were altered since.
    """
    altered: tuple[str, ...] = ()
    if policy.unsigned:  # nobody's signature would tell
        reported = {file.path: file for file in snapshot.files}
        here = {file.path: file for file in found.files}
        altered = tuple(
            path
            for path in sorted(here.keys() | reported.keys())
            if not is_bookkeeping(path)
            and not (path in here and path in reported and same_content(reported[path], here[path]))
        )
    if known is not None:
        altered += differences(manifest_of(known), found)
    if altered:
        names = ", ".join(plain(path, 80) for path in altered[:5])
        raise SignatureInvalidError(
            f"{snapshot.repo}: the copy on this machine was altered: {names}",
            tip="Find out by whom; then delete it below `originals` in the state folder, and add it again.",
        )


def _watched(known: Release | None, snapshot: Snapshot, revision: str | None) -> str | None:
    """What a revision leads to watch: a commit does not move, so what was watched before is."""
    if revision is not None and snapshot.commit.startswith(revision):
        return None if known is None else known.branch
    return revision


def _guarded(context: Context, snapshot: Snapshot) -> Release | None:
    """The release that this is a snapshot of: by its name, or by its id under another name."""
    rows = context.store.releases()
    by_name = [row for row in rows if row.repo == snapshot.repo]
    by_id = [row for row in rows if row.object_id and row.object_id == snapshot.object_id]
    return next(iter(by_name + by_id), None)


def open_original(context: Context, row: Release) -> Original:
    """A guarded release, fetched again if its folder is gone, and verified again in any case.

    Certificates are judged as of the first verification: bundles carry no time of their own.

    Raises:
        SettingsError: the settings trust others, or pin another commit, than what it was added with.
        SignatureInvalidError: the files no longer verify, or are not the ones that were pinned.
    """
    require_agreement(context.settings, row)
    context.talk.stage(row.repo, "verify signature")
    folder = _folder(context, RepoId(row.repo), row.commit)
    if not folder.is_dir():
        fetch_folder(context, context.hub.snapshot(RepoId(row.repo), row.commit))
    policy, pinned = load_policy(row.trust), manifest_of(row)
    if policy.unsigned:
        found = _pinned(folder, row.repo)
    else:
        found = check_release(folder, row.repo, policy, signature=row.signature, at=row.verified_at).manifest
    if altered := differences(pinned, found):
        names = ", ".join(plain(path, 80) for path in altered[:5])
        raise SignatureInvalidError(
            f"{row.repo}: not the release that was pinned; {len(altered)} files differ: {names}"
        )
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


def find_releases(context: Context, repo: str | None) -> tuple[Release, ...]:
    """The guarded release of that name, or all.

    Raises:
        UnknownReleaseError: none of that name.
        NothingToExamineError: none at all.
    """
    rows = context.store.releases() if repo is None else (find_release(context, repo),)
    if not rows:
        raise NothingToExamineError("no release is guarded")
    return rows


def check_release(folder: Path, repo: str, policy: TrustPolicy, *, signature: str, at: datetime) -> Checked:
    """Verify a folder against a policy; with nobody to trust, take down what is there.

    Raises:
        SignatureInvalidError: it does not verify; a broken bundle is no better for trusting nobody.
    """
    if policy.unsigned and not os.path.lexists(folder / signature):
        return Checked(SignatureStatus.UNSIGNED, "", _pinned(folder, repo))
    check = verify_release(folder, policy.trust, at=at, signature=signature)
    if policy.unsigned and check.status is SignatureStatus.CLAIMED:
        return Checked(check.status, "", _pinned(folder, repo))
    if check.status is not SignatureStatus.VERIFIED or check.manifest is None:
        raise SignatureInvalidError(f"{repo}: the signature is {check.status}: {check.reason}")
    return Checked(check.status, check.signer, check.manifest)


def _pinned(folder: Path, repo: str) -> Manifest:
    try:
        return pin_folder(folder)
    except (DetectorError, OSError) as error:
        raise SignatureInvalidError(
            f"{repo}: the pinned copy cannot be read: {plain(str(error))}",
            tip="Do not use these files.",
        ) from error


def fetch_folder(context: Context, snapshot: Snapshot) -> Path:
    """All files of a release as real files under their own names; complete or absent."""
    folder = _folder(context, snapshot.repo, snapshot.commit)
    if folder.is_dir():
        return folder
    with scratch_folder(context) as part:
        for file in snapshot.files:
            place_file(context.hub.download(snapshot, file.path, context.talk.progress), part / file.path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.replace(folder)
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
    manifest = manifest_of(row)
    keep_card(context.state, manifest, folder)
    return Original(
        release_id=row.id,
        repo=RepoId(row.repo),
        commit=Commit(row.commit),
        root_digest=row.root_digest,
        signature=SignatureStatus(row.status),
        signer=row.signer,
        license=row.license,
        folder=folder,
        manifest=manifest,
        suite=blob_path(context.state, row.suite),
        suite_digest=row.suite,
    )


def original_files(original: Original) -> Mapping[str, ByteSource]:
    """The release's weight files, local, as its manifest names them: nothing else of the folder is read."""
    names = [file.path for file in original.manifest.files if "/" not in file.path]
    index = "model.safetensors.index.json"
    wanted = sorted(name for name in names if name.endswith(".safetensors"))
    return {name: LocalFile(original.folder / name) for name in (*wanted, *({index} & set(names)))}
