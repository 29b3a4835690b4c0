"""What the three modes have in common once a signer of the trust is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from detector.provenance.container import Container, Mode

if TYPE_CHECKING:
    from model_signing import verifying


@dataclass(frozen=True, slots=True)
class Verified:
    """Who signed a bundle, and when as far as that is proved."""

    signer: str
    """As `SignatureCheck.signer`."""
    signed_at: datetime | None


class TrustedSigner(Protocol):
    """A signer of the trust, loaded: it verifies bundles of its mode and arms the library to do the same."""

    @property
    def mode(self) -> Mode: ...

    def verify(self, bundle: Container, *, at: datetime, legacy: bool) -> Verified:
        """Check that this signer signed `bundle`, which is of its mode.

        Raises:
            InvalidBundleError: it did not.
        """
        ...

    def arm(self, library: verifying.Config, private: Path) -> None:
        """Configure the library with the same trust; files it needs are written to `private`."""
        ...
