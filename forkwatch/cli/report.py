"""`forkwatch report build|serve|publish|verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.output import data, say
from forkwatch.errors import Exit, SettingsError

if TYPE_CHECKING:
    from forkwatch.pipeline.context import Context
    from forkwatch.publish.interface import Publisher

app = typer.Typer(help="The site and the digest.", no_args_is_help=True)

Site = Annotated[Path | None, typer.Option("--site", help="The built site (default: in the state folder).")]


@app.command("build")
@handled
def build(
    out: Annotated[Path | None, typer.Option("--out", help="Folder (default: in the state folder).")] = None,
    full: Annotated[bool, typer.Option("--full", help="Render also what did not change.")] = False,
) -> None:
    """Build the site and this week's digest from stored verdicts."""
    from forkwatch.pipeline.collecting import collect_seldom

    collect_seldom()
    from forkwatch.cli.session import session
    from forkwatch.cli.writing import writing_to
    from forkwatch.pipeline.publish import publish

    with session() as context:
        place = context.state.site if out is None else out.absolute().parent
        with writing_to(place):
            published = publish(context, out, full=full, may_fork=True)
    report = published.report
    say(
        f"{published.forks} forks; {len(report.written)} files written, {len(report.removed)} removed, "
        f"{report.kept} as they were; digest: {published.digest}"
    )
    data(str(published.site / "index.html"))


@app.command("serve")
@handled
def serve(
    port: Annotated[
        int, typer.Option("--port", help="Port on 127.0.0.1; 0 picks a free one.", min=0, max=65535)
    ] = 8787,
) -> None:
    """Serve the built site on this machine, until interrupted."""
    from forkwatch.cli.serve import serve_folder
    from forkwatch.errors import NothingToExamineError
    from forkwatch.state import find_state_dir

    site = find_state_dir().site
    if not (site / "index.html").is_file():
        raise NothingToExamineError(
            "there is no site yet", tip="Run `forkwatch run --once` or `forkwatch report build`."
        )
    serve_folder(site, port)


@app.command("verify")
@handled
def verify(site: Site = None) -> None:
    """Check a built site: hashes, links, schemas, content policy, sizes, no secret and no raw answer."""
    from forkwatch.pipeline.destinations import NoSiteError
    from forkwatch.state import find_state_dir
    from forkwatch.text import plain
    from reports.numbers import plural
    from reports.verify import verify as check

    place = site or find_state_dir().site
    if not place.is_dir():
        raise NoSiteError(f"there is no site at {place}")
    problems = check(place)
    for problem in problems:
        data(plain(f"{problem.path}: {problem.what}", 500))
    if problems:
        say(plural(len(problems), "problem"))
        raise typer.Exit(Exit.FINDING)
    say("nothing is wrong with it")


@app.command("publish")
@handled
def publish(
    directory: Annotated[
        Path | None, typer.Option("--directory", help="Folder from which a web server serves `current`.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", help="Git remote; its branch gh-pages is replaced.")
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Static Space on the Hub, org/name; private when it is new.")
    ] = None,
    s3: Annotated[
        str | None, typer.Option("--s3", help="Bucket of an S3-compatible store, s3://bucket/prefix.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="With --s3: address of the store, if not Amazon's.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new Space public.")] = False,
    keep: Annotated[int, typer.Option("--keep", help="Publications that --directory keeps.", min=1)] = 5,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="With --directory: back to the publication before.")
    ] = False,
    site: Site = None,
) -> None:
    """Verify the built site and send what differs from what is published."""
    from forkwatch.cli.session import session
    from forkwatch.cli.writing import writing_to
    from forkwatch.pipeline.destinations import publish_site
    from forkwatch.publish.directory import DirectoryPublisher

    if sum(place is not None for place in (directory, branch, space, s3)) != 1:
        raise SettingsError("choose one of --directory, --branch, --space and --s3", tip="See `--help`.")
    if (rollback and directory is None) or (public and space is None) or (endpoint and s3 is None):
        raise SettingsError(
            "--rollback goes with --directory, --public with --space, --endpoint with --s3",
            tip="See `--help`.",
        )
    with session() as context:
        built = site or context.state.site
        if directory is None:
            remote = _bucket(s3, endpoint) if s3 else _remote(context, branch, space, public=public)
            result = publish_site(context, built, remote)
        else:
            here = DirectoryPublisher(directory.resolve(), context.now, keep)
            with writing_to(here.root):
                if rollback:
                    data(here.rollback())
                    return
                result = publish_site(context, built, here)
    sent = f"{result.sent} files sent ({result.sent_bytes:,} bytes)"
    say(f"{sent}, {result.removed} removed, {result.kept} kept")
    data(result.place)


def _remote(context: Context, branch: str | None, space: str | None, *, public: bool) -> Publisher:
    from crawler.interface import parse_repo_id
    from forkwatch.publish.branch import BranchPublisher
    from forkwatch.publish.space import SpacePublisher
    from forkwatch.settings import publish_token

    if branch is not None:
        return BranchPublisher(branch, context.state.root / "publish" / "pages.git")
    repo, endpoint = parse_repo_id(space or ""), context.settings.hub.endpoint
    return SpacePublisher(endpoint, repo, publish_token(), public=public)


def _bucket(s3: str, endpoint: str | None) -> Publisher:
    from forkwatch.publish.bucket import BucketPublisher, parse_bucket

    bucket, prefix = parse_bucket(s3)
    return BucketPublisher(bucket, prefix, endpoint)
