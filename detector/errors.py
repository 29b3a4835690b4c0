"""What the detector raises."""

from __future__ import annotations


class DetectorError(Exception):
    """Root of what the detector raises. `tip` says what the reader can do about it."""

    tip: str = ""


class MalformedWeightsError(DetectorError):
    """A weight file breaks its format: truncated, overlapping, absurd header. A finding, not our bug."""

    tip = "The file is damaged or hostile; it was not read further."


class NoWeightsError(DetectorError):
    """The repository holds no weights in a format forkwatch reads."""

    tip = "forkwatch reads safetensors, GGUF and PEFT adapters."


class UnreadableTensorError(DetectorError):
    """A tensor is stored in an encoding that forkwatch does not decode; the file itself is well formed."""

    tip = "Compare a build of the model in bf16, fp16, fp32 or a GGUF type."


class NothingComparedError(DetectorError):
    """Two checkpoints have no tensor that can be compared."""

    tip = "Check that both are checkpoints of a transformer under their usual names."


class FingerprintError(DetectorError):
    """A stored fingerprint is truncated, malformed or of another version."""

    tip = "`forkwatch index remove` removes it; a guarded release's is made anew by itself."


class InvalidBundleError(DetectorError):
    """A signature bundle is malformed, uses a scheme we do not accept, or does not verify with the key."""

    tip = (
        "Get model.sig and the public key again from the publisher; do not use these files until it verifies."
    )


class UnknownSignerError(InvalidBundleError):
    """A signature bundle is well formed, and the trust names nobody who could have made it: a claim."""

    tip = "Name the publisher's key, certificate or identity in the release's trust."


class TrustError(DetectorError):
    """Whom a release is to be trusted to cannot be used: our own settings, never the release's fault."""

    tip = "Correct the trust of the release: roots with a pin, or an identity with its issuer."


class PublicKeyError(TrustError):
    """The public key of a release is missing or is not an EC key in PEM form."""

    tip = "Point the release at the publisher's EC public key (PEM, P-256, P-384 or P-521)."


class PrivateKeyError(DetectorError):
    """Our own signing key is missing, encrypted with another password, or not an EC key in PEM form."""

    tip = "Keys are EC (P-256, P-384 or P-521) in PEM form; FORKWATCH_KEY_PASSWORD opens an encrypted one."


class SigningError(DetectorError):
    """A folder cannot be signed as a release: what is in it, or a certificate, would not verify."""

    tip = "docs/signing.md says what a release folder may hold."


class SigningServiceError(DetectorError):
    """Keyless signing has no identity, or the Sigstore services cannot be reached."""

    tip = "Run it where the network and an OpenID Connect identity are (CI), or sign with --private-key."


class InvalidCardError(DetectorError):
    """A release card is malformed or too large."""

    tip = "`forkwatch release card` writes one; reports/schema/ holds its JSON Schema."


class InvalidAttestationError(DetectorError):
    """A signed verdict is malformed, of another type, or not signed by the given key."""

    tip = "Get the file and the operator's public key again; believe nothing in it until it verifies."
