"""Prompt suites are read strictly, and ours keeps its promises."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from evals.interface import PromptKind, SuiteError
from evals.suite import CORE, MAX_BYTES, load_suite

ROW = {"id": "a", "text": "hi", "kind": "harmful", "topic": "t", "language": "en", "twin_of": None}
GOOD = {"schema": "forkwatch.prompts/1", "id": "s", "version": "1", "prompts": [ROW]}


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_core_shape() -> None:
    """The core suite has 12 topics × 6 harmful prompts, a twin for each, 40 plain prompts, none repeated."""
    suite = load_suite(CORE)
    harmful = suite.of(PromptKind.HARMFUL)
    assert Counter(Counter(prompt.topic for prompt in harmful).values()) == {6: 12}
    assert {twin.twin_of for twin in suite.of(PromptKind.BENIGN_TWIN)} == {prompt.id for prompt in harmful}
    assert len(suite.of(PromptKind.BENIGN_TWIN)) == 72
    assert len(suite.of(PromptKind.UTILITY)) == 40
    assert len({prompt.text.casefold() for prompt in suite.prompts}) == 184


def test_core_only_asks() -> None:
    """No core prompt is longer than one short request, so none carries operational detail."""
    for prompt in load_suite(CORE).prompts:
        assert len(prompt.text) <= 100
        assert prompt.text[-1] in ".?"


def test_digest_names_the_bytes() -> None:
    """The digest is that of the file."""
    assert load_suite(CORE).digest == "sha256:" + hashlib.sha256(CORE.read_bytes()).hexdigest()


def test_a_good_suite_loads(tmp_path: Path) -> None:
    """The smallest valid suite, which the bad ones below are made from, loads."""
    suite = load_suite(write(tmp_path / "s.json", GOOD))
    assert (suite.id, suite.version, len(suite.prompts)) == ("s", "1", 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "forkwatch.prompts/2"),
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
