"""A bundle that is signed with a sigstore identity: a certificate of minutes, and an entry in a public log.

`sigstore` does the whole check: Fulcio's chain at the time the log proves, certificate transparency,
inclusion in Rekor, identity and issuer, signature, and the entry's agreement with the bundle. It is handed
its trusted root, because by itself it would fetch one or take whatever lies in the user's cache: nothing here
touches the network or the home folder. The public instance's root is the one shipped with the installed
`sigstore`.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import InvalidBundleError, TrustError
from detector.provenance.container import PAYLOAD_TYPE, Container, Mode
from detector.provenance.interface import KeylessTrust
from detector.provenance.refusal import printable, refusing
from detector.provenance.trusted import Verified

if TYPE_CHECKING:
    from model_signing import verifying
    from sigstore.models import TrustedRoot

_SHIPPED_ROOT = ("_store", "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev", "trusted_root.json")
_TRUST_CONFIG = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
_SIGNING_CONFIG = "application/vnd.dev.sigstore.signingconfig.v0.2+json"


@dataclass(frozen=True, slots=True)
class TrustedIdentity:
    """Who, as asserted by which issuer, under which root."""

    identity: str
    issuer: str
    trusted_root: bytes

    @property
    def mode(self) -> Mode:
        return Mode.KEYLESS

    def verify(self, bundle: Container, *, at: datetime, legacy: bool) -> Verified:  # noqa: ARG002 - the log has the time
        """Let sigstore verify the bundle; the payload must be the one that we read."""
        from sigstore.models import Bundle
        from sigstore.verify import Verifier, policy

        root = _load_root(self.trusted_root)
        with refusing():
            kind, payload = Verifier(trusted_root=root).verify_dsse(
                Bundle.from_json(bundle.raw), policy.Identity(identity=self.identity, issuer=self.issuer)
            )
            if (kind, payload) != (PAYLOAD_TYPE, bundle.payload):
                raise InvalidBundleError("sigstore read another payload than we did")
        return Verified(f"sigstore:{self.identity} ({self.issuer})", bundle.integrated)

    def arm(self, library: verifying.Config, private: Path) -> None:
        """Tell the library to trust this identity, under the same root."""
        path = private / "trust.json"
        config = {
            "mediaType": _TRUST_CONFIG,
            "trustedRoot": json.loads(self.trusted_root),
            "signingConfig": {"mediaType": _SIGNING_CONFIG},
        }
        path.write_text(json.dumps(config))
        library.use_sigstore_verifier(identity=self.identity, oidc_issuer=self.issuer, trust_config=path)


def load_identity(trust: KeylessTrust) -> TrustedIdentity:
    """Take identity, issuer and root; the root is parsed when a keyless bundle turns up.

    Raises:
        TrustError: identity or issuer is empty.
    """
    if not trust.identity or not trust.issuer:
        # sigstore would accept every issuer.
        raise TrustError("a sigstore identity needs both the identity and its issuer")
    root = trust.trusted_root
    if root is None:
        root = resources.files("sigstore").joinpath(*_SHIPPED_ROOT).read_bytes()
    return TrustedIdentity(trust.identity, trust.issuer, root)


def _load_root(trusted_root: bytes) -> TrustedRoot:
    from sigstore.models import TrustedRoot

    with tempfile.NamedTemporaryFile(prefix="forkwatch-verify-") as file:
        file.write(trusted_root)
        file.flush()
        try:
            return TrustedRoot.from_file(file.name)
        except (
            Exception
        ) as error:  # pydantic's, sigstore's and json's classes: it is our file, and it is broken
            raise TrustError(f"cannot read the trusted root: {printable(str(error))}") from error
