"""Language models small enough to know exactly: Markov chains over a few words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detector.outputs.interface import Output, Sampling, ScoredOutput, TokenScores

WORDS = 40
Logits = NDArray[np.float64]
PLAIN = Sampling(temperature=1.0)


def chain(seed: int, scale: float = 2.0) -> Logits:
    """A model: (words, words) logits of the next word given the last."""
    return np.random.default_rng(seed).normal(scale=scale, size=(WORDS, WORDS))


def fork_of(logits: Logits, shift: float, seed: int) -> Logits:
    """The model, changed everywhere."""
    return logits + shift * np.random.default_rng(seed).normal(size=logits.shape)


def probabilities(logits: Logits, temperature: float = 1.0, top_p: float = 1.0) -> Logits:
    """(words, words) rows that sum to 1, as a sampler makes them."""
    odds = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    p = odds / odds.sum(axis=1, keepdims=True)
    order = np.argsort(-p, axis=1)
    ordered = np.take_along_axis(p, order, axis=1)
    kept = ordered.cumsum(axis=1) - ordered < top_p
    nucleus = np.zeros_like(p)
    np.put_along_axis(nucleus, order, np.where(kept, ordered, 0.0), axis=1)
    return nucleus / nucleus.sum(axis=1, keepdims=True)


def drawn(p: Logits, outputs: int, tokens: int, seed: int) -> NDArray[np.int64]:
    """(outputs, tokens + 1) words; the first stands for the prompt."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(WORDS, size=outputs)]
    cumulative = p.cumsum(axis=1)
    for _ in range(tokens):
        found = (cumulative[words[-1]] < rng.random((outputs, 1))).sum(axis=1)
        words.append(found.clip(0, WORDS - 1))
    return np.array(words).T


def scored(
    words: NDArray[np.int64],
    authentic: Logits,
    forks: Mapping[str, Logits],
    sampling: Sampling = PLAIN,
) -> tuple[ScoredOutput, ...]:
    """Those answers under the authentic model and the forks."""
    p = probabilities(authentic)
    logp = np.log(p)
    entropy = -(p * logp).sum(axis=1)
    variance = (p * logp**2).sum(axis=1) - entropy**2
    tables = {fork: np.log(probabilities(logits)) for fork, logits in forks.items()}
    found = []
    for row in words:
        last, word = row[:-1], row[1:]
        chosen = logp[last, word]
        higher = logp[last] > chosen[:, None]
        scores = TokenScores(
            logp=chosen.astype(np.float32),
            entropy=entropy[last].astype(np.float32),
            variance=variance[last].astype(np.float32),
            rank=higher.sum(axis=1).astype(np.float32),
            above=np.where(higher, p[last], 0.0).sum(axis=1).astype(np.float32),
        )
        output = Output(prompt_id=f"p{row[0]}", text=" ".join(f"w{one}" for one in word), sampling=sampling)
        under = {fork: table[last, word].astype(np.float32) for fork, table in tables.items()}
        found.append(ScoredOutput(output=output, authentic=scores, forks=under))
    return tuple(found)
