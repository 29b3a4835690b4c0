"""Our own private keys, read from files; an encrypted one is opened with FORKWATCH_KEY_PASSWORD."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from detector.errors import PrivateKeyError
from detector.provenance.keys import SigningKey, load_signing_key

PASSWORD_VARIABLE = "FORKWATCH_KEY_PASSWORD"  # noqa: S105 - a name, not a password


def load_private_key(path: Path, ask: Callable[[], str] | None = None) -> SigningKey:
    """Read a private key; `ask` is asked for the password when the environment has none.

    Raises:
        PrivateKeyError: it cannot be read or opened.
    """
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise PrivateKeyError(f"cannot read {path}: {error.strerror}") from error
    if b"ENCRYPTED" not in pem:
        return load_signing_key(pem)
    password = os.environ.get(PASSWORD_VARIABLE) or (ask() if ask is not None else "")
    if not password:
        raise PrivateKeyError(f"{path} is encrypted, and {PASSWORD_VARIABLE} is not set")
    return load_signing_key(pem, password.encode())
