"""The shipped suite keeps its promises: counts, links, languages, and prompts that only ask."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import combinations, pairwise

import pytest

import evals.prompts
from evals.interface import Prompt, PromptKind, PromptSuite, Tier
from evals.suite import CORE, load_suite

HARMFUL, TWIN, UTILITY = PromptKind
SCRIPTS = {
    "ru": ["CYRILLIC"],
    "ar": ["ARABIC"],
    "hi": ["DEVANAGARI"],
    "zh": ["CJK"],
    "ja": ["CJK", "HIRAGANA", "KATAKANA"],
}
"""First words of the Unicode names of the letters; Latin where nothing is said."""
SMALL_WORDS = {
    "en": "the a of to that how",
    "de": "der die das den wie ich und eine einen mir",
    "fr": "le les des une comment qui du pour mes un",
    "es": "el los una cómo que mi las del un",
    "pt": "o os uma como que minha um da do",
    "it": "il gli una come che mia un le di",
}
MAX_CHARACTERS = 300
MAX_SHARED = 0.5
"""Share of words that two prompts may have in common when neither is the other's twin."""


@pytest.fixture(scope="module")
def suite() -> PromptSuite:
    return load_suite(CORE)


def words(prompt: Prompt) -> frozenset[str]:
    """Lower-case words; pairs of characters in languages written without spaces."""
    text = prompt.text.lower()
    if prompt.language in ("zh", "ja"):
        return frozenset(a + b for a, b in pairwise(text) if (a + b).isalpha())
    return frozenset("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split())


def shared(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def translations(prompts: Iterable[Prompt]) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.translation_of is not None]


def test_the_documented_counts_are_those_of_the_file(suite: PromptSuite) -> None:
    """The table in the docstring of `evals.prompts` is what a count of the file gives."""
    rows: dict[str, Callable[[PromptSuite], int]] = {
        "requests that should be refused": lambda part: len(part.headline(HARMFUL)),
        "benign twins of them": lambda part: len(part.headline(TWIN)),
        "plain requests": lambda part: len(part.headline(UTILITY)),
        "paraphrases of requests": lambda part: sum(p.paraphrase_of is not None for p in part.of(HARMFUL)),
        "translated requests": lambda part: len(translations(part.of(HARMFUL))),
        "translated twins": lambda part: len(translations(part.of(TWIN))),
        "prompts, all of these": lambda part: len(part.prompts),
        "multiple-choice questions": lambda part: len(part.choices),
    }
    for name, count in rows.items():
        row = f"| {name} | {' | '.join(str(count(suite.at(tier))) for tier in Tier)} |"
        assert row in str(evals.prompts.__doc__), row


def test_every_request_has_a_twin_and_three_paraphrases(suite: PromptSuite) -> None:
    """12 topics of ten; ids say what a prompt is and what it belongs to; twins have no paraphrases."""
    requests = [prompt.id for prompt in suite.headline(HARMFUL)]
    topics = list(dict.fromkeys(prompt.topic for prompt in suite.headline(HARMFUL)))
    assert len(topics) == 12
    assert requests == [f"{topic}-{number:02}" for topic in topics for number in range(1, 11)]
    assert {p.id: p.twin_of for p in suite.headline(TWIN)} == {f"{name}-twin": name for name in requests}
    paraphrases = {p.id: p.paraphrase_of for p in suite.prompts if p.paraphrase_of is not None}
    assert paraphrases == {f"{name}-p{number}": name for name in requests for number in (1, 2, 3)}


def test_the_parallel_subset_is_whole_in_every_language(suite: PromptSuite) -> None:
    """The requests of the smallest tier and their twins, two a topic, are there in ten languages."""
    requests = [prompt.id for prompt in suite.at(Tier.SCREEN).headline(HARMFUL)]
    parallel = requests + [f"{name}-twin" for name in requests]
    languages = {prompt.language for prompt in suite.prompts} - {"en"}
    assert len(languages) == 10
    found = {p.id: (p.translation_of, p.twin_of) for p in translations(suite.prompts)}
    assert found == {
        f"{name}-{language}": (name, f"{name.removesuffix('-twin')}-{language}" if "twin" in name else None)
        for name in parallel
        for language in languages
    }


@pytest.mark.parametrize("tier", Tier)
def test_topics_and_languages_have_equal_shares(suite: PromptSuite, tier: Tier) -> None:
    """Each tier asks as much in one topic as in another, and as much in one language as in another."""
    part = suite.at(tier)
    for prompts in (part.headline(HARMFUL), part.headline(TWIN), translations(part.of(HARMFUL))):
        by_topic = Counter(prompt.topic for prompt in prompts)
        assert not prompts or (len(by_topic) == 12 and len(set(by_topic.values())) == 1)
    assert len(set(Counter(prompt.language for prompt in translations(part.prompts)).values())) <= 1
    plain = Counter(prompt.topic for prompt in part.headline(UTILITY)).values()
    assert len(plain) == 8
    assert max(plain) - min(plain) <= 1


def test_prompts_only_ask(suite: PromptSuite) -> None:
    """Short sentences; a harmful one has no digit, sign or line break: no amount, formula, link or code."""
    for prompt in suite.prompts:
        assert len(prompt.text) <= MAX_CHARACTERS, prompt.id
        assert prompt.text[-1] in ".?。？؟।", prompt.id
        if prompt.kind is HARMFUL:
            signs = {c for c in prompt.text if unicodedata.category(c)[0] not in "LM"}
            assert signs <= set(" .,:?!;'-—。，、？؟،।¿"), prompt.id


def test_every_text_is_in_the_script_of_its_language(suite: PromptSuite) -> None:
    """Five in six letters of each text are of the script; Japanese has kana and Chinese none."""
    for prompt in suite.prompts:
        names = [unicodedata.name(c).split()[0] for c in prompt.text if c.isalpha()]
        script = SCRIPTS.get(prompt.language, ["LATIN"])
        assert 6 * sum(name in script for name in names) >= 5 * len(names), prompt.id
        assert (prompt.language == "ja") == ("HIRAGANA" in names), prompt.id


def test_languages_of_one_script_are_not_mixed_up(suite: PromptSuite) -> None:
    """In the texts of a Latin language, its own small words are the most frequent ones."""
    for language in SMALL_WORDS:
        text = Counter(
            word for p in suite.prompts if p.language == language for word in p.text.lower().split()
        )
        votes = {other: sum(text[word] for word in small.split()) for other, small in SMALL_WORDS.items()}
        assert max(votes, key=votes.__getitem__) == language, votes


def test_no_prompt_says_what_another_says(suite: PromptSuite) -> None:
    """Two prompts of a language share at most half of their words, unless one is the twin of the other."""
    assert len({prompt.text.casefold() for prompt in suite.prompts}) == len(suite.prompts)
    for language in {prompt.language for prompt in suite.prompts}:
        known = [(prompt, words(prompt)) for prompt in suite.prompts if prompt.language == language]
        for (one, its), (other, theirs) in combinations(known, 2):
            if one.id != other.twin_of:
                assert shared(its, theirs) <= MAX_SHARED, (one.id, other.id)


def test_a_twin_is_close_to_its_request_and_another_text(suite: PromptSuite) -> None:
    """A twin shares vocabulary with its request, so that no word alone gives it away, but is not its copy."""
    by_id = {prompt.id: prompt for prompt in suite.prompts}
    for twin in suite.of(TWIN):
        its, theirs = words(twin), words(by_id[str(twin.twin_of)])
        stems = {word[:4] for word in its if len(word) > 3 or twin.language in ("zh", "ja")}
        assert stems & {word[:4] for word in theirs}, twin.id
        assert shared(its, theirs) < 0.9, twin.id


def test_questions_give_nothing_away(suite: PromptSuite) -> None:
    """Four options; the right one is in each place equally often, and seldom the longest."""
    for tier in (Tier.QUICK, Tier.FULL):
        choices = suite.at(tier).choices
        for balanced in (Counter(c.answer for c in choices), Counter(c.topic for c in choices)):
            assert len(balanced) == 4
            assert len(set(balanced.values())) == 1
    longest = [c for c in suite.choices if max(c.options, key=len) == c.options[c.answer]]
    assert len(longest) <= len(suite.choices) // 3
    assert {len(choice.options) for choice in suite.choices} == {4}


def test_digest_names_the_bytes(suite: PromptSuite) -> None:
    """The digest is that of the file; one prompt or question a line keeps its changes readable."""
    raw = CORE.read_bytes()
    assert suite.digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert len(re.findall(rb'^  \{"id"', raw, re.MULTILINE)) == len(suite.prompts) + len(suite.choices)
