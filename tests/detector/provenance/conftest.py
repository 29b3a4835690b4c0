"""A release signed by the library, with a key made for the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from detector.provenance.interface import KeyTrust, Trust
from detector.provenance.sign import KeyPair, generate_key, sign_release
from tests.detector.provenance.bundles import write_files
from tests.detector.provenance.signed import make


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return generate_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def trust(keys: KeyPair) -> Trust:
    return Trust((KeyTrust(keys.public.read_bytes()),))


@pytest.fixture
def folder(tmp_path: Path, keys: KeyPair) -> Path:
    """A small signed checkpoint in shards."""
    return make(tmp_path / "model", keys)


@pytest.fixture(scope="session")
def private_key(keys: KeyPair) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(keys.private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


@pytest.fixture
def release(tmp_path: Path, keys: KeyPair) -> Path:
    folder = write_files(tmp_path / "release")
    sign_release(folder, keys.private)
    return folder
