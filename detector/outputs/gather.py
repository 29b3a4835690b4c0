"""Every test that the outputs allow, and what they find together.

What can be tested follows from what is at hand: answers at temperature 0 and the release's transcripts; drawn
answers to the pack's prompts, with scores under the authentic model or without; scores under forks; the first
token's log-probabilities; graded answers to refusal probes. What answers say decides over no test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from detector.outputs import attribution, caveats, heads, label, ratios, scores, stream, two_sample
from detector.outputs.classifier import Assessment, Classifier, assess
from detector.outputs.comparable import UNDECLARED, Grid, is_own_system
from detector.outputs.equality import equality, everywhere, is_release, numeric_cells, own_transcripts
from detector.outputs.evalues import bar, needed
from detector.outputs.interface import (
    Attributed,
    BadOutputsError,
    Decision,
    Output,
    Question,
    ReferencePack,
    ScoredOutput,
    TestResult,
)
from detector.outputs.label import PLAIN_CELL, Equality, Evidence, Named
from detector.outputs.likelihood import is_drawn, likelihoods, settings_for
from detector.outputs.pack import NOT_SCORED, samples_digest
from detector.outputs.refusals import (
    Probed,
    Wealth,
    exact_p,
    is_removed,
    probed,
    refusal_test,
    wealth,
)
from detector.outputs.temperature import estimate_temperature, temperature_anchors
from detector.outputs.transcripts import greedy_answers, nearest_transcript

SAMPLED = (ratios.TEST, heads.TEST, scores.TEST, two_sample.TEST)
"""Tests of equality against samples of the pack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What is to be classified."""

    scored: tuple[ScoredOutput, ...] = ()
    others: tuple[Output, ...] = ()
    """Without scores."""

    @property
    def all(self) -> tuple[Output, ...]:
        """Every output, scored or not."""
        return (*(one.output for one in self.scored), *self.others)

    @property
    def own(self) -> Outputs:
        """Without those that declare a system prompt: the release was not asked under it."""
        return Outputs(
            scored=tuple(one for one in self.scored if is_own_system(one.output.sampling)),
            others=tuple(one for one in self.others if is_own_system(one.sampling)),
        )

    @property
    def drawn(self) -> tuple[ScoredOutput, ...]:
        """Scored outputs that were not greedy."""
        return tuple(one for one in self.scored if is_drawn(one.output.sampling))

    @property
    def forks(self) -> tuple[str, ...]:
        """Forks that the drawn outputs are scored under, by id.

        Raises:
            BadOutputsError: not all of them are scored under the same.
        """
        known = {frozenset(one.forks) for one in self.drawn}
        if len(known) > 1:
            raise BadOutputsError("not all outputs are scored under the same forks")
        return tuple(sorted(next(iter(known), frozenset())))


def gather(
    outputs: Outputs,
    pack: ReferencePack | None,
    *,
    alpha: float,
    classifier: Classifier | None = None,
) -> Evidence:
    """Everything that outputs say that are looked at once.

    The classifier answers where nothing better is at hand: equality of drawn answers without samples of the
    pack, attribution without scores under forks.

    Raises:
        BadOutputsError: outputs are scored under different forks.
    """
    said, outputs = outputs.all, outputs.own
    drawn, forks = outputs.drawn, outputs.forks
    taught = classifier if pack is not None and _learned_from(classifier, pack) else None
    equal = (
        [] if pack is None else equality(outputs.scored, outputs.all, pack, alpha=alpha, classifier=taught)
    )
    greedy, own = greedy_answers(outputs.all), own_transcripts(pack)
    theirs = [] if pack is None else [one for one in pack.transcripts if not is_release(one.model, pack)]
    by_ratio, nearest = bool(drawn and forks), bool(greedy and own and theirs)
    routes = (by_ratio or classifier is not None) + nearest
    lacks_samples = classifier is not None and not any(one.result.test in SAMPLED for one in equal)
    level = label.share(alpha, attributions=routes, equality=bool(equal) or lacks_samples)
    found: list[tuple[Named, Sequence[Attributed]]] = []
    if classifier is not None:
        assessed = assess(classifier, _assessable(classifier, outputs, pack), alpha=level)
        equal += _assessed(assessed) if lacks_samples else []
        if not by_ratio:
            found.append((Named(assessed.attribution, assessed.named), assessed.candidates))
    if by_ratio:
        ruled = attribution.attribute(likelihoods(drawn, settings_for(drawn), forks), alpha=level)
        found.append((_named(ruled), ruled.candidates))
    if nearest:
        result, near = nearest_transcript(greedy, own, theirs, alpha=level)
        different = result.decision is Decision.DIFFERENT
        found.append((Named(result, near[0].fork if different else None), near))
    by_fork = {one.fork: one for _, some in reversed(found) for one in reversed(some)}
    candidates = [by_fork[fork] for fork in dict.fromkeys(one.fork for _, some in found for one in some)]
    graded = probed(outputs.all, () if pack is None else pack.refusals)
    safety = _safety(wealth(graded), alpha)
    evidence = Evidence(
        equality=equal,
        attribution=[one for one, _ in found],
        candidates=candidates,
        safety=(*safety, *_exact(graded, alpha)),
        safety_removed=bool(safety) and is_removed(wealth(graded), safety[0]),
        cells=_cells(equal, pack),
        conversions=conversions_of(pack) | _converted(classifier),
        n_used=_used(outputs, pack, classifier),
        temperature=_temperature(outputs, pack),
    )
    lacking = tuple(one for one in witnesses_of(pack) if one not in forks) if drawn else ()
    return replace(evidence, caveats=caveats.of(evidence, said, alpha=alpha, lacking=lacking))


def gather_stream(
    counted: stream.Stream, outputs: Outputs, pack: ReferencePack | None, *, alpha: float
) -> Evidence:
    """Everything that a stream says, by the tests that hold at any number of outputs."""
    greedy = _greedy_stream(counted, alpha)
    lr = bool(counted.seen.outputs)
    level = label.share(alpha, attributions=lr, equality=greedy is not None)
    named: list[Named] = []
    candidates: list[Attributed] = []
    if lr:
        passed = counted.peaks(attribution.TEST)
        found = attribution.attribute(counted.seen, alpha=level, passed=passed)
        named.append(_named(found))
        candidates += found.candidates
    safety = _safety(counted.wealth, alpha, counted.peaks(stream.REFUSALS))
    numeric = numeric_cells(pack)
    evidence = Evidence(
        equality=[Equality(greedy, everywhere(greedy, numeric))] if greedy is not None else [],
        attribution=named,
        candidates=candidates,
        safety=safety,
        safety_removed=bool(safety) and is_removed(counted.wealth, safety[0]),
        cells=cells_of(pack),
        conversions=conversions_of(pack),
        n_used=counted.n,
        temperature=_temperature(outputs, pack),
    )
    return replace(evidence, caveats=caveats.of(evidence, outputs.all, alpha=alpha))


def cells_of(pack: ReferencePack | None) -> frozenset[str]:
    """Nuisance cells in which the pack has answers of the release; the plain one is always among them."""
    if pack is None:
        return frozenset()
    return frozenset({PLAIN_CELL, *(one.cell for one in pack.samples if is_release(one.model, pack))})


def _cells(equal: Sequence[Equality], pack: ReferencePack | None) -> frozenset[str]:
    """Nuisances that would have to be rejected: those of the pack, and a temperature that nobody declared."""
    tested = frozenset(cell for one in equal for cell in one.cells)
    own = cells_of(pack)
    return own | (tested & {UNDECLARED}) if own else tested


def witnesses_of(pack: ReferencePack | None) -> tuple[str, ...]:
    """Forks under which all of the release's answers in a pack are scored."""
    if pack is None:
        return ()
    own = (one for one in pack.samples if is_release(one.model, pack))
    return ratios.common_forks(each for one in own for each in one.scored)


def conversions_of(pack: ReferencePack | None) -> frozenset[str]:
    """Known forks that are the release in another format."""
    if pack is None:
        return frozenset()
    return frozenset(one.model for one in pack.samples if one.benign and one.family in label.CONVERSIONS)


def _learned_from(classifier: Classifier | None, pack: ReferencePack) -> bool:
    """Whether a classifier was trained on this pack, so that what it did not learn from is known."""
    return classifier is not None and classifier.provenance.pack == samples_digest(pack)


def _converted(classifier: Classifier | None) -> frozenset[str]:
    known = () if classifier is None else classifier.known
    return frozenset(one.model for one in known if one.benign and one.family in label.CONVERSIONS)


def _assessable(
    classifier: Classifier, outputs: Outputs, pack: ReferencePack | None
) -> tuple[ScoredOutput, ...]:
    """Outputs of the settings that the classifier was calibrated in."""
    cells = {cell for found in classifier.calibrations.values() for cell in found.cells}
    length = None if pack is None else Grid.of_pack(pack).max_tokens
    grid = Grid.of(cells, length)
    kept = {id(one) for one in grid.texts(outputs.all)}
    return tuple(one for one in _with_scores(outputs) if id(one.output) in kept)


def _with_scores(outputs: Outputs) -> tuple[ScoredOutput, ...]:
    return (
        *outputs.scored,
        *(ScoredOutput(output=one, authentic=NOT_SCORED, forks={}) for one in outputs.others),
    )


def _assessed(found: Assessment) -> list[Equality]:
    """The classifier's first test, by scores where there are some; its plain p-value is that of one cell."""
    result, cells = found.equality[0], found.by_cell[0]
    plain = cells.get(PLAIN_CELL)
    return [Equality(result if plain is None else replace(result, p_value=plain), cells)]


def _named(found: attribution.Attribution) -> Named:
    return Named(found.result, found.named, exhausted=not found.left, relative=found.relative)


def _safety(found: Wealth, alpha: float, passed: Mapping[str, float] | None = None) -> tuple[TestResult, ...]:
    return (refusal_test(found, alpha=alpha, passed=passed),) if found.n else ()


def _exact(graded: Sequence[Probed], alpha: float) -> tuple[TestResult, ...]:
    """Beside the bets, which decide: the tail probability, for who fixed the number of probes beforehand."""
    if not graded:
        return ()
    p = exact_p(graded, alpha=alpha)
    return (
        TestResult(
            question=Question.SAFETY,
            test="refusal-tail",
            decision=Decision.DIFFERENT if p <= alpha else Decision.INSUFFICIENT,
            n=len(graded),
            p_value=p,
            reason="valid if the number of probes was fixed beforehand; the bets decide",
        ),
    )


def _greedy_stream(counted: stream.Stream, alpha: float) -> TestResult | None:
    now = counted.greedy_log_e
    if now is None:
        return None
    log_e = counted.peaks(stream.GREEDY).get("authentic", now)
    different = log_e >= bar(alpha)
    most = stream.most_greedy(counted.greedy_n) >= bar(alpha)
    none = Decision.NO_DIFFERENCE if most else Decision.INSUFFICIENT
    return TestResult(
        question=Question.EQUALITY,
        test=stream.GREEDY,
        decision=Decision.DIFFERENT if different else none,
        n=counted.greedy_n,
        log_e=log_e,
        needed=needed(log_e, counted.greedy_n, alpha),
        reason=f"{'the answers differ' if different else 'no difference found'} on "
        f"{counted.greedy_n} prompts asked at temperature 0",
    )


def _used(outputs: Outputs, pack: ReferencePack | None, classifier: Classifier | None) -> int:
    """Outputs that some test could take."""
    prompts: set[str] = set() if classifier is None else set(classifier.prompts)
    if pack is not None:
        prompts |= {one.prompt_id for one in pack.refusals}
        prompts |= {prompt for one in pack.transcripts for prompt in one.answers}
        prompts |= {each.output.prompt_id for one in pack.samples for each in one.scored}
        prompts |= {prompt for cell in pack.first_logprobs.values() for prompt in cell}
    scored = {id(one.output) for one in outputs.drawn if one.forks}
    return sum(one.prompt_id in prompts or id(one) in scored for one in outputs.all)


def _temperature(outputs: Outputs, pack: ReferencePack | None) -> float | None:
    anchors = None if pack is None else temperature_anchors(pack.samples)
    found = estimate_temperature([one.authentic for one in outputs.drawn], anchors)
    return None if found is None else found.estimate
