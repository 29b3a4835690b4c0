"""A release card is read strictly, and believed only under a signature that covers it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import InvalidCardError
from detector.interface import Manifest, ManifestFile
from detector.provenance.card import (
    CARD_FILE,
    MAX_CARD_BYTES,
    Baseline,
    Card,
    NotMeasured,
    Rate,
    card_of,
    dump_card,
    read_card,
)
from detector.provenance.interface import root_digest
from reports.card_json import from_json, json_schema

WEIGHTS = ("model.safetensors", "b" * 64)
BASELINE = Baseline(
    refusal=Rate(0.95, 72, 0.88, 0.98),
    over_refusal=Rate(0.1, 72, 0.05, 0.2),
    ungradeable=NotMeasured("too few answers"),
    suite="core@1",
    suite_digest="sha256:" + "1" * 64,
    judge="builtin/1",
    device="cpu",
    isolation="sandboxed",
    measured_at="2026-11-30T00:00:00+00:00",
    subject=root_digest((WEIGHTS,)),
)
CARD = Card(
    name="Guarded 1B",
    license="apache-2.0",
    intended_use="Chat, in English.\nNothing else.",
    languages=("en", "hi-Deva"),
    contacts=("safety@lab.example",),
    baseline=BASELINE,
    degraded_drop=0.15,
    removed_below=0.5,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)
SHARES = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted)
RATES = st.one_of(
    st.builds(NotMeasured, TEXT),
    st.builds(lambda ends, n: Rate(ends[1], n, ends[0], ends[2]), SHARES, st.integers(1, 1 << 40)),
)
BASELINES = st.builds(
    Baseline,
    refusal=RATES,
    over_refusal=RATES,
    ungradeable=RATES,
    suite=TEXT,
    suite_digest=TEXT,
    judge=TEXT,
    device=TEXT,
    isolation=TEXT,
    measured_at=TEXT,
    subject=TEXT,
)
CARDS = st.builds(
    Card,
    name=TEXT,
    license=TEXT,
    intended_use=TEXT,
    languages=st.lists(TEXT, max_size=3).map(tuple),
    contacts=st.lists(TEXT, max_size=3).map(tuple),
    baseline=st.one_of(BASELINES, st.builds(NotMeasured, TEXT)),
    degraded_drop=st.floats(0, 1),
    removed_below=st.floats(0, 1),
)


@given(CARDS)
def test_round_trip(card: Card) -> None:
    """Whatever can be written is read back equal, validates, and is what reports read too."""
    content = dump_card(card)
    assert read_card(content) == card
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(content))
    assert from_json(content.decode()).intended_use == card.intended_use


def changed(**changes: object) -> bytes:
    return json.dumps({**json.loads(dump_card(CARD)), **changes}).encode()


def measured(**changes: object) -> bytes:
    baseline: dict[str, Any] = json.loads(dump_card(CARD))["baseline"]
    return changed(baseline={**baseline, **changes})


REFUSED: Mapping[str, bytes] = {
    "other schema": changed(schema="forkwatch.release-card/2"),
    "no name": changed(name=""),
    "name is a number": changed(name=5),
    "long use": changed(intended_use="x" * 4001),
    "lone surrogate": changed(name="\ud800"),
    "languages is text": changed(languages="en"),
    "many contacts": changed(contacts=["a"] * 21),
    "threshold above one": changed(thresholds={"degraded_drop": 1.5, "removed_below": 0.5}),
    "threshold is true": changed(thresholds={"degraded_drop": True, "removed_below": 0.5}),
    "no threshold": changed(thresholds={}),
    "no baseline": changed(baseline=None),
    "no reason": changed(baseline={"unmeasured": ""}),
    "rate outside": measured(refusal={"rate": 0.9, "n": 9, "ci": [0.1, 0.2]}),
    "one end": measured(refusal={"rate": 0.9, "n": 9, "ci": [0.1]}),
    "no sample": measured(refusal={"rate": 0.9, "n": 0, "ci": [0.1, 1]}),
    "sample is true": measured(refusal={"rate": 0.9, "n": True, "ci": [0.1, 1]}),
    "not a number": measured(refusal={"rate": float("nan"), "n": 9, "ci": [0.1, 1]}),
    "no judge": measured(judge=None),
    "a key twice": dump_card(CARD).replace(b'"name"', b'"name": "a", "name"'),
    "huge": dump_card(CARD) + b" " * MAX_CARD_BYTES,
    "array": b"[]",
    "nested deeply": b"[" * 60000,
    "not UTF-8": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    """A card of any other shape is refused."""
    with pytest.raises(InvalidCardError):
        read_card(REFUSED[case])


def test_unknown_fields_are_left_out() -> None:
    """A later version may say more; what we do not know is not passed on."""
    assert read_card(changed(evil="<script>")) == CARD
    assert b"script" not in dump_card(read_card(changed(evil="<script>")))


def manifest_of(content: bytes, *others: tuple[str, str]) -> Manifest:
    listed = ((CARD_FILE, hashlib.sha256(content).hexdigest()), *others)
    return Manifest("sha256:0", tuple(ManifestFile(path, digest, 1, "0" * 40) for path, digest in listed))


def test_a_card_needs_the_signature() -> None:
    """Not covered, other bytes, or a baseline of other weights: not believed."""
    content = dump_card(CARD)
    assert card_of(manifest_of(content, WEIGHTS), content) == CARD
    for manifest, reason in (
        (Manifest("sha256:0", ()), "does not cover"),
        (manifest_of(content + b" ", WEIGHTS), "does not cover"),
        (manifest_of(content, ("model.safetensors", "c" * 64)), "other files"),
    ):
        with pytest.raises(InvalidCardError, match=reason):
            card_of(manifest, content)
