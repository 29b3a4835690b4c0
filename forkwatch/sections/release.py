"""Section [releases."org/name"]: whom to trust for one release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from forkwatch.sections.base import Section


class ReleaseSettings(Section):
    """Whom to trust for one release, and which commit is pinned. Paths start at the file's folder."""

    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """The pinned commit; None: the one that `release add` finds."""
    signature: str = Field(default="model.sig", min_length=1)
    """Path of the bundle in the repository."""
    public_key: Path | None = None
    """PEM of an EC key."""
    certificate_roots: tuple[Path, ...] = ()
    """PEM of private roots; the web's root store is never used."""
    certificate_subjects: tuple[str, ...] = ()
    """RFC 4514 names; the leaf or an intermediate must have one of them."""
    certificate_spki: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")], ...] = ()
    """SHA-256 of the public key of the leaf or of an intermediate."""
    identity: str | None = None
    """Of a sigstore certificate, as `issuer` asserts it."""
    issuer: str | None = None
    trusted_root: Path | None = None
    """`trusted_root.json` of a private Sigstore; None: the public instance's."""
    legacy: bool = False
    """Accept bundles from before the specification (predicate v0.1)."""
    unsigned: bool = False
    """Trust nobody; pin the files by hash on first use."""

    @model_validator(mode="after")
    def _says_whom_to_trust(self) -> ReleaseSettings:
        pins = self.certificate_subjects or self.certificate_spki
        signers = self.public_key or self.certificate_roots or self.identity
        if bool(self.certificate_roots) != bool(pins):
            raise ValueError("a certificate root and a subject or SPKI of the signer go together")
        if bool(self.identity) != bool(self.issuer):
            raise ValueError("an identity and its issuer go together")
        if self.trusted_root and not self.identity:
            raise ValueError("a trusted root needs an identity and its issuer")
        if self.unsigned and (signers or self.legacy):
            raise ValueError("it is either unsigned, or somebody is trusted to have signed it")
        if not signers and not self.unsigned:
            raise ValueError("it names nobody: give a key, certificates or an identity, or say unsigned")
        return self
