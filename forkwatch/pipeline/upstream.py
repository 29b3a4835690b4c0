"""What the Hub shows of a guarded release now, held against its pin. Nothing is adopted here.

(1) Who has the name: gone, renamed, or registered again by somebody else.
(2) Which commit the watched branch is at. At the pinned one there is nothing more to say.
(3) Who signed that commit: its bundle is fetched, a few kB, and opened with the stored trust. Whether the
files beside it are the ones that it signs is told by the Hub's hashes; small new ones are fetched.
(4) Which of the release's files differ from the pin's, by the hashes that the Hub reports.

No weights are downloaded.

What differs becomes an event, once, and stays open until somebody moves the pin or decides to keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crawler.interface import (
    AccessDeniedError,
    RepoFile,
    RepoId,
    RepoNotFoundError,
    RepoSummary,
    Snapshot,
)
from detector.errors import InvalidBundleError
from detector.match import same_content
from detector.provenance.bundle import open_bundle
from detector.provenance.checked import FileState, paths_in
from detector.provenance.container import MAX_BUNDLE_BYTES
from detector.provenance.coverage import is_loaded
from detector.provenance.interface import OpenedBundle, SignatureStatus
from detector.provenance.remote import check_listing
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.release_section import settings_difference
from forkwatch.store.models import Release
from forkwatch.store.upstream import (
    UpstreamChange,
    UpstreamEvent,
    UpstreamKind,
    note_changes,
    open_events,
    upstream_events,
)
from forkwatch.store.values import manifest_of
from forkwatch.text import plain
from forkwatch.trust import TrustPolicy, load_policy

_WITHOUT_COMMIT = frozenset(
    {
        UpstreamKind.BRANCH_REMOVED,
        UpstreamKind.RENAMED,
        UpstreamKind.REREGISTERED,
        UpstreamKind.DELETED,
        UpstreamKind.SETTINGS_CHANGED,
    }
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A guarded release after a look at the Hub."""

    row: Release
    new: int
    """Events that this look has added."""
    open: tuple[UpstreamEvent, ...]
    """What somebody has to decide."""


def watch(context: Context, row: Release) -> Watched:
    """Look, and keep what is new.

    Raises:
        CrawlerError: the Hub could not be asked, which does not mean that anything has changed.
    """
    if row.id is None:
        raise AssertionError("a stored release has an id")
    context.talk.stage(row.repo, "look at the release upstream")
    new = note_changes(context.store, row.id, tuple(_changes(context, row)))
    return Watched(row, new, open_events(upstream_events(context.store, row.id)))


def waiting_commit(context: Context, row: Release) -> str | None:
    """The commit that waits for a decision; None when only names, settings or nothing at all does.

    It is a proposal: whoever reviewed a commit must name it, since a look may have found a later one.
    """
    if row.id is None:
        raise AssertionError("a stored release has an id")
    waiting = open_events(upstream_events(context.store, row.id))
    commits = [event.change.after for event in waiting if event.change.kind not in _WITHOUT_COMMIT]
    return commits[-1] if commits else None


def sentence(row: Release, event: UpstreamEvent) -> str:
    """One open event on one line, hostile text made plain."""
    change = event.change
    moved = " → ".join(plain(part, 80) for part in (change.before, change.after) if part)
    return f"{row.repo}: {change.kind} ({moved}): {plain(change.note, 400)}"


def _changes(context: Context, row: Release) -> Iterator[UpstreamChange]:
    difference = settings_difference(context.settings, row)
    if difference is not None:
        yield difference
    # (1): one call.
    try:
        now = context.hub.summary(RepoId(row.repo))
    except RepoNotFoundError:
        yield UpstreamChange(UpstreamKind.DELETED, row.commit, "", "The repository is gone, or private.")
        return
    yield from _identity(row, now)
    # (2): main costs nothing more while it is at the pin.
    if row.branch is None and now.commit == row.commit:
        return
    try:
        head = context.hub.snapshot(RepoId(row.repo), row.branch)
    except RepoNotFoundError:
        note = f"The branch {row.branch or 'main'} is not there any more."
        yield UpstreamChange(UpstreamKind.BRANCH_REMOVED, row.commit, "", note)
        return
    if head.commit != row.commit:
        yield _content(context, row, head)


def _identity(row: Release, now: RepoSummary) -> Iterator[UpstreamChange]:
    """A name is registered again by whoever comes first once it is free."""
    if row.object_id and now.object_id and row.object_id != now.object_id:
        note = "Another repository has the name now: it was deleted and registered again."
        yield UpstreamChange(UpstreamKind.REREGISTERED, row.object_id, now.object_id, note)
    elif now.repo != row.repo:
        yield UpstreamChange(UpstreamKind.RENAMED, row.repo, now.repo, "The repository has another name now.")


def _content(context: Context, row: Release, head: Snapshot) -> UpstreamChange:
    policy = load_policy(row.trust)
    kind, said = _signature(context, row, policy, head)
    altered = _altered(row, policy, head)
    files = "none of the release's files differ"
    if altered:
        more = f" and {len(altered) - 3} more" if len(altered) > 3 else ""
        names = ", ".join(plain(path, 80) for path in altered[:3])
        files = f"{len(altered)} of its files differ: {names}{more}"
    asks = bool(altered) or kind is not UpstreamKind.NEW_COMMIT
    return UpstreamChange(kind, row.commit, head.commit, f"{said}; {files}.", asks=asks)


def _altered(row: Release, policy: TrustPolicy, head: Snapshot) -> list[str]:
    """The release's files that are gone or other ones, and new ones that something could be loaded from."""
    pinned = {file.path: file for file in manifest_of(row).files}
    present = {file.path: file for file in head.files}
    other = [path for path in pinned if path not in present]
    other += [path for path in pinned.keys() & present if not same_content(present[path], pinned[path])]
    new = present.keys() - pinned.keys() - {row.signature}
    other += [path for path in new if policy.unsigned or is_loaded(path)]
    return sorted((*other, *(file.path for file in head.refused)))


def _signature(
    context: Context, row: Release, policy: TrustPolicy, head: Snapshot
) -> tuple[UpstreamKind, str]:
    """(3): what became of the signature, and a sentence about it."""
    file = head.file(row.signature)
    if file is None:
        if row.status == SignatureStatus.UNSIGNED:
            return UpstreamKind.NEW_COMMIT, "Unsigned, as before"
        return UpstreamKind.SIGNATURE_REMOVED, f"Unsigned now: {row.signature} is gone"
    if policy.unsigned:
        return _of_nobody(row, file)
    try:
        opened = _opened(context, policy, head, file)
        return _of_somebody(context, row, head, opened)
    except AccessDeniedError as error:
        return UpstreamKind.SIGNATURE_UNREADABLE, f"What is signed could not be read: {error}"
    except InvalidBundleError as error:
        return UpstreamKind.SIGNATURE_UNTRUSTED, f"Not signed by anybody whom you trust: {error}"


def _opened(context: Context, policy: TrustPolicy, head: Snapshot, file: RepoFile) -> OpenedBundle:
    """A bundle that is new to us: its certificates must be valid now."""
    if file.size > MAX_BUNDLE_BYTES:
        raise InvalidBundleError(f"the bundle has {file.size:,} bytes and was not read")
    bundle = context.hub.download(head, file.path).read_bytes()
    return open_bundle(bundle, policy.trust, at=context.now())


def _of_nobody(row: Release, file: RepoFile) -> tuple[UpstreamKind, str]:
    """A bundle beside a release that is pinned by hash: nobody is trusted to have signed it."""
    pinned = manifest_of(row).file(row.signature)
    if pinned is None:
        return UpstreamKind.SIGNATURE_ADDED, "Signed now, by nobody whom you trust"
    if same_content(file, pinned):
        return UpstreamKind.NEW_COMMIT, "The bundle is the pinned one, of nobody whom you trust"
    return UpstreamKind.SIGNATURE_CHANGED, "The bundle is another one, of nobody whom you trust"


def _of_somebody(
    context: Context, row: Release, head: Snapshot, opened: OpenedBundle
) -> tuple[UpstreamKind, str]:
    """A bundle of a trusted signer: is it the same signer, and is it about the files beside it?

    Small files that the pin does not know are fetched, within the limits of `check_listing`.
    """
    same = opened.signer == row.signer
    who = "the same signer" if same else f"another signer whom you trust, {opened.signer}"

    def fetch(path: str, _size: int) -> bytes:
        return context.hub.download(head, path).read_bytes()  # kept, so that the next look costs nothing

    known = {file.sha256: file.git_oid for file in manifest_of(row).files}
    found = check_listing(
        opened.signed, head.files, fetch, signature=row.signature, known=known, refused=head.refused
    )
    wrong = paths_in(found.files, FileState.DIFFERS, FileState.MISSING, FileState.UNCOVERED)
    if wrong:
        names = ", ".join(plain(path, 80) for path in wrong[:3])
        said = f"Signed by {who}, but {len(wrong)} files are not what it signs: {names}"
        return UpstreamKind.SIGNATURE_MISMATCH, said
    unknown = paths_in(found.files, FileState.UNKNOWN)
    rest = f"; of {len(unknown)} files it is not known whether they are what it signs" if unknown else ""
    return UpstreamKind.NEW_COMMIT if same else UpstreamKind.SIGNER_CHANGED, f"Signed by {who}{rest}"
