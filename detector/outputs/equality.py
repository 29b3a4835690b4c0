"""Tests of equality with a reference pack, as far as the outputs allow them, each with its nuisance cells.

One test for each kind of evidence, so that few share the level: greedy answers, drawn answers (by scores
where there are some, else by text), first-token log-probabilities.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from detector.outputs.classifier import Classifier
from detector.outputs.comparable import UNDECLARED, Grid, cut, cut_pack, limit_of, may_be_other_temperature
from detector.outputs.first_logprobs import NUMERIC_CELLS, first_logprobs, logprob_test
from detector.outputs.heads import head_by_prompt, head_cells, head_test
from detector.outputs.interface import Output, ReferencePack, ScoredOutput, TestResult, Transcript
from detector.outputs.label import PLAIN_CELL, Equality
from detector.outputs.likelihood import is_drawn
from detector.outputs.nuisance import setting_of
from detector.outputs.pack import NOT_SCORED
from detector.outputs.ratios import common_forks, ratio_test, witnessed_by_prompt
from detector.outputs.scores import cell_tests, feature_cells, features_by_prompt, score_test
from detector.outputs.table import held_back
from detector.outputs.temperature import temperature_anchors
from detector.outputs.transcripts import greedy_answers, greedy_transcript
from detector.outputs.two_sample import text_test

PERMUTATIONS = 1999
"""The smallest p is 0.0005: below α = 0.01 shared among four routes and four tests."""


def equality(
    scored: Sequence[ScoredOutput],
    outputs: Sequence[Output],
    pack: ReferencePack,
    *,
    alpha: float,
    classifier: Classifier | None = None,
) -> list[Equality]:
    """Run every test that the outputs allow; decisions of the single tests are at `alpha`.

    Args:
        scored: outputs that have scores.
        outputs: all outputs, the scored ones included.
        pack: what they are compared with.
        alpha: level.
        classifier: trained on this pack: its head on scores is then the statistic of the test on scores.
    """
    found = []
    greedy, own = greedy_answers(outputs), own_transcripts(pack)
    if greedy and own:
        result = greedy_transcript(greedy, own, alpha=alpha)
        found.append(Equality(result, everywhere(result, numeric_cells(pack))))
    grid = Grid.of_pack(pack)
    drawn = _drawn_test(grid.scores(scored), grid.texts(outputs), pack, alpha, classifier)
    if drawn is not None:
        found.append(drawn)
    listed = first_logprobs(outputs)
    if listed and pack.first_logprobs:
        result = logprob_test(listed, pack.first_logprobs, alpha=alpha)
        found.append(Equality(result, everywhere(result, set(NUMERIC_CELLS) & set(pack.first_logprobs))))
    return found


def _drawn_test(
    scored: Sequence[ScoredOutput],
    texts: Sequence[Output],
    pack: ReferencePack,
    alpha: float,
    classifier: Classifier | None,
) -> Equality | None:
    """By scores where there are some, with a classifier's head where there is one; else by texts."""
    rows = [one for one in scored if is_drawn(one.output.sampling)]
    length = limit_of(rows)
    rows, short = [cut(one, length) for one in rows], cut_pack(pack, length)
    found = None if classifier is None else _head_test(classifier, rows, short, alpha)
    found = found or _scored_test(rows, short, alpha)
    if found is None:
        rows = [ScoredOutput(one, NOT_SCORED, {}) for one in texts if is_drawn(one.sampling)]
        found = _text_test([one.output for one in rows], pack, alpha)
    if found is None:
        return None
    anchors = temperature_anchors(short.samples)
    if not may_be_other_temperature(Grid.of_pack(pack), rows, anchors):
        return found
    return replace(found, cells={**found.cells, UNDECLARED: 1.0})


def own_transcripts(pack: ReferencePack | None) -> tuple[Transcript, ...]:
    """The release's own."""
    if pack is None:
        return ()
    return tuple(one for one in pack.transcripts if is_release(one.model, pack))


def is_release(model: str, pack: ReferencePack) -> bool:
    """Whether something in a pack is of the release and not of a fork."""
    return model in {"authentic", pack.release}


def everywhere(result: TestResult, cells: Collection[str]) -> dict[str, float]:
    """The same p-value for the plain cell and every other that a test's null hypothesis holds in."""
    p = Equality(result).plain
    return {} if p is None else dict.fromkeys({PLAIN_CELL, *cells}, p)


def numeric_cells(pack: ReferencePack | None) -> frozenset[str]:
    """Cells that differ in numbers alone and of which the pack has a transcript."""
    return frozenset(NUMERIC_CELLS) & {one.dtype for one in own_transcripts(pack)}


def _scored_test(scored: Sequence[ScoredOutput], pack: ReferencePack, alpha: float) -> Equality | None:
    served = features_by_prompt(scored)
    cells = feature_cells(pack.samples) if served else {}
    plain = cells.get(PLAIN_CELL)
    if not plain or not served.keys() & plain.keys():
        return None
    result = score_test(plain, served, alpha=alpha, permutations=PERMUTATIONS)
    each = cell_tests(cells, served, alpha=alpha, permutations=PERMUTATIONS)
    return Equality(result, _p_values(each))


def _head_test(
    classifier: Classifier, scored: Sequence[ScoredOutput], pack: ReferencePack, alpha: float
) -> Equality | None:
    held = held_back(pack, classifier.provenance.seed) if classifier.score_head is not None else {}
    forks = common_forks(chain(scored, *held.values())) if scored else ()
    if forks:
        return _known_forks_test(classifier, scored, held, forks, alpha)
    cells = head_cells(classifier, held)
    settings = {PLAIN_CELL, *map(setting_of, cells)}
    served = {setting: head_by_prompt(classifier, scored, setting) for setting in settings}
    plain = cells.get(PLAIN_CELL)
    if not plain or not served[PLAIN_CELL].keys() & plain.keys():
        return None
    each = {
        cell: head_test(theirs, served[setting_of(cell)], alpha=alpha, permutations=PERMUTATIONS)
        for cell, theirs in cells.items()
    }
    return Equality(each[PLAIN_CELL], _p_values(each))


def _known_forks_test(
    classifier: Classifier,
    scored: Sequence[ScoredOutput],
    held: Mapping[str, Sequence[ScoredOutput]],
    forks: Sequence[str],
    alpha: float,
) -> Equality | None:
    """Where served and held-back answers are scored under the same known forks."""
    answered = {one.output.prompt_id for one in held.get(PLAIN_CELL, ())}
    if not answered & {one.output.prompt_id for one in scored}:
        return None
    each = {
        cell: ratio_test(
            witnessed_by_prompt(classifier, outputs, forks, cell),
            witnessed_by_prompt(classifier, scored, forks, cell),
            alpha=alpha,
            permutations=PERMUTATIONS,
        )
        for cell, outputs in held.items()
    }
    return Equality(each[PLAIN_CELL], _p_values(each))


def _text_test(outputs: Sequence[Output], pack: ReferencePack, alpha: float) -> Equality | None:
    served = _texts(outputs)
    cells = {
        one.cell: _texts(each.output for each in one.scored)
        for one in pack.samples
        if is_release(one.model, pack)
    }
    plain = cells.get(PLAIN_CELL)
    if not served or not plain or not served.keys() & plain.keys():
        return None
    each = {
        cell: text_test(theirs, served, alpha=alpha, permutations=PERMUTATIONS)
        for cell, theirs in cells.items()
    }
    return Equality(each[PLAIN_CELL], _p_values(each))


def _texts(outputs: Iterable[Output]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for one in outputs:
        if one.text is not None:
            found.setdefault(one.prompt_id, []).append(one.text)
    return {prompt: tuple(texts) for prompt, texts in found.items()}


def _p_values(by_cell: Mapping[str, TestResult]) -> dict[str, float]:
    return {cell: one.p_value for cell, one in by_cell.items() if one.p_value is not None}
