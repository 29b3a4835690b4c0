"""Greedy transcripts: does the endpoint answer at temperature 0 as the release's published answers do?

No model is needed, only strings. Two answers are as far apart as the share of the shorter one that follows
their common beginning: greedy decoding leaves the common path for good once one token differs. An answer that
is the beginning of the other is the same answer, cut elsewhere.

The null hypothesis and the two tests are those of `signflip`: the endpoint may differ from the published
transcripts as much as one of these differs from the rest. A changed system prompt changes greedy text
completely and is a difference here; an endpoint may ignore temperature 0, which shows as one too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from detector.outputs.interface import ALPHA, Attributed, Decision, Output, Question, TestResult, Transcript
from detector.outputs.permutation import insufficient
from detector.outputs.signflip import floor_e, floor_p, floors

TEST = "greedy-transcript"
NEAREST = "nearest-transcript"


def greedy_answers(outputs: Iterable[Output]) -> dict[str, str]:
    """Prompt id to the first answer that was asked for at temperature 0; later ones repeat it.

    A single token, which was asked for its log-probabilities, is no answer.
    """
    found: dict[str, str] = {}
    for one in outputs:
        if one.greedy and one.text is not None and one.sampling.max_tokens != 1:
            found.setdefault(one.prompt_id, one.text)
    return found


def apart(a: str, b: str) -> float:
    """Share of the shorter answer that follows the common beginning, in [0, 1]; 0: one begins the other.

    Symmetric. An empty answer is as far as can be from one that is not.
    """
    a, b = a.strip(), b.strip()
    if not a or not b:
        return float(a != b)
    shorter = min(len(a), len(b))
    common = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    return 1 - common / shorter


def greedy_transcript(
    served: Mapping[str, str], authentic: Sequence[Transcript], *, alpha: float = ALPHA
) -> TestResult:
    """Test that greedy answers differ from the release's transcripts no more than these among themselves.

    Args:
        served: prompt id to the endpoint's answer at temperature 0. Where these are a third of the pack's
            prompts or fewer, they have to be a random choice of them.
        authentic: transcripts of the release alone, one an engine and dtype; two or more.
        alpha: level, exact for a number of answers that was fixed beforehand.
    """
    found = floors(served, [one.answers for one in authentic], apart)
    return floor_p(TEST, found, alpha, _on(authentic))


def greedy_transcript_sequential(
    served: Mapping[str, str], authentic: Sequence[Transcript], *, alpha: float = ALPHA
) -> TestResult:
    """The same hypothesis by betting: the result holds at any number of answers, however often one looks."""
    found = floors(served, [one.answers for one in authentic], apart)
    return floor_e(f"{TEST}-sequential", found, alpha, _on(authentic))


def _on(authentic: Sequence[Transcript]) -> str:
    return f"against {len(authentic)} authentic transcripts"


def nearest_transcript(
    served: Mapping[str, str],
    authentic: Sequence[Transcript],
    forks: Sequence[Transcript],
    *,
    alpha: float = ALPHA,
) -> tuple[TestResult, tuple[Attributed, ...]]:
    """Test, fork by fork, that the answers are no nearer to the fork's transcripts than to the release's.

    Only prompts that the endpoint, the fork and the release answered, and on which one of the two is nearer,
    count; under the null hypothesis the fork is nearer on each with probability 1/2 at most, by accident of
    numerics. P-values are exact binomial, with Holm's correction for the number of forks; those that gave
    equal answers to these prompts are one hypothesis. A sibling of a known fork is nearer to it than to the
    release, too.

    Returns:
        The result for the best candidate, and every fork, best first; of forks that gave equal answers the
        first by name, which tells the others. DIFFERENT: nearer to that fork.
    """
    groups = _alike(_by_model(forks), served) if authentic else []
    rows = [(*_votes(served, authentic, own), names) for names, own in groups]
    rows = [row for row in rows if row[2]]
    if not rows:
        return insufficient(
            NEAREST, 0, "no prompt is shared with a known fork", question=Question.ATTRIBUTION
        ), ()
    rows.sort(key=lambda row: (_binomial_tail(row[0], row[1]), -row[3], row[4]))
    p_first = min(1.0, _binomial_tail(rows[0][0], rows[0][1]) * len(rows))
    nearer, informative, shared, _, first = rows[0]
    candidates = tuple(
        Attributed(
            fork=name,
            log_e=None,
            detail=f"nearer than the release on {k} of {n} prompts that tell; {alike:.0%} in common"
            + (f"; tied with {', '.join(same)}, whose answers are equal" if same else ""),
        )
        for k, n, _, alike, (name, *same) in rows
    )
    return _attributed(
        " = ".join(first), p_first, (nearer, informative, shared), len(rows), alpha
    ), candidates


def _attributed(fork: str, p: float, counts: tuple[int, int, int], tested: int, alpha: float) -> TestResult:
    nearer, informative, shared = counts
    least = math.ceil(-math.log2(alpha / tested))
    if p <= alpha:
        decision = Decision.DIFFERENT
    else:
        decision = Decision.NO_DIFFERENCE if informative >= least else Decision.INSUFFICIENT
    return TestResult(
        question=Question.ATTRIBUTION,
        test=NEAREST,
        decision=decision,
        n=shared,
        p_value=p,
        needed=math.ceil(shared * least / informative) if 0 < informative < least else None,
        reason=f"nearer to {fork} than to the release on {nearer} of {informative} prompts that tell them "
        f"apart (p = {p:.3g} after Holm over {tested}, alpha {alpha:g})",
    )


def _by_model(transcripts: Sequence[Transcript]) -> dict[str, list[Transcript]]:
    found: dict[str, list[Transcript]] = {}
    for one in transcripts:
        found.setdefault(one.model, []).append(one)
    return found


def _alike(
    forks: Mapping[str, Sequence[Transcript]], served: Mapping[str, str]
) -> list[tuple[tuple[str, ...], Sequence[Transcript]]]:
    """Forks by name, those together whose answers to the served prompts are equal."""
    found: dict[frozenset[tuple[tuple[str, str], ...]], list[str]] = {}
    for fork, own in sorted(forks.items()):
        said = frozenset(tuple((p, one.answers[p]) for p in served if p in one.answers) for one in own)
        found.setdefault(said, []).append(fork)
    return [(tuple(names), forks[names[0]]) for names in found.values()]


def _votes(
    served: Mapping[str, str], authentic: Sequence[Transcript], fork: Sequence[Transcript]
) -> tuple[int, int, int, float]:
    """Prompts: fork nearer, either nearer, shared by all; and the mean share in common with the fork."""
    nearer = informative = shared = 0
    alike = 0.0
    for prompt, answer in served.items():
        ours = [apart(answer, one.answers[prompt]) for one in authentic if prompt in one.answers]
        theirs = [apart(answer, one.answers[prompt]) for one in fork if prompt in one.answers]
        if ours and theirs:
            shared += 1
            alike += 1 - min(theirs)
            nearer += min(theirs) < min(ours)
            informative += min(theirs) != min(ours)
    return nearer, informative, shared, alike / shared if shared else 0.0


def _binomial_tail(k: int, n: int) -> float:
    """P(at least k of n fair coins)."""
    return float(Fraction(sum(math.comb(n, i) for i in range(k, n + 1)), 2**n))
