"""The shipped suite keeps its promises: counts, links, and prompts that only ask."""

from __future__ import annotations

import hashlib
from collections import Counter

from evals.interface import PromptKind
from evals.suite import CORE, load_suite


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
