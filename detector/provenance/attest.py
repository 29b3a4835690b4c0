"""Signed statements about files: in-toto Statement v1, one JSON object in a DSSE envelope.

A statement binds by digest: names of subjects are for people. What a predicate means is its type's business;
here it is text. Formats: in-toto attestation framework 1.0, `spec/v1/statement.md`, `digest_set.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from detector.errors import InvalidAttestationError
from detector.provenance.container import MAX_BUNDLE_BYTES
from detector.provenance.dsse import open_sealed, seal
from detector.provenance.keys import PublicKey, SigningKey
from detector.provenance.strict import Strict

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_SUBJECTS = 10_000
"""As many files as a snapshot may have."""

_HEX = {"sha256": 64, "gitCommit": 40, "gitBlob": 40}
"""The digests we write and read, and their lengths in hex digits."""
_STRICT = Strict("attestation", InvalidAttestationError)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about."""

    name: str
    """For people: nothing may be decided by it."""
    algorithm: str
    """`sha256` of a file, `gitBlob` of a small one, or `gitCommit` of a repository."""
    digest: str
    """Lower-case hex."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Who it is about, and what is said."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: str
    """A JSON object, as text."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement whose signature was checked, and by which key."""

    statement: Statement
    key: PublicKey


def sign_statement(statement: Statement, key: SigningKey) -> bytes:
    """A bundle with the signed statement. The same statement and key give the same bytes."""
    payload = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": each.name, "digest": {each.algorithm: each.digest}} for each in statement.subjects
        ],
        "predicateType": statement.predicate_type,
        "predicate": json.loads(statement.predicate),
    }
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
    read_statement(text, statement.predicate_type)
    return seal(text, key)


def open_attestation(bundle: bytes, predicate_type: str, keys: Sequence[PublicKey]) -> Attestation:
    """Verify a bundle, and read the statement from the very bytes that were verified.

    Raises:
        InvalidAttestationError: the signature, the format or the predicate type is not what it should be.
    """
    opened = open_sealed(bundle, keys)
    return Attestation(read_statement(opened.payload, predicate_type), opened.key)


def read_statement(payload: bytes, predicate_type: str) -> Statement:
    """Read a statement strictly. Says nothing about who made it.

    Raises:
        InvalidAttestationError: it is malformed, names no subject, or is of another predicate type.
    """
    fields = _STRICT.parse(payload, MAX_BUNDLE_BYTES)
    _STRICT.expect(fields, "_type", STATEMENT_TYPE)
    _STRICT.expect(fields, "predicateType", predicate_type)
    subjects = tuple(
        _subject(entry) for entry in _STRICT.array(fields.get("subject"), "subject", most=MAX_SUBJECTS)
    )
    if not subjects:
        _STRICT.refuse("it is about nothing")
    if len({subject.name for subject in subjects}) != len(subjects):
        _STRICT.refuse("a subject's name is repeated")
    predicate = _STRICT.mapping(fields.get("predicate"), "predicate")
    return Statement(subjects, predicate_type, json.dumps(predicate))


def _subject(entry: object) -> Subject:
    fields = _STRICT.mapping(entry, "subject")
    name = _STRICT.text(fields.get("name"), "name", most=2000)
    digests = _STRICT.mapping(fields.get("digest"), "digest")
    if len(digests) != 1:
        _STRICT.refuse("a subject has not exactly one digest")
    ((algorithm, digest),) = digests.items()
    length = _HEX.get(algorithm)
    if length is None or not isinstance(digest, str) or not re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
        _STRICT.refuse(f"{ascii(algorithm)[:40]} {ascii(digest)[:100]} is no digest that we know")
    return Subject(name, algorithm, digest)
