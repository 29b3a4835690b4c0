"""The digest as files (a page, a text, a message to open in a mail program), and as mail to one person."""

from __future__ import annotations

from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path

from reports.digest import Digest
from reports.interface import ReportsError
from reports.text import clean, is_mail_address

_POLICY = SMTP.clone(cte_type="7bit")
"""CRLF, and ASCII only: nothing depends on what servers on the way can carry."""


class InvalidMailAddressError(ReportsError):
    """Not a mail address of plain characters."""

    tip = "A mail address looks like 'name@example.org'."


@dataclass(frozen=True, slots=True)
class Files:
    """Where a digest was written."""

    page: Path
    text: Path
    mail: Path


def write_digest(digest: Digest, folder: Path) -> Files:
    """Write `<week>.html`, `<week>.txt` and `<week>.eml` to a folder, each in one step.

    The page has absolute links where the site's address is known: it lies outside of the site.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(*(folder / f"{digest.week}.{kind}" for kind in ("html", "txt", "eml")))
    _write(files.page, digest.mail_html.encode("utf-8"))
    _write(files.text, digest.text.encode("utf-8"))
    _write(files.mail, to_draft(digest).as_bytes())
    return files


def to_draft(digest: Digest) -> EmailMessage:
    """The digest as a message without sender and recipients, which the one who sends it fills in.

    Message-ID, Date and boundary follow from the content: building it again gives the same bytes.
    """
    identity = f"{digest.week}\n{digest.subject}\n{digest.text}"
    name = sha256(identity.encode("utf-8")).hexdigest()[:20]
    message = _message(digest, f"<{digest.week}.{name}@digest.forkwatch.invalid>")
    message["X-Unsent"] = "1"
    message.set_boundary(f"=_{name}")
    return message


def to_mail(digest: Digest, sender: str, recipient: str) -> EmailMessage:
    """The digest to one recipient.

    Its Message-ID follows from week, sender and recipient alone: two messages about the same week to the same
    person have the same one, whatever happened in between, so that mail programs and people recognise them.

    Raises:
        InvalidMailAddressError: an address is none of plain characters.
    """
    for address in (sender, recipient):
        if not is_mail_address(address):
            raise InvalidMailAddressError(clean(address, 100))
    domain = sender.rpartition("@")[2]
    name = sha256(f"{digest.week}\n{sender}\n{recipient}".encode()).hexdigest()[:20]
    message = _message(digest, f"<{digest.week}.{name}@{domain}>")
    message["From"] = Address("forkwatch", addr_spec=sender)
    message["To"] = Address(addr_spec=recipient)
    message["List-Id"] = f"forkwatch weekly digest <digest.forkwatch.{domain}>"
    message["List-Unsubscribe"] = f"<mailto:{sender}?subject=unsubscribe>"
    message.set_boundary(f"=_{name}")
    return message


def _message(digest: Digest, message_id: str) -> EmailMessage:
    message = EmailMessage(policy=_POLICY)
    message["Subject"] = digest.subject
    message["Date"] = format_datetime(digest.at)
    message["Message-ID"] = message_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(digest.text)
    message.add_alternative(digest.mail_html, subtype="html")
    return message


def _write(path: Path, data: bytes) -> None:
    if path.is_file() and path.read_bytes() == data:
        return
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
