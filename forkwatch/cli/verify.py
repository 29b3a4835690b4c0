"""`forkwatch verify`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, progress, say
from forkwatch.cli.trust_options import (
    BundleOption,
    IdentityOption,
    IssuerOption,
    KeyOption,
    LegacyOption,
    RootOption,
    SpkiOption,
    SubjectOption,
    TrustedRootOption,
    require_text,
    said_by_options,
)
from forkwatch.errors import Exit, NothingToExamineError, SettingsError, UnknownReleaseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detector.provenance.hash_cache import HashCache
    from detector.provenance.interface import Trust
    from forkwatch.pipeline.authentic import Judgement
    from forkwatch.pipeline.sides import Side
    from forkwatch.pipeline.subjects import Subject
    from forkwatch.store.models import Release


@handled
def verify(
    subject: Annotated[
        str, typer.Argument(metavar="PATH|ORG/NAME", help=r"Folder, or repository (ORG/NAME\[@REVISION]).")
    ],
    release: Annotated[
        str | None,
        typer.Option("--release", "-r", help="The guarded release that it must be.", metavar="ORG/NAME"),
    ] = None,
    public_key: KeyOption = None,
    certificate_root: RootOption = None,
    certificate_subject: SubjectOption = None,
    certificate_spki: SpkiOption = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trusted_root: TrustedRootOption = None,
    legacy: LegacyOption = False,
    signature: BundleOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read every file, also those that have not changed since.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither use nor keep digests of unchanged files.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Say whether a folder or repository is, byte for byte, what its publisher signed.

    Compared with the guarded releases, or with what a key, certificate or identity signed.
    Exits with 0 (authentic), 1 (altered), 6 (signature invalid) or 3 (nothing to go by).
    Of a repository, only small files are downloaded; the rest is said to be Hub-reported.
    """
    from forkwatch.pipeline.authentic_document import document, lines
    from forkwatch.pipeline.sides import parse_side

    require_text(release=release, signature=signature)
    side = parse_side(subject)
    options = {
        "public_key": public_key,
        "certificate_roots": certificate_root,
        "certificate_subjects": certificate_subject,
        "certificate_spki": certificate_spki,
        "identity": identity,
        "issuer": issuer,
        "trusted_root": trusted_root,
        "legacy": legacy,
    }
    policy = said_by_options(options)
    trust = None if policy is None else policy.trust
    if trust is not None and release is not None:
        raise SettingsError(
            "--release and a key, certificate or identity exclude each other",
            tip="A guarded release is trusted as it was when it was added.",
        )
    began = time.monotonic()
    with ExitStack() as stack:
        opened = _open(side, stack, full=full, cached=not no_cache)
        judged = (
            _by_releases(opened, release, signature)
            if trust is None
            else _by_trust(opened, trust, signature or "model.sig")
        )
    seconds = time.monotonic() - began
    if json_output:
        data_json(document(opened, judged, seconds))
    else:
        data("\n".join(lines(opened, judged, seconds)))
    raise typer.Exit(_EXITS[judged.status])


_EXITS = {
    "authentic": Exit.OK,
    "altered": Exit.FINDING,
    "invalid-signature": Exit.SIGNATURE,
    "unsigned": Exit.INCONCLUSIVE,
    "inconclusive": Exit.INCONCLUSIVE,
}


def _open(side: Side, stack: ExitStack, *, full: bool, cached: bool) -> Subject:
    """What is to be verified; a session is opened only for a repository."""
    from detector.provenance.hash_cache import HashCache
    from forkwatch.pipeline.sides import LocalSide
    from forkwatch.pipeline.subjects import LocalSubject, RemoteSubject
    from forkwatch.state import find_state_dir

    if not isinstance(side, LocalSide):
        if side.path is not None:
            raise SettingsError(f"{side.name} is one file", tip="Name the repository.")
        from forkwatch.cli.session import session

        return RemoteSubject(stack.enter_context(session()).hub, side.repo, side.revision)
    state = find_state_dir()
    talk = stack.enter_context(progress())
    hashes = HashCache.open(state.root / "hashes.json" if cached else None, full=full)
    stack.callback(_keep, hashes)
    return LocalSubject(side.path, hashes, lambda done, total: talk.progress(side.name, done, total))


def _keep(hashes: HashCache) -> None:
    if not hashes.save():
        say(f"forkwatch: cannot write {hashes.path}; all files will be read again next time")


def _by_trust(subject: Subject, trust: Trust, signature: str) -> Judgement:
    from detector.errors import TrustError
    from forkwatch.pipeline.authentic import judge_by_trust

    try:
        return judge_by_trust(subject, trust, at=datetime.now(UTC), signature=signature)
    except TrustError as error:
        raise SettingsError(str(error), tip=error.tip) from error


def _by_releases(subject: Subject, release: str | None, signature: str | None) -> Judgement:
    from forkwatch.pipeline.authentic import judge_by_releases
    from forkwatch.pipeline.references import reference, stored_releases
    from forkwatch.pipeline.release_section import require_agreement
    from forkwatch.settings import load_settings
    from forkwatch.state import find_state_dir

    rows: Sequence[Release] = stored_releases(find_state_dir())
    if release is not None:
        rows = [row for row in rows if row.repo == release]
        if not rows:
            raise UnknownReleaseError(f"{release} is not a guarded release")
    if not rows:
        raise NothingToExamineError(
            "there is nothing to compare with: no release is guarded, and nobody is trusted",
            tip="Give --public-key, or add a release with `forkwatch release add`.",
        )
    settings = load_settings()
    for row in rows:  # all of them: a release that is left out would make its copies strangers
        require_agreement(settings, row)
    references = [reference(row) for row in rows]
    if signature is not None:
        references = [replace(one, signature=signature) for one in references]
    return judge_by_releases(subject, references, at=datetime.now(UTC), named=release is not None)
