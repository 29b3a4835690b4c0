"""Log-probabilities of the first answer token: one call with one token a prompt, where they are given.

The distance is that of Log-Probability Tracking (arXiv 2512.03816): the mean absolute difference over the
tokens that either side lists, and a token missing from a side counts at that side's smallest value
(left-censoring). Lists are cut to the shorter one first, so that an endpoint that gives five is compared on
five.

The paper compares one endpoint with its own past. Here the floor is how far the pack's cells, which are the
authentic weights in other numerics, are from one another (`signflip`): the contrast per prompt is the
relative one, because prompts differ in scale by orders of magnitude, and distances are to one cell at a
time: rounding of an engine that the pack does not have is independent of every cell's, while two cells of
one engine may share theirs. Only numeric cells count: the values are those of temperature 1, and a system
prompt changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from detector.outputs.interface import ALPHA, Output, TestResult
from detector.outputs.signflip import floor_p, floors

TEST = "first-logprobs"
NUMERIC_CELLS = ("seed", "fp32", "bf16", "fp16", "int8")
"""Cells of a pack that differ from the release in number format or engine only."""
_TOLERANCE = 0.01
"""Nats that are lost in any engine's rounding; keeps a relative difference of two tiny distances small."""

Logprobs = Mapping[str, float]


def first_logprobs(outputs: Iterable[Output]) -> dict[str, dict[str, float]]:
    """Prompt id to the top tokens of the first output that lists them."""
    found: dict[str, dict[str, float]] = {}
    for one in outputs:
        if one.top_logprobs:
            found.setdefault(one.prompt_id, dict(one.top_logprobs))
    return found


def logprob_test(
    served: Mapping[str, Logprobs],
    cells: Mapping[str, Mapping[str, Logprobs]],
    *,
    alpha: float = ALPHA,
) -> TestResult:
    """Test that first-token log-probabilities are no further from the release's than its numerics make them.

    Args:
        served: prompt id to token to log-probability (nats) of the endpoint.
        cells: the pack's `first_logprobs`; two numeric cells or more.
        alpha: level, exact.
    """
    numeric = [cells[name] for name in NUMERIC_CELLS if name in cells]
    found = floors(served, numeric, apart, relative=_TOLERANCE, one_anchor=True)
    return floor_p(TEST, found, alpha, f"against {len(numeric)} numeric cells")


def apart(a: Logprobs, b: Logprobs) -> float:
    """Mean absolute difference, nats, over the tokens of both, censored from below; symmetric.

    A side without tokens says nothing: 0.
    """
    size = min(len(a), len(b))
    if not size:
        return 0.0
    a, b = _top(a, size), _top(b, size)
    least_a, least_b = min(a.values()), min(b.values())
    tokens: Sequence[str] = sorted(a.keys() | b.keys())
    return sum(abs(a.get(token, least_a) - b.get(token, least_b)) for token in tokens) / len(tokens)


def _top(logprobs: Logprobs, size: int) -> dict[str, float]:
    return dict(sorted(logprobs.items(), key=lambda item: (-item[1], item[0]))[:size])
