"""`forkwatch crawl`."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, ReleaseOption
from forkwatch.cli.output import data_json, say, table
from forkwatch.errors import NothingToExamineError, SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from crawler.interface import Channel
    from forkwatch.pipeline.crawl import Crawl
    from forkwatch.store.values import Known

_AGO = re.compile(r"(\d{1,5})([hdw])", re.ASCII)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@handled
def crawl(
    release: ReleaseOption = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            metavar="NAME",
            help="Walk this channel's listings only, and leave known forks alone; may be repeated.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="DATE",
            help="Look at what changed since then: a date, a time, or 7d, 12h, 2w ago.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Find candidates for forks of a release, and what became of known ones, without reading any weights."""
    from forkwatch.cli.session import session, utc_now
    from forkwatch.pipeline.crawl import crawl as find_candidates
    from forkwatch.pipeline.originals import find_release, open_original
    from forkwatch.pipeline.run import require_rows

    channels = chosen(channel)
    start = None if since is None else moment(since, utc_now())
    with session() as context:
        original = open_original(context, find_release(context, release))
        done = find_candidates(context, original.release_id, original.repo, channels=channels, since=start)
    if channels is None and start is None:  # else there may be nothing to list
        require_rows(done)
    if not done.candidates:
        raise NothingToExamineError(
            f"no candidate was found for {original.repo}", tip="Check [crawl] and the Hub."
        )
    if json_output:
        data_json(_document(original.name, done))
        return
    _print(original.repo, done)


def chosen(names: list[str] | None) -> tuple[Channel, ...] | None:
    """The channels that `--channel` names.

    Raises:
        SettingsError: one of them is none.
    """
    from crawler.interface import Channel

    if not names:
        return None
    known = [channel for channel in Channel if channel is not Channel.DIRECT]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"no channel is called '{unknown[0]}'", tip=f"Channels: {', '.join(known)}.")
    return tuple(channel for channel in known if channel in names)


def moment(text: str, now: datetime) -> datetime:
    """A time that `--since` names: ISO 8601 (UTC without an offset), or so many hours, days or weeks ago.

    Raises:
        SettingsError: it is none, or not in the past.
    """
    tip = "Write it like 2026-11-01, 2026-11-01T12:00, 12h, 7d or 2w."
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"--since: '{text}' is no date", tip=tip) from error
    if found > now:
        raise SettingsError(f"--since: '{text}' is in the future", tip=tip)
    return found


def _document(release: str, done: Crawl) -> dict[str, object]:
    return {
        "schema": "forkwatch.crawl/1",
        "release": release,
        "candidates": [_candidate(known, done) for known in done.candidates],
        "channels": {str(channel): count for channel, count in done.by_channel().items()},
        "new": len(done.new),
        "events": [
            {"repo": event.repo, "kind": str(event.kind), "before": event.before, "after": event.after}
            for event in done.events
        ],
        "gone": [known.repo for known in done.candidates if known.gone_at is not None],
        "complete": not done.left_out,
        "left_out": list(done.left_out),
        "listings": done.listings,
        "rows": done.rows,
        "looked_at": done.looked,
        "cost": asdict(done.cost),
    }


def _candidate(known: Known, done: Crawl) -> dict[str, object]:
    return {
        "repo": known.repo,
        "channels": [str(channel) for channel in known.channels],
        "claims": [
            {
                "base": claim.base,
                "relation": None if claim.relation is None else str(claim.relation),
                "statement": claim.statement,
                "faithful": claim.faithful,
            }
            for claim in known.claims
        ],
        "new": known.gone_at is None and known.repo in done.new,
        "first_seen": known.first_seen.isoformat(timespec="seconds"),
        "gone_at": None if known.gone_at is None else known.gone_at.isoformat(timespec="seconds"),
    }


def _print(release: str, done: Crawl) -> None:
    present = done.present
    gone = len(done.candidates) - len(present)
    rows = [
        (
            known.repo,
            ", ".join(known.channels),
            known.claims[0].statement if known.claims else "",
            "new" if known.repo in done.new else "",
        )
        for known in present
    ]
    title = (
        f"{len(present)} candidates for {release} ({len(done.new)} new, {gone} gone;"
        f" {done.cost.requests} requests)"
    )
    table(title, ("repository", "found by", "claim", ""), rows)
    for event in done.events:
        say(plain(f"{event.repo}: {event.kind} {event.before} {event.after}".rstrip(), 300))
    for reason in done.left_out:
        say(plain(f"not complete: {reason}", 300))
