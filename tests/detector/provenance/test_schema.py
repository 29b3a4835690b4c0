"""Bundles that our tests and signers make are what the specification's JSON schemas describe."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.detector.provenance.bundles import REAL, minimal, seal
from tests.detector.provenance.pki import intermediate, signer
from tests.detector.provenance.sigstore import private_sigstore

SCHEMAS = {path.name: json.loads(path.read_bytes()) for path in REAL.glob("spec/schemas/*.json")}
REGISTRY: Registry[object] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)
VECTORS = sorted(path for path in REAL.glob("spec/*/*.bundle.json"))


def problems(bundle: bytes) -> list[str]:
    """What the schemas of the bundle and of its statement say against it."""
    try:
        parsed = json.loads(bundle)
    except ValueError as error:
        return [str(error)]
    found = list(validator("bundle").iter_errors(parsed))
    if not found:
        statement = json.loads(base64.b64decode(parsed["dsseEnvelope"]["payload"]))
        found = list(validator("statement").iter_errors(statement))
    return [error.message for error in found]


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[f"{name}.schema.json"], registry=REGISTRY)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_vector(vector: Path) -> None:
    """The schemas call the specification's own vectors what it calls them."""
    assert (problems(vector.read_bytes()) == []) == (vector.parent.name == "valid")


def test_made_here(release: Path, private_key: ec.EllipticCurvePrivateKey) -> None:
    """So a refusal in our tests is about what they say, not about a slip in how they make bundles."""
    chain = (signer().certificate, intermediate().certificate)
    assert problems((release / "model.sig").read_bytes()) == []
    assert problems(seal(minimal(), private_key, hint="0" * 64)) == []
    assert problems(seal(minimal(), signer().key, chain=chain)) == []
    assert problems(private_sigstore().sign(minimal())) == []
