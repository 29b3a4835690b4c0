from __future__ import annotations

import pytest

from crawler.interface import RepoId
from crawler.related import mentions, name_stem, spellings


@pytest.mark.parametrize(
    ("release", "stem"),
    [
        ("x/SmolLM2-135M-Instruct", "SmolLM2-135M"),
        ("x/Qwen3-8B-Instruct-2507", "Qwen3-8B"),
        ("x/gemma-3-27b-it", "gemma-3-27b"),
        ("x/Llama-3.1-8B", "Llama-3.1-8B"),
        ("lab/tiny-chat", "tiny-chat"),
        ("lab/chat", "chat"),
    ],
)
def test_stem_drops_variant_words_but_stays_specific(release: str, stem: str) -> None:
    """Endings that forks drop are dropped, never below two parts."""
    assert name_stem(RepoId(release)) == stem


def test_spellings_cover_what_people_write_without_repetition() -> None:
    """Glued numbers, underscores and no separators; equal ones once."""
    assert spellings("Llama-3.1-8B") == ("Llama-3.1-8B", "Llama3.1-8B", "Llama_3.1_8B", "Llama3.18B")
    assert spellings("chat") == ("chat",)


@pytest.mark.parametrize(
    "text",
    [
        "Huihui-SmolLM2-135M-abliterated",
        "smollm2_135m.gguf",
        "SmolLM2 135M, uncensored",
        "made from x/smollm2-135m-instruct",
    ],
)
def test_names_of_forks_mention_the_release(text: str) -> None:
    """Case, separators and additions do not hide the name."""
    assert mentions(text, RepoId("x/SmolLM2-135M-Instruct"))


@pytest.mark.parametrize("text", ["SmolLM2-1.7B", "SmolLM2-135Mega", "XSmolLM2-135M", "", "SmolLM-2135M"])
def test_other_names_do_not(text: str) -> None:
    """Another size, and longer words that contain the name, are somebody else's."""
    assert not mentions(text, RepoId("x/SmolLM2-135M-Instruct"))
