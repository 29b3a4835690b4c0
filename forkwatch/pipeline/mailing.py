"""The weekly digest: built for a week, written as files, sent once to each recipient."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from forkwatch.clock import wall_clock
from forkwatch.errors import NothingToExamineError, SettingsError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.publish import site_view
from forkwatch.sections.telling import MailSettings
from forkwatch.smtp import MailError, Server, server_of
from forkwatch.store import mailing
from forkwatch.store.mailing import Claim, Draft, Refused
from forkwatch.store.store import Store
from reports.digest import Digest, build_digest
from reports.digest_content import monday
from reports.mail import to_mail
from reports.numbers import week_of


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the digest for one recipient."""

    recipient: str
    state: str
    """`sent`, `sent before`, `being sent` (by another process) or `failed`."""
    note: str = ""


def digest_of(context: Context, week: str | None) -> Digest:
    """The digest of a week; of the last one that is over, when none is named.

    Raises:
        InvalidWeekError: not an ISO week.
        NothingToExamineError: nothing is known yet.
    """
    view = site_view(context)
    if not any(release.scans or release.gaps for release in view.releases):
        raise NothingToExamineError("there is nothing to report", tip="Run `forkwatch run --once` first.")
    chosen = last_week(context.now()) if week is None else week
    if monday(chosen) > context.now().date():
        context.talk.note(f"{chosen} has not begun")
    newest = week_of(view.generated_at)
    if week is None and newest > chosen:
        context.talk.note(f"the newest results are of {newest}; `--week {newest}` shows them")
    return build_digest(view, chosen)


def last_week(now: datetime) -> str:
    """The last ISO week that is over, in UTC."""
    return week_of((now - timedelta(days=7)).isoformat())


def send(context: Context, digest: Digest) -> tuple[Delivery, ...]:
    """Send a digest to each recipient of the settings who has not got it.

    Raises:
        SettingsError: no server is set, or the week is not over: what comes later would never be sent.
    """
    server = server_of(context.settings)
    over = monday(digest.week) + timedelta(days=7)
    if context.now().date() < over:
        raise SettingsError(
            f"{digest.week} is not over",
            tip="Look at it with --preview; it can be sent from Monday on (UTC).",
        )
    recipients = dict.fromkeys(address.lower() for address in context.settings.mail.recipients)
    return tuple(_send(context, server, digest, recipient) for recipient in recipients)


def _send(context: Context, server: Server, digest: Digest, recipient: str) -> Delivery:
    settings = context.settings.mail
    store = Store(context.store.engine, wall_clock)  # claims end, also where results get a fixed time
    held = mailing.claim(
        store,
        digest.week,
        recipient,
        lambda: _draft(digest, server.sender, recipient),
        _longest(settings),
    )
    if isinstance(held, Refused):
        busy = "by another process; should that have died, try again in half an hour"
        return (
            Delivery(recipient, "sent before")
            if held is Refused.SENT
            else Delivery(recipient, "being sent", busy)
        )
    error, uncertain = _attempts(server, held, settings)
    if error is not None:
        mailing.note_failed(store, held, str(error), uncertain=uncertain)
        return Delivery(recipient, "failed", str(error))
    mailing.note_sent(store, held)
    note = "an earlier attempt may have got through; this copy has the same Message-ID"
    return Delivery(recipient, "sent", note if held.uncertain or uncertain else "")


def _longest(settings: MailSettings) -> timedelta:
    """What all attempts may take: some ten answers each, and the pauses between them."""
    answers = 10 * settings.timeout_seconds * settings.attempts
    return timedelta(seconds=60 + answers + settings.pause_seconds * 2**settings.attempts)


def _attempts(server: Server, held: Claim, settings: MailSettings) -> tuple[MailError | None, bool]:
    """The last error, if none got through; and whether one that failed may have got through."""
    uncertain, error = False, None
    for number in range(settings.attempts):
        if number:
            time.sleep(settings.pause_seconds * 2 ** (number - 1))
        try:
            server.send(held.recipient, held.message)
        except MailError as failed:
            error, uncertain = failed, uncertain or failed.uncertain
            if not failed.again:
                break
        else:
            return None, uncertain
    return error, uncertain


def _draft(digest: Digest, sender: str, recipient: str) -> Draft:
    message = to_mail(digest, sender, recipient)
    return Draft(str(message["Message-ID"]), message.as_bytes())
