"""What is news enough to be told at once, and telling it: by webhook, mail or command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import TYPE_CHECKING, Any

from forkwatch.errors import ForkwatchError
from forkwatch.sections.telling import AlertSettings
from forkwatch.settings import Settings
from forkwatch.store.messages import Message, Rules
from forkwatch.store.upstream import UpstreamEvent
from forkwatch.text import plain
from reports.scan import ScanDocument, VerdictLabel

if TYPE_CHECKING:
    from forkwatch.store.outbox import Outbox

SCHEMA = "forkwatch.alert/1"
TIMEOUT_SECONDS = 30.0
"""For one webhook or command."""


class AlertError(ForkwatchError):
    """Nobody took a message."""


def rules(settings: AlertSettings) -> Rules:
    """The rules of the settings; without anybody to tell there is no news."""

    def judge(document: ScanDocument, before: VerdictLabel | None) -> tuple[Message, ...]:
        label = document.verdict.label
        changed = "verdict-changed" in settings.on and before is not None and before != label
        is_news = settings.wanted and before != label and (label in settings.on or changed)
        downloads = document.hub.downloads
        if not is_news or (downloads or 0) < settings.min_downloads:
            return ()
        return (verdict_message(document, before, downloads),)

    return judge


def verdict_message(document: ScanDocument, before: VerdictLabel | None, downloads: int | None) -> Message:
    """What happened to one fork, in a few plain values."""
    return Message(
        kind="verdict",
        key=f"verdict:{document.release}:{document.repo}@{document.commit}:{before}>{document.verdict.label}"
        f":{document.scanned_at}",
        payload={
            "schema": SCHEMA,
            "kind": "verdict",
            "repo": plain(document.repo),
            "commit": document.commit,
            "release": document.release,
            "verdict": document.verdict.label,
            "before": before,
            "summary": plain(document.verdict.summary, 600),
            "downloads_30d": downloads,
            "at": document.scanned_at,
        },
    )


def upstream_message(release: str, event: UpstreamEvent) -> Message:
    """A guarded release is no longer on the Hub as it was pinned, and somebody has to decide."""
    change = event.change
    return Message(
        kind="upstream",
        key=f"upstream:{release}:{change.kind}:{change.before}:{change.after}:{event.at.isoformat()}",
        payload={
            "schema": SCHEMA,
            "kind": "upstream",
            "release": release,
            "change": change.kind.value,
            "before": plain(change.before, 200),
            "after": plain(change.after, 200),
            "summary": plain(change.note, 400),
            "at": event.at.isoformat(),
        },
    )


@dataclass(frozen=True, slots=True)
class Teller:
    """Gives messages to everybody of the settings. A message counts as taken when all have taken it."""

    settings: Settings

    def tell(self, message: Message) -> None:
        """Tell everybody.

        Raises:
            AlertError: somebody did not take it; all are told again, and know the copy by its key.
        """
        alerts = self.settings.alerts
        text = json.dumps(dict(message.payload) | {"key": message.key}, ensure_ascii=True)
        if alerts.webhook is not None:
            self._post(alerts.webhook, text, message.key)
        if alerts.command:
            _run(alerts.command, text)
        if alerts.mail:
            self._mail(message, text)

    def _post(self, url: str, text: str, key: str) -> None:
        import httpx2

        headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "forkwatch"}
        if self.settings.alerts.webhook_token_file is not None:
            from evals.endpoint import read_token

            token = read_token(self.settings.folder / self.settings.alerts.webhook_token_file)
            headers["Authorization"] = f"Bearer {token}"
        try:
            answer = httpx2.post(url, content=text.encode(), headers=headers, timeout=TIMEOUT_SECONDS)
        except httpx2.HTTPError as error:
            raise AlertError(f"the webhook cannot be reached: {type(error).__name__}") from error
        if not 200 <= answer.status_code < 300:
            raise AlertError(f"the webhook answered {answer.status_code}")

    def _mail(self, message: Message, text: str) -> None:
        from datetime import datetime

        from forkwatch.smtp import server_of

        server = server_of(self.settings)
        for recipient in self.settings.mail.recipients:
            mail = EmailMessage()
            mail["Subject"] = plain(_subject(message), 150)
            mail["From"], mail["To"] = server.sender, recipient
            mail["Date"] = format_datetime(datetime.fromisoformat(str(message.payload["at"])))
            mail["Message-ID"] = make_msgid(domain="forkwatch.invalid")
            mail["X-Forkwatch-Key"] = plain(message.key, 300)
            mail.set_content("\n".join(f"{name}: {value}" for name, value in json.loads(text).items()))
            server.send(recipient, mail.as_bytes())


def _subject(message: Message) -> str:
    payload: dict[str, Any] = dict(message.payload)
    if message.kind == "verdict":
        return f"[forkwatch] {payload['verdict']}: {payload['repo']}"
    return f"[forkwatch] {message.kind}: {payload.get('summary', '')}"


def _run(command: Sequence[str], text: str) -> None:
    try:
        done = subprocess.run(  # the operator's own command; hostile text only on its stdin
            list(command), input=text.encode(), capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AlertError(f"the command failed: {type(error).__name__}") from error
    if done.returncode != 0:
        raise AlertError(f"the command ended with status {done.returncode}")


def deliver(outbox: Outbox, teller: Teller) -> tuple[int, int]:
    """Send what is due; how many were taken, and how many were not."""
    taken = 0
    due = outbox.due()
    for message in due:
        try:
            teller.tell(message)
        except Exception as error:  # noqa: BLE001 - one message that cannot be sent must not hold the others
            outbox.failed(message, str(error))
        else:
            outbox.sent(message)
            taken += 1
    return taken, len(due) - taken
