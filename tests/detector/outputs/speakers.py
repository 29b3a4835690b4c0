"""A made-up language with exact probabilities: outputs of it come with true scores, under any speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detector.outputs.interface import Output, Sample, ScoredOutput, TokenScores

WORDS, LENGTH, PROMPTS = 120, 30, 20
VOCABULARY = tuple(
    "".join(np.random.default_rng(number).choice(list("abcdefghijklmnopqrstuvwxyz"), size=2 + number % 6))
    for number in range(WORDS)
)


class Speaker:
    """A Markov chain over words whose first word is the prompt's; `shift` scales the noise on its logits.

    Speakers of one family share most of their noise, as forks of one recipe do.
    """

    def __init__(self, family: int = 0, shift: float = 0.0, fork: int = 0, temperature: float = 1.0) -> None:
        base = np.random.default_rng(0).normal(scale=2.6, size=(WORDS, WORDS))
        noise = np.random.default_rng([1, family]).normal(size=base.shape)
        noise += 0.3 * np.random.default_rng([2, family, fork]).normal(size=base.shape)
        odds = np.exp((base + shift * noise) / temperature)
        self.next = odds / odds.sum(axis=1, keepdims=True)

    def scores(self, words: NDArray[np.int64], start: int) -> TokenScores:
        """True scores of a sequence of words."""
        before = np.concatenate([[start], words[:-1]])
        chances = self.next[before]
        logs = np.log(chances)
        own = np.take_along_axis(chances, words[:, None], 1)
        entropy = -(chances * logs).sum(axis=1)
        variance = (chances * logs**2).sum(axis=1) - entropy**2
        likelier = chances > own
        found = (np.log(own[:, 0]), entropy, variance, likelier.sum(axis=1), (chances * likelier).sum(axis=1))
        return TokenScores(*(array.astype(np.float32) for array in found))


AUTHENTIC = Speaker()


def speak(
    speaker: Speaker,
    each: int,
    seed: int,
    prompts: Sequence[int] = range(PROMPTS),
    known: Mapping[str, Speaker] = {},
) -> list[ScoredOutput]:
    """`each` answers to each prompt, scored under the authentic speaker and known ones."""
    rng = np.random.default_rng(seed)
    cumulative = speaker.next.cumsum(axis=1)
    found = []
    for _ in range(each):
        for prompt in prompts:
            word, words = prompt, []
            for chance in rng.random(LENGTH):
                word = min(int(np.searchsorted(cumulative[word], chance)), WORDS - 1)
                words.append(word)
            text = " ".join(VOCABULARY[one] for one in words)
            scores = AUTHENTIC.scores(np.array(words), prompt)
            under = {name: one.scores(np.array(words), prompt).logp for name, one in known.items()}
            found.append(ScoredOutput(Output(prompt_id=f"p{prompt}", text=text), scores, under))
    return found


def sample(
    model: str,
    speaker: Speaker,
    each: int,
    seed: int,
    *,
    cell: str = "seed",
    family: str = "authentic",
    benign: bool = False,
) -> Sample:
    """A sample of a speaker."""
    return Sample(
        model=model, cell=cell, family=family, benign=benign, scored=tuple(speak(speaker, each, seed))
    )
