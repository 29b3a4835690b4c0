"""Which drawn outputs can be held against samples of the release: those drawn in a setting that these cover.

A platform says how its outputs were drawn. Where that is another system prompt, a temperature beyond those of
the samples, or another length, the release's own outputs differ from the samples, too, and a test against
them would call it modified. Such outputs are left aside. What is not declared is taken to be covered, with
three exceptions. A text has to declare its length. Scored answers that seem to have been cut shorter than the
samples are compared with the samples' beginnings. And where a temperature beyond the samples' is possible,
that stays an explanation which no test rejects (`UNDECLARED`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from detector.outputs.interface import Output, ReferencePack, Sampling, ScoredOutput, TokenScores
from detector.outputs.nuisance import temperature_of
from detector.outputs.temperature import estimate_temperature

UNDECLARED = "undeclared temperature"
"""A nuisance that no sample stands for."""
_CUT_SHARE, _CUT_LEAST = 0.25, 3
"""Of the answers, that are exactly as long as the longest, where a limit was set on them all."""
_NO_SYSTEM = sha256(b"").hexdigest()
_SLACK = 1e-9


def is_own_system(sampling: Sampling) -> bool:
    """Whether no system prompt is declared, as for scores, transcripts, baselines and the plain cell."""
    return sampling.system_sha256 in {None, _NO_SYSTEM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Settings that the samples of a release cover."""

    coldest: float
    hottest: float
    top_p: float
    """The least."""
    max_tokens: int | None
    """Of the samples' answers; None: not stated."""

    @staticmethod
    def of(cells: Iterable[str], max_tokens: int | None = None) -> Grid:
        """What cells of these names cover; temperatures between two of them are covered, too."""
        names = tuple(cells)
        temperatures = [1.0, *(known for name in names if (known := temperature_of(name)) is not None)]
        return Grid(
            coldest=min(temperatures),
            hottest=max(temperatures),
            top_p=min([1.0, *(_top_p(name) for name in names)]),
            max_tokens=max_tokens,
        )

    @staticmethod
    def of_pack(pack: ReferencePack) -> Grid:
        """Of the release's samples."""
        own = [one for one in pack.samples if one.model in {"authentic", pack.release}]
        lengths = {each.output.sampling.max_tokens for one in own for each in one.scored} - {None}
        return Grid.of(
            (one.cell for one in own), min(known for known in lengths if known) if lengths else None
        )

    def covers(self, sampling: Sampling) -> bool:
        """Whether outputs that were drawn so can be compared, if need be by their first tokens."""
        temperature, top_p, length = sampling.temperature, sampling.top_p, sampling.max_tokens
        return (
            is_own_system(sampling)
            and (temperature is None or self.coldest - _SLACK <= temperature <= self.hottest + _SLACK)
            and (top_p is None or top_p >= self.top_p - _SLACK)
            and (length is None or self.max_tokens is None or length >= self.max_tokens)
        )

    def texts(self, outputs: Iterable[Output]) -> tuple[Output, ...]:
        """Those whose texts can be compared: of the samples' length, since a text cannot be cut to tokens.

        Where the samples' length is stated, the output's must be: every longer text differs.
        """
        return tuple(
            one
            for one in outputs
            if self.covers(one.sampling) and self.max_tokens in {None, one.sampling.max_tokens}
        )

    def scores(self, scored: Iterable[ScoredOutput]) -> tuple[ScoredOutput, ...]:
        """Those whose scores can be compared, cut to the samples' length."""
        return tuple(cut(one, self.max_tokens) for one in scored if self.covers(one.output.sampling))


def may_be_other_temperature(
    grid: Grid, outputs: Sequence[ScoredOutput], anchors: Mapping[float, Sequence[TokenScores]]
) -> bool:
    """Whether drawn outputs that declare no temperature may be of one that the samples do not cover.

    Without scores, or with few, nobody can tell. Else the estimate has to lie beyond; a modified model can
    look so, too, and is then found by who declares the temperature.
    """
    silent = [one.authentic for one in outputs if one.output.sampling.temperature is None]
    found = estimate_temperature(silent, anchors)
    return bool(silent) and (found is None or not grid.coldest <= found.estimate <= grid.hottest)


def limit_of(outputs: Sequence[ScoredOutput]) -> int | None:
    """Tokens that answers of undeclared length seem to have been cut to; None: no sign of it."""
    lengths = [len(one.authentic.logp) for one in outputs if one.output.sampling.max_tokens is None]
    longest = max(lengths, default=0)
    alike = lengths.count(longest)
    return longest if longest and alike >= max(_CUT_LEAST, _CUT_SHARE * len(lengths)) else None


def cut_pack(pack: ReferencePack, length: int | None) -> ReferencePack:
    """The pack with the beginnings of its samples alone."""
    if length is None:
        return pack
    samples = (replace(one, scored=tuple(cut(each, length) for each in one.scored)) for one in pack.samples)
    return replace(pack, samples=tuple(samples))


def cut(one: ScoredOutput, length: int | None) -> ScoredOutput:
    """The first tokens of an answer, as far as scores go."""
    scores = one.authentic
    if length is None or len(scores.logp) <= length:
        return one
    columns = (scores.logp, scores.entropy, scores.variance, scores.rank, scores.above)
    forks = {fork: logp[:length] for fork, logp in one.forks.items()}
    return replace(one, authentic=TokenScores(*(column[:length] for column in columns)), forks=forks)


def _top_p(cell: str) -> float:
    try:
        value = float(cell.removeprefix("top-p-")) if cell.startswith("top-p-") else 1.0
    except ValueError:
        return 1.0
    return value if 0 < value <= 1 else 1.0
