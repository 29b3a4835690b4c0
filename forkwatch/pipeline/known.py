"""Known models: fingerprints of guarded releases and of what the user added, and who may have been merged.

A release's fingerprint is made from verified files, and again when it is missing or not of the pinned
release. Scanned forks are not added by themselves: what a scan says must not depend on which forks were
scanned before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crawler.interface import ByteSource, Commit, RepoId
from detector.errors import DetectorError, FingerprintError, NothingComparedError
from detector.index.fingerprint import Fingerprint, Identity, ModelKind, Shape, take_fingerprint
from detector.index.search import FOUND_LOG10_P, relate
from detector.index.storage import (
    MAX_NAME,
    SUFFIX,
    file_name,
    load_description,
    load_fingerprint,
    save_fingerprint,
)
from detector.index.table import open_table
from detector.interface import WeightReader
from detector.lineage import Bands
from forkwatch.errors import SettingsError, SignatureInvalidError, UnknownModelError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import Original, is_fetched, open_original, original_files
from forkwatch.pipeline.sides import LocalSide, open_local, parse_side
from forkwatch.pipeline.weight_files import weight_files
from forkwatch.store.models import Release

MAX_PARTNERS = 256
"""Known models that a diff is given: the most similar to the fork. 2 MB each at 8B, read when asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checkpoint that the user named, opened."""

    identity: Identity
    files: Mapping[str, ByteSource]
    bases: tuple[str, ...] = ()
    """Repositories that its card claims as its base."""

    @property
    def nbytes(self) -> int:
        """Of all its weight files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True)
class Partners:
    """Models that a fork may have been merged with."""

    known: Mapping[str, Bands] = field(default_factory=dict)
    """Sampled rows of known models of its shape; the original and the fork itself are not among them."""
    parents: Mapping[str, WeightReader] = field(default_factory=dict)
    """Whole weights of those that are guarded, on this machine, and related to the fork."""


class KnownBands(Mapping[str, Bands]):
    """Bands by model, read from their files when they are asked for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> Bands:
        return load_fingerprint(self._files[name]).bands

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def open_target(context: Context, text: str, *, name: str | None = None) -> Target:
    """A folder, a weight file, or `ORG/NAME[@REVISION]`, which is read by ranges and not downloaded.

    Raises:
        SettingsError: it is none of these.
        NoWeightsError: there are no weights in it.
        CrawlerError: the repository could not be had.
    """
    side = parse_side(text)
    if isinstance(side, LocalSide):
        named = name or side.path.resolve().name
        return Target(Identity(name=named, kind=ModelKind.MODEL), open_local(side).files)
    if side.path is not None:
        raise SettingsError(f"{text} is one file of a repository", tip="Give ORG/NAME[@REVISION].")
    snapshot = context.hub.snapshot(side.repo, side.revision)
    identity = Identity(
        name=name or f"{snapshot.repo}@{snapshot.commit}",
        kind=ModelKind.MODEL,
        repo=snapshot.repo,
        commit=snapshot.commit,
    )
    files: dict[str, ByteSource] = {
        file.path: context.hub.open(snapshot, file.path) for file in weight_files(snapshot)
    }
    bases = dict.fromkeys(str(claim.base) for claim in snapshot.claims if claim.base is not None)
    return Target(identity, files, tuple(bases))


def fingerprint_of(target: Target) -> Fingerprint:
    """Read it once: headers and a few ranges. Raises as `open_weights` and `take_fingerprint`."""
    from detector.formats import open_weights

    return take_fingerprint(open_weights(target.files), target.identity)


def add_model(context: Context, text: str, *, name: str | None = None) -> Fingerprint:
    """Make a model known.

    Raises:
        SettingsError: it is not a model, its name is not printable, or belongs to a guarded release.
        DetectorError: its weights cannot be read.
        CrawlerError: the repository could not be had.
    """
    target = open_target(context, text, name=name)
    if not 0 < len(target.identity.name) <= MAX_NAME or not target.identity.name.isprintable():
        raise SettingsError(f"a name has 1 to {MAX_NAME} printable characters", tip="Choose a --name.")
    if target.identity.name in {_name(row) for row in context.store.releases()}:
        raise SettingsError(
            f"{target.identity.name} is a guarded release", tip="It is known already, or choose a --name."
        )
    fingerprint = fingerprint_of(target)
    path = context.state.index / file_name(fingerprint.identity.name)
    if path.is_file() and load_fingerprint(path).signatures.tobytes() != fingerprint.signatures.tobytes():
        raise SettingsError(
            f"another model is known as {fingerprint.identity.name}",
            tip="Choose a --name, or `forkwatch index remove` it first.",
        )
    save_fingerprint(context.state.index, fingerprint)
    return fingerprint


def remove_model(context: Context, name: str) -> None:
    """Forget a model.

    Raises:
        UnknownModelError: none of that name.
        SettingsError: it is a guarded release, which is known by itself.
    """
    if name in {_name(row) for row in context.store.releases()}:
        raise SettingsError(f"{name} is a guarded release and known by itself", tip="Nothing has to be done.")
    path = context.state.index / file_name(name)
    if not path.is_file():
        raise UnknownModelError(f"no known model is called {name}")
    path.unlink()


def list_models(context: Context) -> tuple[list[tuple[Identity, Shape]], dict[str, str]]:
    """All known models by name, and the files that are none with the reason."""
    found, broken = [], {}
    for path in sorted(context.state.index.glob(f"*{SUFFIX}")):
        try:
            found.append(load_description(path))
        except FingerprintError as error:
            broken[path.name] = str(error)
    return sorted(found, key=lambda model: (model[0].kind != ModelKind.RELEASE, model[0].name)), broken


def keep_release(context: Context, original: Original) -> bool:
    """Make the fingerprint of a verified release if it has none; False when its weights cannot be compared.

    An older commit of it that was guarded before is forgotten.
    """
    from detector.formats import open_weights

    _forget_older(context, original.repo, original.commit)
    if _is_kept(context, original.name, original.root_digest):
        return True
    identity = Identity(
        name=original.name,
        kind=ModelKind.RELEASE,
        repo=original.repo,
        commit=original.commit,
        root_digest=original.root_digest,
    )
    try:
        fingerprint = take_fingerprint(open_weights(original_files(original)), identity)
    except DetectorError as error:
        context.talk.note(f"{original.name} cannot be searched for: {error}")
        return False
    save_fingerprint(context.state.index, fingerprint)
    return True


def keep_releases(context: Context) -> frozenset[str]:
    """Files of the guarded releases' fingerprints; one that is missing or stale is made, after verification.

    Raises:
        SignatureInvalidError: a release without a fingerprint does not verify.
        CrawlerError: its files are gone from this machine, and could not be fetched.
    """
    kept = set()
    for row in context.store.releases():
        if _is_kept(context, _name(row), row.root_digest) or keep_release(
            context, open_original(context, row)
        ):
            kept.add(file_name(_name(row)))
    return frozenset(kept)


def _keep_local(context: Context) -> None:
    """Fingerprints of releases whose files are here; one that no longer verifies is left out, and named."""
    for row in context.store.releases():
        if _is_kept(context, _name(row), row.root_digest) or not is_fetched(context, row):
            continue
        try:
            keep_release(context, open_original(context, row))
        except (SignatureInvalidError, SettingsError) as error:
            context.talk.note(f"{_name(row)} is not compared with: {error}")


def merge_partners(
    context: Context, original: Original, fork: WeightReader, repo: RepoId, commit: Commit
) -> Partners:
    """Who a fork may have been merged with, among known models of its shape, the most similar first.

    Nothing is fetched: a release whose files are gone, or no longer verify, is known by its bands only.

    Args:
        context: index and store.
        original: the release that the fork is compared with.
        fork: its weights, which are local.
        repo: where the fork is from.
        commit: at which commit.
    """
    identity = Identity(name=f"{repo}@{commit}", kind=ModelKind.CANDIDATE, repo=repo, commit=commit)
    try:
        candidate = take_fingerprint(fork, identity)
    except NothingComparedError:
        return Partners()
    _keep_local(context)
    table = open_table(context.state.index)
    hits = table.search(candidate.shape.width, candidate.signatures, candidate.gain_codes)
    files: dict[str, Path] = {}
    for hit in hits:
        path = context.state.index / hit.file
        if hit.depth != len(candidate.shape.layers) or len(files) >= MAX_PARTNERS:
            continue
        try:
            known, _ = load_description(path)
        except FingerprintError:
            continue
        if (known.repo, known.commit) not in {(original.repo, original.commit), (repo, commit)}:
            files[known.name] = path
    return Partners(KnownBands(files), _parents(context, original, files, candidate))


def _parents(
    context: Context, original: Original, files: Mapping[str, Path], candidate: Fingerprint
) -> dict[str, WeightReader]:
    from detector.formats import open_weights

    found: dict[str, WeightReader] = {}
    for row in context.store.releases():
        path = files.get(_name(row))
        if path is None or row.repo == original.repo or not is_fetched(context, row):
            continue
        if relate(load_fingerprint(path), candidate).log10_p > FOUND_LOG10_P:
            continue
        try:
            found[_name(row)] = open_weights(original_files(open_original(context, row)))
        except (
            SignatureInvalidError,
            SettingsError,
        ) as error:  # its bands were verified when they were taken
            context.talk.note(f"{_name(row)} is not compared with: {error}")
    return found


def _is_kept(context: Context, name: str, root_digest: str) -> bool:
    try:
        identity, _ = load_description(context.state.index / file_name(name))
    except FingerprintError:
        return False
    return identity.kind is ModelKind.RELEASE and identity.root_digest == root_digest


def _forget_older(context: Context, repo: str, commit: str) -> None:
    for file in open_table(context.state.index).files_of(repo):
        identity, _ = load_description(context.state.index / file)
        if identity.kind is ModelKind.RELEASE and identity.commit != commit:
            (context.state.index / file).unlink(missing_ok=True)


def _name(row: Release) -> str:
    return f"{row.repo}@{row.commit}"
