"""Level and power of the equality tests on made-up language whose probabilities are known exactly.

Two Markov chains over 300 made-up words (`benchmarks.outputs`), 40 prompts, answers of 40 words. The
authentic one scores every answer. Rows are served models: it, at other temperatures, and shifted ones.
Greedy answers of a chain are its likeliest words after a numeric format's noise on the logits.

    python -m benchmarks.equality [runs]
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from scipy.stats import binomtest

from benchmarks.outputs import LENGTH, PROMPTS, WORDS, Speaker
from detector.outputs.features import score_features
from detector.outputs.interface import ALPHA, TestResult, TokenScores, Transcript
from detector.outputs.met import mmd_hamming
from detector.outputs.nuisance import nuisance_p
from detector.outputs.ranks import log_rank, rank_uniformity
from detector.outputs.scores import cell_tests, score_test
from detector.outputs.transcripts import greedy_transcript, greedy_transcript_sequential

REFERENCE, SERVED = 24, 2
"""Answers a prompt."""
FLOAT16, BFLOAT16 = 0.002, 0.05
"""Noise on the logits of a numeric format; the second makes a fifth of the greedy answers differ."""
AUTHENTIC = Speaker()
Value = TypeVar("Value")


class Scorer:
    """True scores under the authentic chain, by look-up."""

    def __init__(self) -> None:
        chances = AUTHENTIC.next
        logp = np.log(chances)
        order = np.argsort(-chances, axis=1)
        rank, above = np.empty_like(chances), np.empty_like(chances)
        np.put_along_axis(rank, order, np.tile(np.arange(WORDS, dtype=float), (WORDS, 1)), axis=1)
        sorted_up = np.take_along_axis(chances, order, axis=1)
        np.put_along_axis(above, order, sorted_up.cumsum(axis=1) - sorted_up, axis=1)
        entropy = -(chances * logp).sum(axis=1)
        self.tables = (logp, rank, above)
        self.states = (entropy, (chances * logp**2).sum(axis=1) - entropy**2)

    def scores(self, words: list[int], prompt: int) -> TokenScores:
        before = np.array([prompt, *words[:-1]])
        logp, rank, above = (table[before, words].astype(np.float32) for table in self.tables)
        entropy, variance = (state[before].astype(np.float32) for state in self.states)
        return TokenScores(logp, entropy, variance, rank, above)


SCORER = Scorer()
INDEX = {word: number for number, word in enumerate(AUTHENTIC.words)}


def scored(texts: Mapping[str, tuple[str, ...]]) -> dict[str, list[TokenScores]]:
    return {
        prompt: [SCORER.scores([INDEX[word] for word in text.split()], int(prompt)) for text in answers]
        for prompt, answers in texts.items()
    }


def greedy(speaker: Speaker, noise: float, rng: np.random.Generator) -> dict[str, str]:
    """The likeliest words; every word of every answer has rounding noise of its own."""
    state, spoken = np.arange(PROMPTS), []
    for _ in range(LENGTH):
        logits = np.log(speaker.next[state])
        state = (logits + noise * rng.normal(size=logits.shape)).argmax(axis=1)
        spoken.append(state)
    return {str(p): " ".join(speaker.words[w] for w in row) for p, row in enumerate(np.array(spoken).T)}


def tempered(temperature: float) -> Speaker:
    speaker = Speaker()
    odds = speaker.next ** (1 / temperature)
    speaker.next = odds / odds.sum(axis=1, keepdims=True)
    return speaker


def tests(served: Speaker, rng: np.random.Generator) -> dict[str, TestResult]:
    """Every test once, on fresh outputs of the served model and a fresh pack."""
    texts = {"seed": AUTHENTIC.answers(REFERENCE, rng)}
    texts |= {f"temperature-{t}": tempered(t).answers(REFERENCE // 3, rng) for t in (0.8, 1.2)}
    scores = {cell: scored(answers) for cell, answers in texts.items()}
    cells = {cell: _each(found, score_features) for cell, found in scores.items()}
    own_texts = served.answers(SERVED, rng)
    own_scores = scored(own_texts)
    own = _each(own_scores, score_features)
    cold = greedy(served, BFLOAT16, rng)
    pack = [
        Transcript(model="authentic", engine="e", dtype=str(noise), answers=greedy(AUTHENTIC, noise, rng))
        for noise in (0.0, FLOAT16, BFLOAT16)
    ]
    some = {str(p): cold[str(p)] for p in rng.permutation(PROMPTS)[:5]}
    return {
        "mmd-hamming": mmd_hamming(texts["seed"], own_texts),
        "rank-uniformity": rank_uniformity(_each(scores["seed"], log_rank), _each(own_scores, log_rank)),
        "score-permutation": score_test(cells["seed"], own),
        "score-nuisance": nuisance_p(cell_tests(cells, own)),
        "greedy, 5 of 40": greedy_transcript(some, pack),
        "greedy, 40": greedy_transcript(cold, pack),
        "greedy sequential, 40": greedy_transcript_sequential(cold, pack),
    }


def _each(
    found: Mapping[str, list[TokenScores]], statistic: Callable[[TokenScores], Value]
) -> dict[str, tuple[Value, ...]]:
    return {prompt: tuple(statistic(one) for one in answers) for prompt, answers in found.items()}


def main() -> None:
    """Print the table as Markdown."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    rows: dict[str, Callable[[int], Speaker]] = {
        "authentic": lambda _: AUTHENTIC,
        "authentic, T = 0.9": lambda _: tempered(0.9),
        "authentic, T = 0.8": lambda _: tempered(0.8),
    }
    for shift in (0.15, 0.3, 0.5, 0.8, 1.2):
        rows[f"KL {np.mean([Speaker(k, shift).divergence(AUTHENTIC) for k in range(1, 4)]):.3f}"] = (
            lambda run, shift=shift: Speaker(run + 1, shift)
        )
    start = time.process_time()
    for name, speaker in rows.items():
        hits: dict[str, int] = defaultdict(int)
        count = runs * (5 if name == "authentic" else 1)
        for run in range(count):
            for test, result in tests(speaker(run), np.random.default_rng([run, len(name)])).items():
                p = result.p_value
                hits[test] += p <= ALPHA if p is not None else (result.log_e or 0.0) >= -np.log(ALPHA)
        for test, found in hits.items():
            low, high = binomtest(found, count).proportion_ci(0.95, "exact")
            print(f"| {name} | {test} | {found / count:.3f} | {low:.3f}–{high:.3f} | {count} |", flush=True)
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
