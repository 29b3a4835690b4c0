"""`forkwatch verify`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
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
)
from forkwatch.errors import Exit, NothingToExamineError, SettingsError, UnknownReleaseError

if TYPE_CHECKING:
    from detector.provenance.hash_cache import HashCache
    from detector.provenance.interface import Trust
    from forkwatch.pipeline.authentic import Judgement
    from forkwatch.pipeline.sides import Side
    from forkwatch.pipeline.subjects import Subject


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

    side = parse_side(subject)
    certificates = (certificate_root or [], certificate_subject or [], certificate_spki or [])
    trust = _trust(public_key, certificates, (identity, issuer, trusted_root), legacy=legacy)
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


def _trust(
    public_key: Path | None,
    certificates: tuple[list[Path], list[str], list[str]],
    keyless: tuple[str | None, str | None, Path | None],
    *,
    legacy: bool,
) -> Trust | None:
    """Whom the options say to trust; None when they do not."""
    from detector.provenance.interface import CertificateTrust, KeylessTrust, KeyTrust, Signer, Trust

    signers: list[Signer] = []
    if public_key is not None:
        signers.append(KeyTrust(_content(public_key)))
    roots, subjects, spki = certificates
    if bool(roots) != bool(subjects or spki):
        raise SettingsError(
            "a certificate root and a pin of the signer go together",
            tip="Give --certificate-root with --certificate-subject or --certificate-spki.",
        )
    if roots:
        pems = tuple(_content(root) for root in roots)
        signers.append(CertificateTrust(pems, tuple(subjects), tuple(spki)))
    identity, issuer, trusted_root = keyless
    if bool(identity) != bool(issuer) or (trusted_root and not identity):
        raise SettingsError("an identity and its issuer go together", tip="Give --identity with --issuer.")
    if identity and issuer:
        root = None if trusted_root is None else _content(trusted_root)
        signers.append(KeylessTrust(identity, issuer, root))
    if legacy and not signers:
        raise SettingsError("--legacy says how, not whom to trust", tip="Name a key, root or identity, too.")
    return Trust(tuple(signers), legacy=legacy) if signers else None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", tip="Check the path.") from error


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
    from forkwatch.state import find_state_dir

    rows = stored_releases(find_state_dir())
    if release is not None:
        rows = [row for row in rows if row.repo == release]
        if not rows:
            raise UnknownReleaseError(f"{release} is not a guarded release")
    if not rows:
        raise NothingToExamineError(
            "there is nothing to compare with: no release is guarded, and nobody is trusted",
            tip="Give --public-key, or add a release with `forkwatch release add`.",
        )
    references = [reference(row) for row in rows]
    if signature is not None:
        references = [replace(one, signature=signature) for one in references]
    return judge_by_releases(subject, references, named=release is not None)
