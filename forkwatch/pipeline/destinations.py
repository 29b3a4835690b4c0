"""From what a user asks for to a publisher, and from a built site to what is published."""

from __future__ import annotations

from pathlib import Path

from forkwatch.errors import Exit, ForkwatchError
from forkwatch.pipeline.context import Context
from forkwatch.publish.interface import REBUILD, Publisher, PublishResult
from reports.manifest import read_manifest
from reports.switch import sole_builder
from reports.verify import Problem, verify


class UnfitSiteError(ForkwatchError):
    """The site must not be published as it is."""

    code = Exit.FINDING
    tip = "`forkwatch report verify` lists all of it; `forkwatch report build --full` builds it anew."

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = problems[0]
        super().__init__(f"{len(problems)} problems, the first: {first.path}: {first.what}")


class NoSiteError(ForkwatchError):
    """There is no built site."""

    code = Exit.INCONCLUSIVE
    tip = "Run `forkwatch run --once` or `forkwatch report build`."


def publish_site(context: Context, site: Path, publisher: Publisher, *, check: bool = True) -> PublishResult:
    """Verify a built site and send it where it belongs; no build replaces it meanwhile.

    Raises:
        NoSiteError: there is none.
        UnfitSiteError: it must not be published.
        PublishError: the destination refuses.
    """
    with sole_builder(site):
        manifest = read_manifest(site)
        if manifest is None:
            tip = REBUILD if site.exists() else NoSiteError.tip
            raise NoSiteError(f"there is no whole site at {site}", tip=tip)
        if check:
            context.talk.stage("site", "verify")
            if problems := verify(site):
                raise UnfitSiteError(problems)
        context.talk.stage("site", "publish")
        return publisher.publish(site, manifest)
