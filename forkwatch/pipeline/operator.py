"""The operator's key, which signs verdicts, and every public key that ever did.

All of them are in the state folder's `attest/`: the private key as `operator.key` (0600) unless the settings
name another, and one `<key id>.pem` for each key that was used. A retired key verifies what it signed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from forkwatch.errors import SettingsError
from forkwatch.settings import Settings
from forkwatch.state import StateDir
from reports.interface import OperatorKey

if TYPE_CHECKING:  # who signs nothing does without the cryptography
    from detector.provenance.keys import PublicKey, SigningKey


def find_key(state: StateDir, settings: Settings) -> SigningKey | None:
    """The key that verdicts are signed with, noted among those that were used; None when there is none.

    Raises:
        SettingsError: the settings name a file that is not there.
        PrivateKeyError: the file is no EC private key, or its password is wrong.
    """
    said = settings.attest.private_key
    place = _generated(state) if said is None else settings.folder / said
    if said is not None and not place.is_file():
        raise SettingsError(
            f"attest.private_key: {place} is not a file", tip="`forkwatch attest key` makes one."
        )
    if not place.is_file():
        return None
    from forkwatch.keys import load_private_key

    key = load_private_key(place)
    _note(state, key.public)
    return key


def new_key(state: StateDir, *, rotate: bool) -> SigningKey:
    """Make a key (P-256) in the state folder; with `rotate`, retire the one that is there.

    The retired private key stays beside it as `<key id>.retired.key`, for its owner to destroy.

    Raises:
        SettingsError: there is one already.
    """
    from detector.provenance.keys import new_signing_key
    from forkwatch.keys import load_private_key

    place = _generated(state)
    _folder(state).mkdir(mode=0o700, exist_ok=True)
    if place.exists():
        if not rotate:
            raise SettingsError(f"{place} is there already", tip="--rotate retires it and makes another.")
        old = load_private_key(place)
        _note(state, old.public)
        place.rename(place.with_name(f"{old.public.fingerprint}.retired.key"))
    key = new_signing_key()
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.pem)
    _note(state, key.public)
    return key


def used_keys(state: StateDir) -> tuple[PublicKey, ...]:
    """Every public key that verdicts were signed with, by id."""
    files = sorted(_folder(state).glob("*.pem"))
    if not files:
        return ()
    from detector.provenance.keys import load_public_key

    return tuple(load_public_key(file.read_bytes()) for file in files)


def operator_keys(state: StateDir, current: SigningKey | None) -> tuple[OperatorKey, ...]:
    """The keys as the site publishes them."""
    now = None if current is None else current.public.fingerprint
    return tuple(
        OperatorKey(id=key.fingerprint, pem=key.pem.decode(), current=key.fingerprint == now)
        for key in used_keys(state)
    )


def _note(state: StateDir, key: PublicKey) -> None:
    """Whole or not at all; what was left by a write that was interrupted is written again."""
    place = _folder(state) / f"{key.fingerprint}.pem"
    if place.is_file() and place.read_bytes() == key.pem:
        return
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=place.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.pem)
        file.flush()
        os.fsync(file.fileno())
    Path(part).replace(place)


def _generated(state: StateDir) -> Path:
    return _folder(state) / "operator.key"


def _folder(state: StateDir) -> Path:
    return state.root / "attest"
