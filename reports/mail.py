"""The digest as a file that a mail program opens, and as a page."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path

from reports.digest import Digest


def write_digest(digest: Digest, out: Path) -> tuple[Path, Path]:
    """Write `digest/<week>.html` and `digest/<week>.eml` under `out` (usually the site), each in one step."""
    folder = out / "digest"
    folder.mkdir(parents=True, exist_ok=True)
    page, mail = folder / f"{digest.week}.html", folder / f"{digest.week}.eml"
    _write(page, digest.html.encode("utf-8"))
    _write(mail, to_mail(digest).as_bytes(policy=SMTP))
    return page, mail


def to_mail(digest: Digest) -> EmailMessage:
    """The digest as a message without sender and recipients, which the one who sends it fills in.

    Message-ID, Date and boundary follow from the content: building it again gives the same bytes.
    """
    identity = f"{digest.week}\n{digest.subject}\n{digest.text}"
    name = sha256(identity.encode("utf-8")).hexdigest()[:20]
    message = EmailMessage(policy=SMTP)
    message["Subject"] = digest.subject
    message["Date"] = format_datetime(digest.at)
    message["Message-ID"] = f"<{digest.week}.{name}@digest.forkwatch.invalid>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Unsent"] = "1"
    message.set_content(digest.text)
    message.add_alternative(digest.mail_html, subtype="html")
    message.set_boundary(f"=_{name}")
    return message


def _write(path: Path, data: bytes) -> None:
    if path.is_file() and path.read_bytes() == data:
        return
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
