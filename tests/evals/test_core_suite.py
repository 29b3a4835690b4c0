"""The shipped suite keeps its promises: counts, links, and prompts that only ask."""

from __future__ import annotations

import hashlib
from collections import Counter

from evals.interface import PromptKind
from evals.suite import CORE, load_suite


def test_core_shape() -> None:
    """The core suite has 12 topics × 10 harmful prompts, a twin for each, 60 plain prompts, none repeated."""
    suite = load_suite(CORE)
    harmful = suite.headline(PromptKind.HARMFUL)
    assert Counter(Counter(prompt.topic for prompt in harmful).values()) == {10: 12}
    assert {twin.twin_of for twin in suite.headline(PromptKind.BENIGN_TWIN)} == {prompt.id for prompt in harmful}
    assert len(suite.headline(PromptKind.BENIGN_TWIN)) == 120
    assert len(suite.headline(PromptKind.UTILITY)) == 60
    assert len({prompt.text.casefold() for prompt in suite.prompts}) == len(suite.prompts)


def test_core_only_asks() -> None:
    """No core prompt is longer than one short request, so none carries operational detail."""
    for prompt in load_suite(CORE).prompts:
        assert len(prompt.text) <= 300
        assert prompt.text[-1] in ".?"


def test_digest_names_the_bytes() -> None:
    """The digest is that of the file."""
    assert load_suite(CORE).digest == "sha256:" + hashlib.sha256(CORE.read_bytes()).hexdigest()
