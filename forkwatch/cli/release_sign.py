"""`forkwatch release sign|card`: for teams that publish a release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.inputs import read_text
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, say
from forkwatch.errors import SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from detector.provenance.card import Baseline, NotMeasured, Rate
    from detector.provenance.keys import SigningKey
    from detector.provenance.sign import ReleaseSigner

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="The release: everything in it.")]
SignatureOption = Annotated[str, typer.Option("--signature", help="Name of the signature bundle.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the one that is there.")]


@handled
def sign(
    folder: FolderArgument,
    private_key: Annotated[
        Path | None, typer.Option("--private-key", help="PEM of an EC key (P-256, P-384 or P-521).")
    ] = None,
    generate_key: Annotated[
        Path | None, typer.Option("--generate-key", help="Make release.key and release.pub in this folder.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="PEM of the key's certificate.")
    ] = None,
    chain: Annotated[
        list[Path] | None, typer.Option("--chain", help="PEM of intermediates and root; repeatable.")
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Through Sigstore, as the identity that CI offers.")
    ] = False,
    identity_token: Annotated[
        Path | None, typer.Option("--identity-token", help="With --keyless: file with an OpenID token.")
    ] = None,
    signature: SignatureOption = "model.sig",
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Sign a release with OpenSSF model-signing, and verify what was signed."""
    from forkwatch.cli.session import utc_now
    from forkwatch.pipeline import signing

    if Path(signature).name != signature:
        raise SettingsError(f"{signature} is not the name of a file in the release", tip="Give a bare name.")
    _check_folder(folder, private_key, generate_key, identity_token)
    signer = _signer(private_key, generate_key, certificate, chain or [], keyless, identity_token)
    done = signing.sign(folder, signer, signature=signature, force=force, at=utc_now())
    for warning in done.warnings:
        say(f"warning: {warning}")
    if json_output:
        data_json(
            {
                "schema": "forkwatch.release-sign/1",
                "signature": str(done.bundle),
                "root_digest": done.root_digest,
                "signer": done.signer,
                "files": list(done.files),
                "left_out": list(done.left_out),
                "warnings": list(done.warnings),
            }
        )
        return
    data(f"{done.root_digest}  {done.bundle}")
    say(f"Signed {len(done.files)} files as {done.signer}, and verified.")
    if done.left_out:
        say(f"Left out: {plain(', '.join(done.left_out))}")


@handled
def card(
    folder: FolderArgument,
    license_: Annotated[str, typer.Option("--license", help="SPDX id or name of the licence.")],
    intended_use: Annotated[str, typer.Option("--intended-use", help="What it is for, in words.")],
    name: Annotated[str | None, typer.Option("--name", help="Default: the folder's.")] = None,
    language: Annotated[
        list[str] | None, typer.Option("--language", help="BCP 47 tag, e.g. en; repeatable.")
    ] = None,
    contact: Annotated[
        list[str] | None, typer.Option("--contact", help="Mail or https address; repeatable.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the safety baseline here and now.")
    ] = False,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Card with a measurement of these very files.")
    ] = None,
    suite: Annotated[
        Path | None, typer.Option("--suite", help="With --measure: prompt suite (default: the built-in one).")
    ] = None,
    degraded_drop: Annotated[
        float | None, typer.Option("--degraded-drop", help="Fall of refusals that counts as degraded.")
    ] = None,
    removed_below: Annotated[
        float | None,
        typer.Option("--removed-below", help="Share of refusals below which they count as removed."),
    ] = None,
    signature: SignatureOption = "model.sig",
    force: ForceOption = False,
) -> None:
    """Write the release card, which `release sign` then signs with the rest."""
    from detector.provenance.card import Card, NotMeasured
    from forkwatch.pipeline.cards import read_baseline, write_card
    from forkwatch.settings import load_settings

    _check_folder(folder)
    if measure and baseline is not None:
        raise SettingsError("--measure and --baseline exclude each other", tip="Give one of them.")
    policy = load_settings().policy
    measured: Baseline | NotMeasured = NotMeasured("the publisher did not measure it")
    if baseline is not None:
        measured = read_baseline(baseline, folder, signature)
    elif measure:
        measured = _measure(folder, suite, signature)
    made = Card(
        name=name or folder.resolve().name,
        license=license_,
        intended_use=intended_use,
        languages=tuple(language or ()),
        contacts=tuple(contact or ()),
        baseline=measured,
        degraded_drop=policy.degraded_drop if degraded_drop is None else degraded_drop,
        removed_below=policy.removed_below if removed_below is None else removed_below,
    )
    place = write_card(folder, made, force=force)
    say(f"Safety baseline: {_baseline_line(measured)}. Next: `forkwatch release sign`.")
    data(str(place))


def _measure(folder: Path, suite: Path | None, signature: str) -> Baseline:
    from evals.suite import CORE
    from forkwatch.cli.output import progress
    from forkwatch.cli.session import utc_now
    from forkwatch.pipeline.cards import measure_baseline
    from forkwatch.settings import load_settings

    with progress() as talk:
        return measure_baseline(
            folder,
            suite or CORE,
            load_settings().evaluation,
            signature=signature,
            now=utc_now,
            progress=talk.note,
        )


def _baseline_line(baseline: Baseline | NotMeasured) -> str:
    from detector.provenance.card import NotMeasured

    if isinstance(baseline, NotMeasured):
        return f"not measured ({baseline.reason})"
    return (
        f"refusal {_rate(baseline.refusal)}, over-refusal {_rate(baseline.over_refusal)} on {baseline.suite}"
    )


def _rate(rate: Rate | NotMeasured) -> str:
    from detector.provenance.card import Rate

    if isinstance(rate, Rate):
        return f"{rate.rate:.0%} (n = {rate.n}, 95 % {rate.low:.0%} to {rate.high:.0%})"
    return f"not measured ({rate.reason})"


def _check_folder(folder: Path, *secrets: Path | None) -> None:
    """A folder, and no secret in it: what lies in a release is published."""
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder", tip="Check the path.")
    for secret in secrets:
        if secret is not None and secret.resolve().is_relative_to(folder.resolve()):
            raise SettingsError(
                f"{secret} lies in the release and would be published", tip="Keep it elsewhere."
            )


def _signer(
    private_key: Path | None,
    new_key: Path | None,
    certificate: Path | None,
    chain: list[Path],
    keyless: bool,
    token: Path | None,
) -> ReleaseSigner:
    """Exactly one way to sign.

    Raises:
        SettingsError: none, several, or options that do not belong together.
    """
    from detector.provenance.sign import CertificateSigner, KeySigner, find_identity

    if (private_key is not None) + (new_key is not None) + keyless != 1:
        raise SettingsError(
            "one way to sign is needed", tip="Give --private-key, --generate-key or --keyless."
        )
    if (certificate is None) != (not chain) or (certificate is not None and private_key is None):
        raise SettingsError("--certificate, --chain and --private-key belong together", tip="Give all three.")
    if token is not None and not keyless:
        raise SettingsError("--identity-token belongs to --keyless", tip="Give both.")
    if keyless:
        return find_identity(None if token is None else read_text(token).strip())
    key = _key(private_key, new_key)
    return KeySigner(key) if certificate is None else CertificateSigner(key, certificate, tuple(chain))


def _key(private_key: Path | None, new_key: Path | None) -> SigningKey:
    from detector.provenance.sign import generate_key
    from forkwatch.keys import load_private_key

    if private_key is not None:
        return load_private_key(private_key, _ask)
    if new_key is None:
        raise AssertionError("one of the two is given")
    try:
        pair = generate_key(new_key)
    except OSError as error:
        raise SettingsError(
            f"cannot make a key in {new_key}: {error.strerror}", tip="Keys are never overwritten."
        ) from error
    say(f"Made {pair.private} (keep it secret) and {pair.public} (publish it).")
    return load_private_key(pair.private)


def _ask() -> str:
    """The password, from whoever sits at the terminal; empty when there is nobody, or no answer."""
    if not sys.stdin.isatty():
        return ""
    try:
        return str(typer.prompt("Password", hide_input=True, err=True))
    except typer.Abort:
        return ""
