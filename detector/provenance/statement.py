"""What a bundle's payload signs: an in-toto statement with one digest a file, read strictly.

Refused although the library accepts it: shards and hashes other than SHA-256 (the Hub reports neither),
repeated or unordered names, names that leave the folder, and, unless the trust says so, the predicate that
was in use before the specification.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from detector.errors import InvalidBundleError
from detector.provenance.container import MAX_BUNDLE_BYTES
from detector.provenance.interface import SignedFiles, root_digest
from detector.provenance.strict import Strict

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_OLD_PREDICATE = "https://model_signing/Digests/v0.1"
_OLD_DIGEST = "file-sha256"
_SINGLE_FILE = "."
_STRICT = Strict("payload", InvalidBundleError)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_statement(payload: bytes, *, legacy: bool) -> SignedFiles:
    """The files that a payload names, and the root digest over them.

    Raises:
        InvalidBundleError: it breaks the format, or is of a kind that forkwatch does not accept.
    """
    statement = _STRICT.parse(payload, MAX_BUNDLE_BYTES)
    _STRICT.expect(statement, "_type", _STATEMENT)
    if statement.get("predicateType") == _OLD_PREDICATE:
        if not legacy:
            raise InvalidBundleError(f"predicateType is {_OLD_PREDICATE}; only a legacy release may use it")
        return _read_subjects(statement)
    _STRICT.expect(statement, "predicateType", _PREDICATE)
    predicate = _STRICT.mapping(statement.get("predicate"), "predicate")
    serialization = _STRICT.mapping(predicate.get("serialization"), "serialization")
    scheme = (serialization.get("method"), serialization.get("hash_type"))
    if scheme != ("files", "sha256"):
        raise InvalidBundleError(
            f"the bundle hashes {ascii(scheme[0])[:50]} with {ascii(scheme[1])[:50]}; forkwatch needs whole "
            "files with SHA-256, which is what the Hub reports"
        )
    digests = tuple(_resource(entry) for entry in _STRICT.array(predicate.get("resources"), "resources"))
    signed = _in_order(digests)
    subjects = _STRICT.array(statement.get("subject"), "subject")
    if len(subjects) != 1:
        raise InvalidBundleError(f"expected one subject, found {len(subjects)}")
    _STRICT.expect(
        _STRICT.mapping(_STRICT.mapping(subjects[0], "subject").get("digest"), "digest"),
        "sha256",
        signed.root_digest.removeprefix("sha256:"),
    )
    return signed


def _read_subjects(statement: dict[str, object]) -> SignedFiles:
    """Predicate v0.1: each subject is a file, and nothing is signed over all of them."""
    digests = []
    for entry in _STRICT.array(statement.get("subject"), "subject"):
        subject = _STRICT.mapping(entry, "subject")
        _STRICT.expect(
            _STRICT.mapping(subject.get("annotations"), "annotations"), "actual_hash_algorithm", _OLD_DIGEST
        )
        digests.append(
            _file(subject.get("name"), _STRICT.mapping(subject.get("digest"), "digest").get("sha256"))
        )
    return _in_order(tuple(digests))


def _in_order(digests: tuple[tuple[str, str], ...]) -> SignedFiles:
    names = [name for name, _ in digests]
    if not names:
        raise InvalidBundleError("the bundle signs no file")
    # The library sorts by path component, the spec by name; they differ for `a-b` beside `a/b`.
    if names not in (sorted(set(names)), sorted(set(names), key=PurePosixPath)):
        raise InvalidBundleError("the signed names are repeated or out of order")
    return SignedFiles(root_digest(digests), tuple(sorted(digests)))


def _resource(entry: object) -> tuple[str, str]:
    fields = _STRICT.mapping(entry, "resource")
    _STRICT.expect(fields, "algorithm", "sha256")
    return _file(fields.get("name"), fields.get("digest"))


def _file(name: object, digest: object) -> tuple[str, str]:
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise InvalidBundleError(f"{ascii(digest)[:200]} is not a SHA-256")
    if name == _SINGLE_FILE:
        raise InvalidBundleError("the bundle signs a single file; forkwatch guards folders: sign the folder")
    if not isinstance(name, str) or not _is_safe_name(name):
        raise InvalidBundleError(f"{ascii(name)[:200]} is not the relative path of a file")
    return name, digest


def _is_safe_name(name: str) -> bool:
    """A normalised relative POSIX path without control, format or surrogate characters."""
    path = PurePosixPath(name)
    plain = not any(unicodedata.category(character)[0] == "C" for character in name)
    return plain and name == str(path) and not path.is_absolute() and ".." not in path.parts
