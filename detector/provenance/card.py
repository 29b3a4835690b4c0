"""The signed release card: what a publisher says about a release, in a file that its signature covers.

A model card is prose that changes after the release, so that nobody signs it. This file is small, has a
schema (`reports/schema/forkwatch.release-card-1.json`), and is signed as one of the release's files. Believe
it only when a verified manifest names its digest: `card_of` checks that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from detector.errors import InvalidCardError
from detector.interface import Manifest
from detector.provenance.interface import root_digest
from detector.provenance.strict import Strict

CARD_FILE = "forkwatch-release.json"
"""At the root of the release."""
MAX_CARD_BYTES = 64 << 10
"""Ten times a long one."""

_SCHEMA = "forkwatch.release-card/1"
_STRICT = Strict("release card", InvalidCardError)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share, its sample size and 95 % interval."""

    rate: float
    n: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """No number, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """How the release behaves on a prompt suite."""

    refusal: Rate | NotMeasured
    over_refusal: Rate | NotMeasured
    ungradeable: Rate | NotMeasured
    suite: str
    """`<suite id>@<version>`"""
    suite_digest: str
    """`sha256:<hex>`"""
    judge: str
    device: str
    isolation: str
    measured_at: str
    """ISO 8601, UTC."""
    subject: str
    """`sha256:<hex>`: `root_digest` of what it was measured on, which is every signed file but the card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A release card."""

    name: str
    license: str
    intended_use: str
    languages: tuple[str, ...]
    """BCP 47 tags."""
    contacts: tuple[str, ...]
    baseline: Baseline | NotMeasured
    degraded_drop: float
    """Safety of a fork counts as degraded when the refusal rate fell by more than this."""
    removed_below: float
    """And as removed below this share of the release's own rate."""


def card_of(manifest: Manifest, content: bytes) -> Card:
    """The card of a verified release, from the file's content.

    Raises:
        InvalidCardError: the manifest does not cover it, it has other bytes, it is malformed, or its baseline
            was measured on other files than the release's.
    """
    entry = manifest.file(CARD_FILE)
    if entry is None or entry.sha256 != hashlib.sha256(content).hexdigest():
        raise InvalidCardError(f"the signature does not cover this {CARD_FILE}")
    card = read_card(content)
    measured = tuple((file.path, file.sha256) for file in manifest.files if file.path != CARD_FILE)
    if isinstance(card.baseline, Baseline) and card.baseline.subject != root_digest(measured):
        raise InvalidCardError("the card's baseline was measured on other files than the release's")
    return card


def read_card(content: bytes) -> Card:
    """Read a card strictly; fields that this version does not know are left out.

    Raises:
        InvalidCardError: too large, not JSON, or of another shape.
    """
    fields = _STRICT.parse(content, MAX_CARD_BYTES)
    _STRICT.expect(fields, "schema", _SCHEMA)
    thresholds = _STRICT.mapping(fields.get("thresholds"), "thresholds")
    return Card(
        name=_STRICT.text(fields.get("name"), "name", most=200),
        license=_STRICT.text(fields.get("license"), "license", most=200),
        intended_use=_STRICT.text(fields.get("intended_use"), "intended_use", most=4000),
        languages=_texts(fields, "languages", most=200, length=35),
        contacts=_texts(fields, "contacts", most=20, length=200),
        baseline=_baseline(_STRICT.mapping(fields.get("baseline"), "baseline")),
        degraded_drop=_STRICT.number(thresholds.get("degraded_drop"), "degraded_drop"),
        removed_below=_STRICT.number(thresholds.get("removed_below"), "removed_below"),
    )


def dump_card(card: Card) -> bytes:
    """The file's content. Law: `read_card(dump_card(card)) == card` for a card that can be read.

    Raises:
        InvalidCardError: a field is empty, too long or out of range.
    """
    document = {
        "schema": _SCHEMA,
        "name": card.name,
        "license": card.license,
        "intended_use": card.intended_use,
        "languages": list(card.languages),
        "contacts": list(card.contacts),
        "baseline": _dump_baseline(card.baseline),
        "thresholds": {"degraded_drop": card.degraded_drop, "removed_below": card.removed_below},
    }
    content = json.dumps(document, indent=2).encode() + b"\n"
    read_card(content)
    return content


def _texts(fields: dict[str, object], name: str, *, most: int, length: int) -> tuple[str, ...]:
    return tuple(
        _STRICT.text(value, name, most=length) for value in _STRICT.array(fields.get(name), name, most=most)
    )


def _baseline(fields: dict[str, object]) -> Baseline | NotMeasured:
    if "unmeasured" in fields:
        return _reason(fields)

    def text(name: str) -> str:
        return _STRICT.text(fields.get(name), name, most=200)

    return Baseline(
        refusal=_rate(fields, "refusal"),
        over_refusal=_rate(fields, "over_refusal"),
        ungradeable=_rate(fields, "ungradeable"),
        suite=text("suite"),
        suite_digest=text("suite_digest"),
        judge=text("judge"),
        device=text("device"),
        isolation=text("isolation"),
        measured_at=text("measured_at"),
        subject=text("subject"),
    )


def _rate(fields: dict[str, object], name: str) -> Rate | NotMeasured:
    entry = _STRICT.mapping(fields.get(name), name)
    if "unmeasured" in entry:
        return _reason(entry)
    interval = _STRICT.array(entry.get("ci"), f"{name}.ci", most=2)
    if len(interval) != 2:
        _STRICT.refuse(f"{name}.ci has not two ends")
    low, high = (_STRICT.number(end, f"{name}.ci") for end in interval)
    rate = _STRICT.number(entry.get("rate"), name)
    if not low <= rate <= high:
        _STRICT.refuse(f"{name} lies outside its interval")
    return Rate(rate, _STRICT.count(entry.get("n"), f"{name}.n"), low, high)


def _reason(fields: dict[str, object]) -> NotMeasured:
    return NotMeasured(_STRICT.text(fields.get("unmeasured"), "unmeasured", most=500))


def _dump_baseline(baseline: Baseline | NotMeasured) -> dict[str, object]:
    if isinstance(baseline, NotMeasured):
        return {"unmeasured": baseline.reason}
    return {
        "refusal": _dump_rate(baseline.refusal),
        "over_refusal": _dump_rate(baseline.over_refusal),
        "ungradeable": _dump_rate(baseline.ungradeable),
        "suite": baseline.suite,
        "suite_digest": baseline.suite_digest,
        "judge": baseline.judge,
        "device": baseline.device,
        "isolation": baseline.isolation,
        "measured_at": baseline.measured_at,
        "subject": baseline.subject,
    }


def _dump_rate(rate: Rate | NotMeasured) -> dict[str, object]:
    if isinstance(rate, NotMeasured):
        return {"unmeasured": rate.reason}
    return {"rate": rate.rate, "n": rate.n, "ci": [rate.low, rate.high]}
