"""Evidence that grows with a stream of outputs: sums of log-likelihoods and of bets, each output once.

Only tests that hold at any number of outputs take part: likelihood ratios of known forks, greedy transcripts
by betting, refusal probes by betting. What they are made of (forks, settings, transcripts, baselines, stakes)
is fixed when a stream begins and named by digests; a stream goes on with the same things or not at all, since
bets must be chosen before the outputs are seen. What a test has decided once stays decided (Ville's
inequality is about the largest value of all times).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from detector.outputs import likelihood, refusals, signflip
from detector.outputs.attribution import against
from detector.outputs.equality import own_transcripts
from detector.outputs.evalues import log_mean
from detector.outputs.interface import (
    Output,
    OutputsError,
    ReferencePack,
    RefusalBaseline,
    ScoredOutput,
    Transcript,
)
from detector.outputs.likelihood import UNDECLARED, Likelihoods, likelihoods, nothing
from detector.outputs.lines import dump_line
from detector.outputs.refusals import Wealth, evidence, probed, wealth
from detector.outputs.transcripts import apart, greedy_answers

GREEDY = "greedy-transcript"
REFUSALS = "refusal-probes"
VERSION = 1
"""Of the bets; a stream that was begun by other code is not continued."""


class StreamError(OutputsError):
    """A stored stream is damaged, or counts something else than what is to be counted now."""

    tip = "Nothing was changed. Name another state file to begin a new stream, or restore the old inputs."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a stream is counted against."""

    release: str
    root_digest: str
    transcripts: tuple[Transcript, ...] = ()
    """Of the release alone."""
    refusals: tuple[RefusalBaseline, ...] = ()

    @staticmethod
    def of(pack: ReferencePack) -> Reference:
        """The part of a pack that streams use."""
        return Reference(
            release=pack.release,
            root_digest=pack.root_digest,
            transcripts=own_transcripts(pack),
            refusals=pack.refusals,
        )

    def digests(self, forks: Iterable[str]) -> Mapping[str, str]:
        """What the bets are made of, part by part."""
        stakes = (VERSION, likelihood.EPSILONS, [one.name for one in UNDECLARED], signflip.STEEPNESS)
        bets = (refusals.GONE, refusals.SHARES_LESS, refusals.SHARES_KEPT)
        return {
            "release": _digest(self.root_digest),
            "forks": _digest(sorted(forks)),
            "transcripts": _digest(
                [(one.engine, one.dtype, sorted(one.answers.items())) for one in self.transcripts]
            ),
            "refusal baselines": _digest(
                sorted((one.prompt_id, one.refused, one.n) for one in self.refusals)
            ),
            "bets": _digest([stakes, bets]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Everything that is kept of the outputs so far."""

    release: str
    made_of: Mapping[str, str]
    """`Reference.digests`."""
    seen: Likelihoods
    wealth: Wealth = field(default_factory=Wealth)
    greedy: tuple[tuple[float, ...], ...] = ()
    """By authentic transcript, then by steepness: log-wealth against numerics like that transcript's."""
    greedy_n: int = 0
    counted: tuple[str, ...] = ()
    """Ids of scored outputs, sorted."""
    prompts: tuple[str, ...] = ()
    """`test/prompt id` of greedy prompts and refusal probes whose one answer was counted, sorted."""
    passed: Mapping[str, float] = field(default_factory=dict)
    """`test/hypothesis` to the largest log e-value at the end of any run."""

    @property
    def n(self) -> int:
        """Outputs that count, each once for every test that takes it."""
        return self.seen.outputs + self.wealth.n + self.greedy_n

    @property
    def calibration_id(self) -> str:
        """One digest of everything that the bets are made of."""
        return _digest(dict(self.made_of))

    def peaks(self, test: str) -> Mapping[str, float]:
        """The largest log e-values of a test, by hypothesis."""
        return {name.partition("/")[2]: e for name, e in self.passed.items() if name.startswith(f"{test}/")}

    @property
    def greedy_log_e(self) -> float | None:
        """Log e-value of the greedy answers, least over authentic transcripts; None: none counted."""
        return min(map(log_mean, self.greedy)) if self.greedy_n else None


def begin(reference: Reference, forks: Iterable[str]) -> Stream:
    """A stream before its first output."""
    names = sorted(forks)
    return Stream(
        release=reference.release,
        made_of=reference.digests(names),
        seen=nothing(UNDECLARED, names),
        greedy=((0.0,) * len(signflip.STEEPNESS),) * len(reference.transcripts),
    )


def require_same(stream: Stream, reference: Reference, forks: Iterable[str]) -> None:
    """Refuse to go on with other things than the stream was begun with.

    Raises:
        StreamError: says which.
    """
    now = reference.digests(forks)
    if stream.made_of.get("release") != now["release"]:
        raise StreamError(f"the stream is about {stream.release}, not this version of {reference.release}")
    other = sorted(
        name for name in now.keys() | stream.made_of.keys() if now.get(name) != stream.made_of.get(name)
    )
    if other:
        raise StreamError(f"the stream was begun with other {' and '.join(other)}")


def count(
    stream: Stream, reference: Reference, scored: Sequence[ScoredOutput], others: Sequence[Output] = ()
) -> Stream:
    """The stream with these outputs; those that it has counted already change nothing.

    Raises:
        BadOutputsError: an output lacks the score of a fork of the stream.
    """
    outputs = [*(one.output for one in scored), *others]
    fresh = _fresh(stream, scored) if stream.seen.forks else {}
    probes = [
        one
        for one in probed(outputs, reference.refusals)
        if f"{REFUSALS}/{one.prompt_id}" not in stream.prompts
    ]
    answers = {
        prompt: text
        for prompt, text in greedy_answers(outputs).items()
        if f"{GREEDY}/{prompt}" not in stream.prompts
    }
    gained, judged = _greedy(answers, reference.transcripts)
    used = {f"{REFUSALS}/{one.prompt_id}" for one in probes} | {f"{GREEDY}/{prompt}" for prompt in judged}
    grown = replace(
        stream,
        seen=stream.seen + likelihoods(fresh.values(), UNDECLARED, stream.seen.forks),
        wealth=stream.wealth + wealth(probes),
        greedy=tuple(
            tuple(a + b for a, b in zip(sums, more, strict=True))
            for sums, more in zip(stream.greedy, gained, strict=True)
        ),
        greedy_n=stream.greedy_n + len(judged),
        counted=tuple(sorted({*stream.counted, *fresh})),
        prompts=tuple(sorted({*stream.prompts, *used})),
    )
    return replace(grown, passed=_largest(stream.passed, _now(grown)))


def output_ids(outputs: Iterable[Output]) -> Iterator[str]:
    """An id for each output: of everything that is known of it, and of how often it came before.

    The same file again has the same ids; an answer that was drawn twice has two.
    """
    times: Counter[bytes] = Counter()
    for output in outputs:
        line = dump_line(output)
        times[line] += 1
        yield hashlib.sha256(b"%d\n" % times[line] + line).hexdigest()[:32]


def _fresh(stream: Stream, scored: Sequence[ScoredOutput]) -> dict[str, ScoredOutput]:
    known = frozenset(stream.counted)
    ids = output_ids(one.output for one in scored)
    return {
        name: one
        for name, one in zip(ids, scored, strict=True)
        if name not in known and likelihood.is_drawn(one.output.sampling)
    }


def _greedy(
    answers: Mapping[str, str], transcripts: Sequence[Transcript]
) -> tuple[tuple[tuple[float, ...], ...], frozenset[str]]:
    """What each bet gains by new answers, and the prompts that all configurations can judge."""
    judged = frozenset(
        prompt
        for prompt in answers
        if len(transcripts) > 1 and all(prompt in one.answers for one in transcripts)
    )
    served = {prompt: answers[prompt] for prompt in judged}
    excess = signflip.excesses(served, [one.answers for one in transcripts], apart) if judged else []
    gained = [
        tuple(float(np.log1p(np.tanh(steepness * one)).sum()) for steepness in signflip.STEEPNESS)
        for one in excess
    ]
    return tuple(gained or [(0.0,) * len(signflip.STEEPNESS)] * len(transcripts)), judged


def _now(stream: Stream) -> Mapping[str, float]:
    """Log e-values at this moment, by `test/hypothesis`."""
    found: dict[str, float] = {}
    if stream.seen.outputs:
        found |= {f"likelihood-ratio/{name}": e for name, e in against(stream.seen).items()}
    if stream.greedy_log_e is not None:
        found[f"{GREEDY}/authentic"] = stream.greedy_log_e
    if stream.wealth.n:
        found |= {f"{REFUSALS}/{name}": e for name, e in evidence(stream.wealth).items()}
    return found


def _largest(before: Mapping[str, float], now: Mapping[str, float]) -> Mapping[str, float]:
    return {
        name: max(e for e in (before.get(name), now.get(name)) if e is not None)
        for name in sorted(before.keys() | now.keys())
    }


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def most_greedy(n: int) -> float:
    """The largest log e-value that n greedy answers could have given."""
    return signflip.sign_flip_log_e(np.ones(n))
