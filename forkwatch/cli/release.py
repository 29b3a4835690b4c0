"""`forkwatch release add|list|verify`; what happens upstream is in `release_upstream`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli import release_upstream
from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data_json, say, table
from forkwatch.cli.trust_options import (
    BundleOption,
    IdentityOption,
    IssuerOption,
    KeyOption,
    LegacyOption,
    ReregisteredOption,
    RootOption,
    SpkiOption,
    SubjectOption,
    TrustedRootOption,
    UnsignedOption,
    agreed,
    whom_to_trust,
)
from forkwatch.errors import SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from forkwatch.pipeline.originals import Original
    from forkwatch.store.models import Release

app = typer.Typer(help="The releases that are guarded.", no_args_is_help=True)
app.command("check")(release_upstream.check)
app.command("adopt")(release_upstream.adopt)
app.command("keep")(release_upstream.keep)


@app.command("add")
@handled
def add(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME")],
    public_key: KeyOption = None,
    certificate_root: RootOption = None,
    certificate_subject: SubjectOption = None,
    certificate_spki: SpkiOption = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trusted_root: TrustedRootOption = None,
    unsigned: UnsignedOption = False,
    legacy: LegacyOption = False,
    suite: Annotated[
        Path | None,
        typer.Option("--suite", help="Prompt suite (default: the one that it has, else the built-in one)."),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit, tag or branch to pin.")] = None,
    signature: BundleOption = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Move the pin, trust others, or take another suite."),
    ] = False,
    reregistered: ReregisteredOption = False,
) -> None:
    """Fetch a release, verify its signature, and guard it.

    Whom to trust is said by options, or by the release's section in the settings.
    """
    from evals.suite import CORE
    from forkwatch.cli.session import session
    from forkwatch.pipeline.known import keep_release
    from forkwatch.pipeline.originals import add_release
    from forkwatch.settings import load_settings
    from forkwatch.trust import STATES

    settings = load_settings()
    options = {
        "public_key": public_key,
        "certificate_roots": certificate_root,
        "certificate_subjects": certificate_subject,
        "certificate_spki": certificate_spki,
        "identity": identity,
        "issuer": issuer,
        "trusted_root": trusted_root,
        "unsigned": unsigned,
        "legacy": legacy,
    }
    section, policy = whom_to_trust(settings, repo, options)
    revision = agreed(repo, "revision", revision, None if section is None else section.revision)
    signature = agreed(repo, "signature", signature, None if section is None else section.signature)
    content = None if suite is None else _suite(suite)
    with session(settings) as context:
        original = add_release(
            context,
            repo,
            policy=policy,
            suite=content,
            revision=revision,
            signature=signature or "model.sig",
            replace=replace,
            reregistered=reregistered,
        )
        keep_release(context, original)
    say(f"Guarding {original.name}: {STATES[original.signature]}, {_count(original)} files covered.")
    if suite is None and original.suite.read_bytes() != CORE.read_bytes():
        say(f"Measured with the prompt suite that it has; the built-in one is {CORE}.")


def _suite(path: Path) -> bytes:
    from evals.suite import load_suite

    if not path.is_file():
        raise SettingsError(f"{path} is not a file", tip="Check the path.")
    load_suite(path)
    return path.read_bytes()


def _count(original: Original) -> int:
    return len(original.manifest.files)


@app.command("list")
@handled
def list_releases(json_output: JsonOption = False) -> None:
    """List the guarded releases: whom each is believed to come from, and what there is to decide."""
    from dataclasses import asdict

    from forkwatch.cli.session import session
    from forkwatch.pipeline.cards import published_card
    from forkwatch.store.upstream import open_events, upstream_events
    from forkwatch.trust import STATES, load_policy

    with session() as context:
        rows = context.store.releases()
        waiting = {row.id: len(open_events(upstream_events(context.store, row.id or 0))) for row in rows}
        cards = {row.id: published_card(context, row) for row in rows}
    policies = {row.id: load_policy(row.trust) for row in rows}
    if json_output:
        shown = [
            {
                "repo": row.repo,
                "commit": row.commit,
                "root_digest": row.root_digest,
                "signer": row.signer,
                "signature": row.status,
                "trust": list(policies[row.id].modes),
                "verified_at": _time(row),
                "to_decide": waiting[row.id],
                "card": None if (card := cards[row.id]) is None else asdict(card),
            }
            for row in rows
        ]
        data_json({"schema": "forkwatch.releases/1", "releases": shown})
        return
    states = {str(status): said for status, said in STATES.items()}
    table(
        "Guarded releases",
        ("release", "commit", "trust", "state", "signer", "to decide"),
        [
            (
                row.repo,
                row.commit[:12],
                ", ".join(policies[row.id].modes),
                states[row.status],
                row.signer or "nobody",
                str(waiting[row.id]),
            )
            for row in rows
        ],
    )


def _time(row: Release) -> str:
    return row.verified_at.isoformat(timespec="seconds")


@app.command("verify")
@handled
def verify(
    repo: Annotated[str | None, typer.Argument(metavar="ORG/NAME")] = None, json_output: JsonOption = False
) -> None:
    """Verify one guarded release, or all: its signature, or that it is as it was pinned."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.known import keep_release
    from forkwatch.pipeline.originals import find_releases, open_original
    from forkwatch.trust import STATES, load_policy

    with session() as context:
        rows = find_releases(context, repo)
        originals = [open_original(context, row) for row in rows]
        for original in originals:
            keep_release(context, original)
    if json_output:
        shown = [
            {
                "release": original.name,
                "signature": str(original.signature),
                "signer": original.signer,
                "root_digest": original.root_digest,
                "trust": list(load_policy(row.trust).modes),
                "verified_at": _time(row),
                "files": _count(original),
            }
            for row, original in zip(rows, originals, strict=True)
        ]
        data_json({"schema": "forkwatch.verify/1", "releases": shown})
        return
    for row, original in zip(rows, originals, strict=True):
        by = f"signed by {plain(original.signer)}" if original.signer else f"as pinned at {_time(row)}"
        say(f"{original.name}: {STATES[original.signature]}, {_count(original)} files, {by}")
