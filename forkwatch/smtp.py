"""Handing one message to an SMTP server, over TLS only (standard library).

A server that does not offer TLS, or whose certificate does not verify, gets neither mail nor password.
"""

from __future__ import annotations

import smtplib
import ssl
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from forkwatch.errors import Exit, ForkwatchError, SettingsError
from forkwatch.settings import Settings
from forkwatch.text import plain


class MailError(ForkwatchError):
    """The server did not take a message."""

    code = Exit.HUB
    tip = "Check [mail] in the settings; `forkwatch digest --send` tries again."

    def __init__(self, message: str, *, again: bool, uncertain: bool = False) -> None:
        super().__init__(message)
        self.again = again
        """It may help to try again."""
        self.uncertain = uncertain
        """The server may have taken the message all the same: its answer was lost."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where messages go, and how."""

    host: str
    port: int
    security: str
    context: ssl.SSLContext
    user: str | None
    password: str | None
    sender: str
    timeout: float

    def send(self, recipient: str, message: bytes) -> None:
        """Give the server one message for one recipient.

        Raises:
            MailError: it is not known to have taken it.
        """
        try:
            connection = self._connect()
            try:
                if self.user is not None and self.password is not None:
                    connection.login(self.user, self.password)
                _hand_over(connection, self.sender, recipient, message)
                with suppress(OSError):  # SMTPException is one; the message is theirs, whatever they say now
                    connection.quit()
            finally:
                connection.close()
        except smtplib.SMTPResponseException as error:
            code, said = error.smtp_code, plain(_words(error.smtp_error), 200)
            raise MailError(f"{self.host} answered {code} {said}", again=400 <= code < 500) from error
        except smtplib.SMTPNotSupportedError as error:
            raise MailError(f"{self.host}: {plain(str(error), 200)}", again=False) from error
        except ssl.SSLCertVerificationError as error:
            raise MailError(f"{self.host}: {plain(error.verify_message, 200)}", again=False) from error
        except (OSError, smtplib.SMTPException) as error:  # the network; SMTPException is an OSError
            raise MailError(f"{self.host}: {plain(str(error), 200) or 'no answer'}", again=True) from error

    def _connect(self) -> smtplib.SMTP:
        if self.security == "ssl":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=self.context)
        connection = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        try:
            connection.starttls(context=self.context)
        except BaseException:
            connection.close()
            raise
        return connection


def _hand_over(connection: smtplib.SMTP, sender: str, recipient: str, message: bytes) -> None:
    """MAIL, RCPT, DATA one by one, to know whether a failure came before the message was complete."""
    for code, said in (connection.ehlo(), connection.mail(sender), connection.rcpt(recipient)):
        if not 200 <= code < 300:
            raise smtplib.SMTPResponseException(code, said)
    try:
        code, said = connection.data(message)
    except smtplib.SMTPDataError:
        raise  # refused before the first byte
    except (OSError, smtplib.SMTPServerDisconnected) as error:
        raise MailError(
            f"the connection broke while the message was handed over: {plain(str(error), 200)}",
            again=True,
            uncertain=True,
        ) from error
    if code != 250:
        raise smtplib.SMTPResponseException(code, said)


def server_of(settings: Settings) -> Server:
    """The server of the settings.

    Raises:
        SettingsError: there is none, or a file of it cannot be used.
    """
    mail = settings.mail
    if mail.host is None or mail.sender is None:
        raise SettingsError("nowhere to send to", tip="Set host, sender and recipients under [mail].")
    default = 465 if mail.security == "ssl" else 587
    password = None if mail.password_file is None else _password(settings.folder / mail.password_file)
    return Server(
        host=mail.host,
        port=mail.port or default,
        security=mail.security,
        context=_context(None if mail.ca_file is None else settings.folder / mail.ca_file),
        user=mail.user,
        password=password,
        sender=mail.sender,
        timeout=mail.timeout_seconds,
    )


def _context(path: Path | None) -> ssl.SSLContext:
    if path is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(path))
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"mail.ca_file: cannot use {path}", tip="It is a PEM of roots.") from error


def _password(path: Path) -> str:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(f"mail.password_file: others can read {path}", tip=f"chmod 600 {path}")
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"mail.password_file: cannot read {path}", tip="Check the path.") from error
    if not lines or not lines[0]:
        raise SettingsError(f"mail.password_file: {path} is empty", tip="The password is its first line.")
    return lines[0]


def _words(answer: bytes | str) -> str:
    return answer if isinstance(answer, str) else answer.decode("utf-8", "replace")
