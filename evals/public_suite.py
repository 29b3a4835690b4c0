"""A suite made of public sets: twins linked, tiers given, and written as a file that `load_suite` reads.

A benign prompt becomes the twin of a harmful one of its topic, by order. In these sets that names a
neighbour, not a rewording; no number depends on it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

from evals.interface import Prompt, PromptKind, PromptSuite, Tier
from evals.public import PublicSet
from evals.tables import InputFileError

SIZES: Mapping[Tier, int] = {Tier.SCREEN: 20, Tier.QUICK: 100}
"""Headline prompts of either kind in the smaller tiers of such a suite."""


def suite_of(sets: Sequence[PublicSet], suite_id: str, version: str) -> PromptSuite:
    """One suite of several sets: twins linked, tiers given, topics balanced in the smaller ones.

    Raises:
        InputFileError: two sets share a prompt's id, or there is no harmful prompt to be the twin of.
    """
    prompts = [prompt for each in sets for prompt in each.prompts]
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise InputFileError("two files hold prompts of one name; make two suites of them")
    tiers = _tiers(prompts, PromptKind.HARMFUL) | _tiers(prompts, PromptKind.BENIGN_TWIN)
    twins = _twins(prompts)
    order = tuple(Tier)
    finished: list[Prompt] = []
    for prompt in prompts:
        twin = twins.get(prompt.id)
        tier = max(tiers[prompt.cluster], tiers[twin] if twin else Tier.SCREEN, key=order.index)
        finished.append(replace(prompt, twin_of=twin, tier=Tier.FULL if prompt.is_variant else tier))
    unsigned = PromptSuite(suite_id, version, tuple(finished), digest="")
    return replace(unsigned, digest=f"sha256:{hashlib.sha256(suite_bytes(unsigned)).hexdigest()}")


def _tiers(prompts: Sequence[Prompt], kind: PromptKind) -> dict[str, Tier]:
    """Of the headline prompts of one kind: one of each topic in turn, until a tier is full."""
    by_topic: dict[str, list[str]] = defaultdict(list)
    for prompt in prompts:
        if prompt.kind is kind and not prompt.is_variant:
            by_topic[prompt.topic].append(prompt.id)
    in_turn = [name for turn in zip_longest(*by_topic.values()) for name in turn if name is not None]
    return {
        name: next((tier for tier, size in SIZES.items() if place < size), Tier.FULL)
        for place, name in enumerate(in_turn)
    }


def _twins(prompts: Sequence[Prompt]) -> dict[str, str]:
    """For each benign prompt a harmful one: of its topic where there is one, by order."""
    harmful = [prompt for prompt in prompts if prompt.kind is PromptKind.HARMFUL and not prompt.is_variant]
    benign = [prompt for prompt in prompts if prompt.kind is PromptKind.BENIGN_TWIN]
    if benign and not harmful:
        raise InputFileError("all prompts are benign: name a file with harmful ones of the same set too")
    by_topic: dict[str, list[str]] = defaultdict(list)
    for prompt in harmful:
        by_topic[prompt.topic].append(prompt.id)
    every = [prompt.id for prompt in harmful]
    used: Counter[str] = Counter()
    twins: dict[str, str] = {}
    for prompt in benign:
        choices = by_topic.get(prompt.topic) or every
        twins[prompt.id] = choices[used[prompt.topic] % len(choices)]
        used[prompt.topic] += 1
    return twins


def as_document(suite: PromptSuite) -> dict[str, object]:
    """A suite as a `forkwatch.prompts/2` document. Law: `load_suite` reads the same suite from its bytes."""
    return {
        "schema": "forkwatch.prompts/2",
        "id": suite.id,
        "version": suite.version,
        "prompts": [_prompt_document(prompt) for prompt in suite.prompts],
        "choices": [
            {
                "id": choice.id,
                "question": choice.question,
                "options": list(choice.options),
                "answer": choice.answer,
                "topic": choice.topic,
                "tier": choice.tier.value,
            }
            for choice in suite.choices
        ],
    }


def suite_bytes(suite: PromptSuite) -> bytes:
    """The file; its hash is the suite's digest."""
    return json.dumps(as_document(suite), indent=1, ensure_ascii=False).encode() + b"\n"


def _prompt_document(prompt: Prompt) -> dict[str, object]:
    variant = {"paraphrase_of": prompt.paraphrase_of, "translation_of": prompt.translation_of}
    return {
        "id": prompt.id,
        "text": prompt.text,
        "kind": prompt.kind.value,
        "topic": prompt.topic,
        "language": prompt.language,
        "twin_of": prompt.twin_of,
        "tier": prompt.tier.value,
        **{name: base for name, base in variant.items() if base is not None},
    }
