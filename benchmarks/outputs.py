"""Level and power of the output test on simulated text: the table of docs/methodology/outputs.md.

Two random Markov chains over 300 made-up words speak 40 words an answer (3 nats a word); the fork's
transition logits are the original's plus Gaussian noise. The size of a shift is its Kullback-Leibler
divergence per word, so that rows can be compared with a real fork's KL per token.

    python benchmarks/outputs.py [pairs]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
from scipy.stats import binomtest

from detector.outputs.two_sample import compare_outputs

WORDS, LENGTH, PROMPTS = 300, 40, 40
SHIFTS = (0.15, 0.3, 0.5, 0.8, 1.2)


class Speaker:
    """A Markov chain; `shift` is the scale of the noise on its logits."""

    def __init__(self, seed: int = 0, shift: float = 0.0) -> None:
        rng = np.random.default_rng(0)
        letters = list("abcdefghijklmnopqrstuvwxyz")
        self.words = ["".join(rng.choice(letters, size=rng.integers(2, 8))) for _ in range(WORDS)]
        base = rng.normal(scale=2.6, size=(WORDS, WORDS))
        noise = np.random.default_rng(seed).normal(size=base.shape)
        odds = np.exp(base + shift * noise)
        self.next = odds / odds.sum(axis=1, keepdims=True)

    def answers(self, samples: int, rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
        cumulative = self.next.cumsum(axis=1)
        state = np.repeat(np.arange(PROMPTS), samples)
        spoken = []
        for _ in range(LENGTH):
            state = (cumulative[state] < rng.random((len(state), 1))).sum(axis=1).clip(0, WORDS - 1)
            spoken.append(state)
        texts = [" ".join(self.words[word] for word in row) for row in np.array(spoken).T]
        return {str(p): tuple(texts[p * samples : (p + 1) * samples]) for p in range(PROMPTS)}

    def divergence(self, other: Speaker) -> float:
        """KL per word of this chain from `other`, in nats, under this chain's own word frequencies."""
        share = np.full(WORDS, 1 / WORDS)
        for _ in range(50):
            share = share @ self.next
        return float((share[:, None] * self.next * np.log(self.next / other.next)).sum())


ORIGINAL = Speaker()


def p_values(samples: int, shift: float, changed: int, pairs: int) -> Iterator[tuple[float, float]]:
    """(p, KL) of each simulated pair; `changed` prompts are answered by the shifted model, the rest alike."""
    for pair in range(pairs):
        rng = np.random.default_rng([pair, samples, int(shift * 100), changed])
        fork = Speaker(pair + 1, shift)
        mixed = ORIGINAL.answers(samples, rng) | dict(list(fork.answers(samples, rng).items())[:changed])
        result = compare_outputs(ORIGINAL.answers(samples, rng), mixed, seed=pair)
        assert result.p_value is not None
        yield result.p_value, ORIGINAL.divergence(fork)


def row(samples: int, shift: float, changed: int, pairs: int) -> str:
    """One line of the table."""
    found = list(p_values(samples, shift, changed, pairs))
    hits = sum(p <= 0.01 for p, _ in found)
    low, high = binomtest(hits, pairs).proportion_ci(0.95, "exact")
    divergence = np.mean([kl for _, kl in found])
    return (
        f"| {divergence:.3f} | {changed} | {samples} | {hits / pairs:.3f} | {low:.3f}–{high:.3f} | {pairs} |"
    )


def main() -> None:
    """Print the table as Markdown."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(
        "| KL, nats a word | prompts changed | answers a prompt | found, α = 0.01 | 95 % interval | pairs |"
    )
    print("|---|---|---|---|---|---|")
    start = time.process_time()
    for samples in (1, 4):
        print(row(samples, 0.0, PROMPTS, 10 * pairs), flush=True)
        for shift in SHIFTS:
            print(row(samples, shift, PROMPTS, pairs), flush=True)
    print(row(4, 3.0, 4, pairs), flush=True)
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
