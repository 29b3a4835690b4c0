"""Prompt suites are read strictly. What ours holds is tested in `test_core_suite`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from evals.interface import Choice, PromptKind, SuiteError, Tier
from evals.suite import MAX_BYTES, load_suite

ROW = {"id": "a", "text": "hi", "kind": "harmful", "topic": "t", "language": "en", "twin_of": None}
GOOD = {"schema": "forkwatch.prompts/1", "id": "s", "version": "1", "prompts": [ROW]}

HARMFUL = ROW | {"tier": "screen"}
TWIN = HARMFUL | {"id": "a-twin", "text": "ho", "kind": "benign-twin", "twin_of": "a", "tier": "quick"}
PARAPHRASE = HARMFUL | {"id": "a-p1", "text": "hello", "tier": "full", "paraphrase_of": "a"}
GERMAN = HARMFUL | {"id": "a-de", "text": "hallo", "language": "de", "tier": "quick", "translation_of": "a"}
GERMAN_TWIN = TWIN | {
    "id": "a-twin-de", "text": "he", "language": "de", "twin_of": "a-de", "translation_of": "a-twin"
}  # fmt: skip
CHOICE = {"id": "c", "question": "1 + 1 =", "options": ["1", "2"], "answer": 1, "topic": "t", "tier": "quick"}
TIERED: dict[str, Any] = {
    "schema": "forkwatch.prompts/2",
    "id": "s",
    "version": "1",
    "prompts": [HARMFUL, TWIN, PARAPHRASE, GERMAN, GERMAN_TWIN],
    "choices": [CHOICE],
}


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_a_good_suite_loads(tmp_path: Path) -> None:
    """The smallest valid suite, which the bad ones below are made from, loads."""
    suite = load_suite(write(tmp_path / "s.json", GOOD))
    assert (suite.id, suite.version, len(suite.prompts)) == ("s", "1", 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "forkwatch.prompts/3"),
        ("schema", ["forkwatch.prompts/1"]),
        ("choices", []),
        ("id", "Core Suite"),
        ("version", None),
        ("prompts", []),
        ("prompts", {"a": ROW}),
        ("prompts", [ROW, ROW]),
        ("prompts", [None]),
        ("extra", 1),
    ],
)
def test_bad_suites_are_refused(tmp_path: Path, field: str, value: object) -> None:
    """An unknown schema, an empty list, a repeated id or a stray key is refused."""
    with pytest.raises(SuiteError, match=r"s\.json"):
        load_suite(write(tmp_path / "s.json", {**GOOD, field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", "  "),
        ("text", 3),
        ("text", "x" * 4001),
        ("text", "\ud800"),
        ("kind", "evil"),
        ("kind", ["harmful"]),
        ("kind", "benign-twin"),
        ("twin_of", "a"),
        ("topic", ""),
        ("language", "english"),
        ("id", "../a"),
        ("tier", "screen"),
        ("paraphrase_of", "a"),
        ("extra", 1),
    ],
)
def test_bad_prompts_are_refused(tmp_path: Path, field: str, value: object) -> None:
    """A prompt with a wrong, missing or surplus field is refused."""
    with pytest.raises(SuiteError):
        load_suite(write(tmp_path / "s.json", {**GOOD, "prompts": [{**ROW, field: value}]}))


@pytest.mark.parametrize("twin_of", ["nobody", "twin"])
def test_a_twin_needs_its_harmful_prompt(tmp_path: Path, twin_of: str) -> None:
    """A twin of an unknown prompt, or of one that is not harmful, is refused."""
    twin = {**ROW, "id": "twin", "kind": "benign-twin", "twin_of": twin_of}
    document = copy.deepcopy(GOOD) | {"prompts": [ROW, twin]}
    with pytest.raises(SuiteError, match="no harmful prompt"):
        load_suite(write(tmp_path / "s.json", document))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A missing file, no JSON, deep nesting and a huge file are all one kind of error."""
    (tmp_path / "text").write_text("hello")
    (tmp_path / "deep").write_text("[" * 100_000)
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(MAX_BYTES + 1)
    for name in ("missing", "text", "deep", "huge"):
        with pytest.raises(SuiteError, match=name):
            load_suite(tmp_path / name)


def test_a_plain_suite_is_all_of_the_smallest_tier(tmp_path: Path) -> None:
    """Schema 1 has no tiers: every tier asks everything."""
    suite = load_suite(write(tmp_path / "s.json", GOOD))
    assert suite.at(Tier.SCREEN) == suite.at(Tier.FULL) == suite


def test_a_tiered_suite_loads(tmp_path: Path) -> None:
    """Variants, tiers and questions come out as written, and variants are no headline prompts."""
    suite = load_suite(write(tmp_path / "s.json", TIERED))
    assert [prompt.cluster for prompt in suite.prompts] == ["a", "a-twin", "a", "a", "a-twin"]
    assert [prompt.id for prompt in suite.headline(PromptKind.HARMFUL)] == ["a"]
    assert suite.choices == (Choice("c", "1 + 1 =", ("1", "2"), 1, "t", Tier.QUICK),)
    sizes = [(len(part.prompts), len(part.choices)) for part in map(suite.at, Tier)]
    assert sizes == [(1, 0), (4, 1), (5, 1)]


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (PARAPHRASE, {"paraphrase_of": "nobody"}, "no headline prompt"),
        (PARAPHRASE, {"paraphrase_of": "a-twin"}, "no headline prompt"),
        (PARAPHRASE, {"paraphrase_of": "a-de"}, "no headline prompt"),
        (PARAPHRASE, {"topic": "other"}, "no headline prompt"),
        (PARAPHRASE, {"paraphrase_of": "a-p1"}, "no headline prompt"),
        (PARAPHRASE, {"paraphrase_of": None}, "allowed form"),
        (PARAPHRASE, {"translation_of": "a"}, "not both"),
        (PARAPHRASE, {"language": "de"}, "keeps the language"),
        (GERMAN, {"language": "en"}, "keeps the language"),
        (GERMAN_TWIN, {"twin_of": "a"}, "in its language"),
        (GERMAN_TWIN, {"twin_of": "a-p1"}, "in its language"),
        (GERMAN_TWIN, {"twin_of": "a-twin"}, "no harmful prompt"),
        (TWIN, {"twin_of": "a-p1"}, "in its language"),
        (HARMFUL, {"tier": "full"}, "smaller tier"),
        (GERMAN, {"tier": "full"}, "smaller tier"),
        (TWIN, {"tier": "full"}, "smaller tier"),
        (HARMFUL, {"tier": "huge"}, "huge"),
        (HARMFUL, {"tier": None}, "None"),
        (HARMFUL, {"id": "c"}, "share the id c"),
    ],
)
def test_stray_variants_twins_and_tiers_are_refused(
    tmp_path: Path, row: dict[str, object], change: dict[str, object], message: str
) -> None:
    """A variant or twin of the wrong prompt, or one that is asked without it, is refused."""
    prompts = [row | change if other is row else other for other in TIERED["prompts"]]
    with pytest.raises(SuiteError, match=message):
        load_suite(write(tmp_path / "s.json", TIERED | {"prompts": prompts}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("options", ["1"]),
        ("options", ["1"] * 2),
        ("options", [str(number) for number in range(9)]),
        ("options", ["1", " "]),
        ("options", ["1", 2]),
        ("options", "12"),
        ("answer", 2),
        ("answer", -1),
        ("answer", True),
        ("question", ""),
        ("tier", "slow"),
        ("id", "a"),
        ("topic", None),
        ("extra", 1),
    ],
)
def test_bad_choices_are_refused(tmp_path: Path, field: str, value: object) -> None:
    """A question needs two to eight different options, the index of one of them, and an id of its own."""
    with pytest.raises(SuiteError):
        load_suite(write(tmp_path / "s.json", TIERED | {"choices": [CHOICE | {field: value}]}))
