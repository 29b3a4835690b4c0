"""`forkwatch attest key|sign|verify`: verdicts that carry the operator's signature."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.inputs import read_text
from forkwatch.cli.options import JsonOption, ReleaseOption
from forkwatch.cli.output import data, data_json, say
from forkwatch.errors import Exit, NothingToExamineError, SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from detector.provenance.keys import SigningKey
    from forkwatch.pipeline.attest import Checked
    from forkwatch.pipeline.context import Context
    from forkwatch.store.models import Release
    from reports.scan import ScanDocument

app = typer.Typer(help="Signed verdicts (docs/attestation.md).", no_args_is_help=True)

_KEY_TIP = "`forkwatch attest key` makes one; `private_key` under [attest] names your own."


@app.command("key")
@handled
def key(
    rotate: Annotated[bool, typer.Option("--rotate", help="Retire the key and make another.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Make the operator's key, or show the one that is there; prints the public key."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.operator import find_key, new_key, used_keys

    with session() as context:
        state, settings = context.state, context.settings
        if rotate and settings.attest.private_key is not None:
            raise SettingsError("the settings name the key", tip="Put another at that path to rotate.")
        present = None if rotate else find_key(state, settings)
        current = (present or new_key(state, rotate=rotate)).public
        retired = [used.fingerprint for used in used_keys(state) if used.fingerprint != current.fingerprint]
    if json_output:
        data_json(
            {
                "schema": "forkwatch.operator-key/1",
                "id": current.fingerprint,
                "public_key": current.pem.decode(),
                "retired": retired,
            }
        )
        return
    data(current.pem.decode().rstrip())
    say(f"Key {current.fingerprint}; publish it where your readers can check it, not only on the site.")


@app.command("sign")
@handled
def sign(
    what: Annotated[
        str, typer.Argument(metavar="SCAN.json|ORG/NAME", help="A scan document or a judged repository.")
    ],
    release: ReleaseOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write (default: stdout).")] = None,
) -> None:
    """Sign the verdict of a scan document, or the newest one about a repository."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.operator import find_key

    with session() as context:
        signing_key = find_key(context.state, context.settings)
        if signing_key is None:
            raise SettingsError("there is no key to sign with", tip=_KEY_TIP)
        if Path(what).is_file():
            bundle = _sign_document(context, _document(Path(what)), signing_key)
        else:
            bundle = _sign_stored(context, what, release, signing_key)
    if out is None:
        data(bundle.rstrip())
        return
    try:
        out.write_text(bundle)
    except OSError as error:
        raise SettingsError(f"cannot write {out}: {error.strerror}", tip="Choose another place.") from error
    say(f"Wrote {out}.")


@app.command("verify")
@handled
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A signed verdict.")],
    public_key: Annotated[
        list[Path],
        typer.Option("--public-key", help="PEM of an operator's key; repeatable."),
    ],
    scan: Annotated[Path | None, typer.Option("--scan", help="Scan document to hold it against.")] = None,
    repo_path: Annotated[
        Path | None, typer.Option("--repo-path", help="Folder of weights to hold it against.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Verify a signed verdict: 0 verified, 1 about other files than given, 6 signature invalid."""
    from detector.errors import InvalidAttestationError
    from detector.provenance.keys import load_public_key
    from forkwatch.pipeline.attest import check_attestation
    from reports.interface import InvalidDocumentError

    if repo_path is not None and not repo_path.is_dir():
        raise SettingsError(f"{repo_path} is not a folder", tip="Check the path.")
    keys = [load_public_key(_bytes(path)) for path in public_key]
    given = None if scan is None else read_text(scan)
    try:
        checked = check_attestation(_bytes(file), keys, scan=given, folder=repo_path)
    except InvalidAttestationError as error:
        if json_output:
            data_json(
                {"schema": "forkwatch.attest-verify/1", "result": "invalid", "reason": plain(str(error))}
            )
        raise
    except InvalidDocumentError as error:
        raise SettingsError(f"{scan} is not a scan document: {plain(str(error))}", tip="") from error
    if json_output:
        data_json(_shown(checked))
    else:
        _tell(checked)
    raise typer.Exit(Exit.FINDING if checked.differences else Exit.OK)


def _shown(checked: Checked) -> dict[str, object]:
    return {
        "schema": "forkwatch.attest-verify/1",
        "result": "differs" if checked.differences else "verified",
        "key": checked.key.fingerprint,
        "differences": [plain(text) for text in checked.differences],
        "predicate": asdict(checked.predicate),
    }


def _tell(checked: Checked) -> None:
    predicate = checked.predicate
    snapshot, verdict = predicate.snapshot, predicate.verdict
    lines = [
        f"{snapshot.repo}@{snapshot.commit[:12]}: {verdict.label} ({verdict.certainty})",
        f"  {verdict.summary}",
        f"  compared with {predicate.release.name}, judged {predicate.judged_at} by {predicate.program}",
        f"  signed with key {checked.key.fingerprint}",
    ]
    lines += [f"  not measured: {gap}" for gap in predicate.not_measured]
    lines += [f"  differs: {difference}" for difference in checked.differences]
    data("\n".join(plain(line, 1000) for line in lines))


def _sign_document(context: Context, document: ScanDocument, signing_key: SigningKey) -> str:
    """With what the store knows of the repository, if it does."""
    from forkwatch.pipeline.attest import attest

    rows = context.store.releases()
    row = next((row for row in rows if f"{row.repo}@{row.commit}" == document.release), None)
    repo_id = None if row is None else _judged(context, row, document.repo)
    examined = None
    if row is not None and repo_id is not None:
        examined = context.store.examined(repo_id, document.commit, row.root_digest)
    return attest(document, row, examined, signing_key)


def _sign_stored(context: Context, repo: str, release: str | None, signing_key: SigningKey) -> str:
    from crawler.interface import parse_repo_id
    from forkwatch.pipeline.attest import sign_verdict
    from forkwatch.pipeline.run import release_of

    parse_repo_id(repo)
    row = release_of(context, repo, release)
    repo_id = _judged(context, row, repo)
    if row.id is None or repo_id is None:
        raise NothingToExamineError(f"there is no verdict about {repo}", tip="`forkwatch scan` makes one.")
    log = context.store.verdicts(row.id)
    newest = next(verdict.document for verdict in reversed(log) if verdict.repo_id == repo_id)
    return sign_verdict(context.store, row, repo_id, replace(newest, repo=repo), signing_key).bundle


def _judged(context: Context, row: Release, repo: str) -> int | None:
    """The repository that holds a name, or held it, when it has a verdict against a release."""
    if row.id is None:
        raise AssertionError("a stored release has an id")
    judged = {verdict.repo_id for verdict in context.store.verdicts(row.id)}
    held = [found for found in context.store.histories(judged).values() if found.repo == repo]
    held.sort(key=lambda history: history.gone_at is None)
    return held[-1].repo_id if held else None


def _document(path: Path) -> ScanDocument:
    from reports.document import from_json
    from reports.interface import InvalidDocumentError

    try:
        return from_json(read_text(path))
    except InvalidDocumentError as error:
        raise SettingsError(f"{path} is not a scan document: {plain(str(error))}", tip="") from error


def _bytes(path: Path) -> bytes:
    from detector.provenance.container import MAX_BUNDLE_BYTES

    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", tip="Check the path.") from error
