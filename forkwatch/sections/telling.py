"""Sections [site], [mail] and [alerts]: who learns what was found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from forkwatch.sections.base import Section
from reports.text import is_https_url, is_mail_address

_HERE = re.compile(r"http://127\.0\.0\.1(:\d{1,5})?(/[!-~]*)?")
"""A webhook on this machine: nothing else may listen to what goes there, so that it needs no TLS."""

AlertName = Literal["safety-removed", "safety-degraded", "misrepresented", "unsafe-files", "verdict-changed"]


class SiteSettings(Section):
    """The published site."""

    base_url: str | None = None
    """The https address that it is published at; None: mails and feeds have no absolute links."""
    contact: str | None = Field(default=None, max_length=200)
    """Where results are disputed: a mail address, an https address, or a sentence."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_https_url(value):
            raise ValueError("it is no plain https address, like 'https://example.org/forkwatch/'")
        return value


class MailSettings(Section):
    """How the weekly digest is sent. Mail leaves this machine over TLS only."""

    host: str | None = None
    """Of the SMTP server; None: nothing is sent."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """None: 587 with starttls, 465 with ssl."""
    security: Literal["starttls", "ssl"] = "starttls"
    """A server that does not offer it gets nothing: neither mail nor password."""
    ca_file: Path | None = None
    """PEM of the server's root; None: the roots that the system trusts."""
    user: str | None = None
    password_file: Path | None = None
    """Readable by its owner alone; the password is its first line."""
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    """Each gets a message of its own, and sees no other address."""
    timeout_seconds: float = Field(default=30.0, gt=0, le=120)
    attempts: int = Field(default=4, ge=1, le=8)
    """For one recipient in one run."""
    pause_seconds: float = Field(default=5.0, ge=0, le=60)
    """Before the second attempt; each further pause is twice as long."""

    @field_validator("sender", "recipients")
    @classmethod
    def _are_addresses(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for address in (value,) if isinstance(value, str) else value or ():
            if not is_mail_address(address):
                raise ValueError(f"{address!r} is no plain mail address")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> MailSettings:
        if self.host is not None and (self.sender is None or not self.recipients):
            raise ValueError("a host needs a sender and recipients")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("a user and a password_file go together")
        return self


class AlertSettings(Section):
    """Who is told at once, and of what. At least once each, by a key that tells a copy from news."""

    on: tuple[AlertName, ...] = ("safety-removed", "misrepresented", "unsafe-files")
    """Verdicts that are news; `verdict-changed`: every change of one."""
    min_downloads: int = Field(default=0, ge=0)
    """Of the last 30 days; forks with fewer are no news."""
    upstream: bool = True
    """A guarded release changed upstream: its signature, its owner, its files."""
    stalled: bool = True
    webhook: str | None = None
    """Gets a POST of JSON with an Idempotency-Key."""
    webhook_token_file: Path | None = None
    """Sent as a bearer token; readable by its owner alone."""
    command: tuple[str, ...] = ()
    """Started with the JSON on its standard input."""
    mail: bool = False
    """To the recipients of [mail]."""

    @field_validator("webhook")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_https_url(value) and not _HERE.fullmatch(value):
            raise ValueError("it is no plain https address")
        return value

    @property
    def wanted(self) -> bool:
        """Somebody is to be told."""
        return self.webhook is not None or bool(self.command) or self.mail
