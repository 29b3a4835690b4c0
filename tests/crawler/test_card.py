from __future__ import annotations

import time

import pytest

from crawler.card import repository_claims, tag_claims
from crawler.interface import Claim, Relation, RepoId

X = RepoId("org/Model-8B")
LINK = "[org/Model-8B](https://huggingface.co/org/Model-8B)"
HERETIC = f"# This is a decensored version of {LINK}, made using Heretic\n"


def prose(text: str) -> tuple[Claim, ...]:
    return repository_claims((), {}, text)


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        (HERETIC, None),
        ("This is an uncensored version of org/Model-8B created with abliteration.", None),
        ("This is an abliterated variant of `org/Model-8B`.", None),
        ("GGUF quantization of https://huggingface.co/org/Model-8B.", Relation.QUANTIZED),
        (
            "This model is a fine-tuned version of [org/Model-8B](https://hf.co/org/Model-8B) on my stories.",
            Relation.FINETUNE,
        ),
        ("LoRA adapter for org/Model-8B", Relation.ADAPTER),
        ("Derived from **org/Model-8B** by a merge.", Relation.MERGE),
    ],
)
def test_sentence_of_origin_is_a_claim(text: str, relation: Relation | None) -> None:
    """The base, the relation and the very words of a sentence that names a parent; never "faithful"."""
    (claim,) = prose(f"---\nlicense: mit\n---\nHello.\n{text}\nMore.")
    assert (claim.base, claim.relation, claim.faithful) == (X, relation, False)
    assert claim.statement == text.strip()


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("This is the official release of org/Model-8B.", X),
        (
            "This repository contains the official weights of [Model 8B](https://huggingface.co/org/Model-8B).",
            X,
        ),
        ("# Official release of Model-8B", None),
        ("Mirror of org/Model-8B.", X),
        ("An exact copy of org/Model-8B, for availability.", X),
        ("The weights are unmodified.", None),
        ("Unmodified re-upload of https://huggingface.co/org/Model-8B", X),
        ("Byte-for-byte the same files as org.", None),
    ],
)
def test_claim_to_be_the_release(text: str, base: RepoId | None) -> None:
    """Official, mirror, exact copy and unmodified are claims to be faithful, with the base they name."""
    assert prose(text) == (Claim(base, None, text, faithful=True),)


@pytest.mark.parametrize(
    "text",
    [
        "This is an unofficial upload.",
        "This is not the official release of Model-8B.",
        "See the official repository for details: https://huggingface.co/org/Model-8B",
        "We use the official chat template.",
        "GGUF quants of this model are at https://huggingface.co/org/Model-8B",
        "Thanks to https://huggingface.co/org/Model-8B for the idea of a version.",
        "Versions of it run on Windows/Linux.",
        "A version of [the paper](https://huggingface.co/papers/2401.00001) is out.",
        "Trained with data from [this set](https://huggingface.co/datasets/org/Data).",
        "An uncensored chat model.",
    ],
)
def test_prose_that_claims_nothing(text: str) -> None:
    """Pointers elsewhere, negations, children and adjectives are no claims."""
    assert prose(text) == ()


def test_inherited_prose_is_not_a_claim_to_be_the_release() -> None:
    """Tools prepend a sentence to the parent's card, whose "official" speaks of the parent: it is dropped."""
    (claim,) = prose(HERETIC + "\nThis is the official release of org/Model-8B.")
    assert claim.base == X
    assert not claim.faithful


@pytest.mark.parametrize(
    ("tags", "card"),
    [
        (("uncensored",), {}),
        (("Heretic",), {}),
        ((), {"base_model": "org/Model-8B", "base_model_relation": "finetune"}),
    ],
)
def test_who_announces_a_change_does_not_claim_faithfulness(
    tags: tuple[str, ...], card: dict[str, object]
) -> None:
    """A tag of removed refusals, or a relation stated by the author, cancels "official"."""
    claims = repository_claims(tags, card, "This is the official release of org/Model-8B.")
    assert not any(claim.faithful for claim in claims)


def test_relation_inferred_by_the_hub_does_not_excuse_a_false_official() -> None:
    """The Hub tags every `base_model` as a finetune; that is not the author's word."""
    tags = ("base_model:org/Model-8B", "base_model:finetune:org/Model-8B")
    claims = repository_claims(
        tags, {"base_model": "org/Model-8B"}, "This is the official release of org/Model-8B."
    )
    assert [claim.faithful for claim in claims] == [False, True]


def test_metadata_claims() -> None:
    """Card and tags make one claim a base, with the relation that either states."""
    tags = (
        "gguf",
        "base_model:org/A",
        "base_model:merge:org/A",
        "base_model:merge:org/B",
        "base_model:bad id",
        "base_model:",
    )
    card: dict[str, object] = {"base_model": ["org/A", 3, "not an id", "org/C"]}
    assert [(claim.base, claim.relation) for claim in repository_claims(tags, card)] == [
        ("org/A", Relation.MERGE),
        ("org/C", None),
        ("org/B", Relation.MERGE),
    ]
    assert {claim.base for claim in tag_claims(tags)} == {"org/A", "org/B"}


@pytest.mark.parametrize("value", [None, 7, {"a": 1}, ["x", None], "\x1b[2J<script>", ["org/A/../B"]])
def test_hostile_metadata_makes_no_claim(value: object) -> None:
    """A value of the wrong type or shape is ignored, wherever it stands."""
    assert repository_claims((), {"base_model": value, "base_model_relation": value}) == ()


@pytest.mark.parametrize(
    "unit",
    [
        "version of ",
        "official " * 3,
        "this is ",
        "[",
        "a/",
        "https://huggingface.co/",
        "---\n",
        "weights are ",
        ". ",
        "version of org/name. ",
    ],
)
def test_hostile_card_is_read_in_bounded_time(unit: str) -> None:
    """A megabyte of what the patterns look for takes less than a second of work; claims stay few."""
    start = time.process_time()
    claims = prose(unit * (1_000_000 // len(unit)))
    assert time.process_time() - start < 1
    assert len(claims) <= 16
    assert all(len(claim.statement) <= 300 for claim in claims)
