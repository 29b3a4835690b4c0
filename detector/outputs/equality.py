"""Tests of equality with a reference pack, as far as the outputs allow them, each with its nuisance cells.

One test for each kind of evidence, so that few share the level: greedy answers, drawn answers (by scores
where there are some, else by text), first-token log-probabilities.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from detector.outputs.classifier import Classifier
from detector.outputs.comparable import Grid
from detector.outputs.first_logprobs import NUMERIC_CELLS, first_logprobs, logprob_test
from detector.outputs.heads import head_by_prompt, head_cells, head_test
from detector.outputs.interface import Output, ReferencePack, ScoredOutput, TestResult, Transcript
from detector.outputs.label import PLAIN_CELL, Equality
from detector.outputs.likelihood import is_drawn
from detector.outputs.scores import cell_tests, feature_cells, features_by_prompt, score_test
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
    rows = grid.scores(scored)
    drawn = None if classifier is None else _head_test(classifier, rows, pack, alpha)
    drawn = drawn or _scored_test(rows, pack, alpha) or _text_test(grid.texts(outputs), pack, alpha)
    if drawn is not None:
        found.append(drawn)
    listed = first_logprobs(outputs)
    if listed and pack.first_logprobs:
        result = logprob_test(listed, pack.first_logprobs, alpha=alpha)
        found.append(Equality(result, everywhere(result, set(NUMERIC_CELLS) & set(pack.first_logprobs))))
    return found


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
    cells = feature_cells(pack.samples)
    served = features_by_prompt(one for one in scored if is_drawn(one.output.sampling))
    plain = cells.get(PLAIN_CELL)
    if not served or not plain or not served.keys() & plain.keys():
        return None
    result = score_test(plain, served, alpha=alpha, permutations=PERMUTATIONS)
    each = cell_tests(cells, served, alpha=alpha, permutations=PERMUTATIONS)
    return Equality(result, _p_values(each))


def _head_test(
    classifier: Classifier, scored: Sequence[ScoredOutput], pack: ReferencePack, alpha: float
) -> Equality | None:
    cells = head_cells(classifier, pack)
    served = head_by_prompt(classifier, [one for one in scored if is_drawn(one.output.sampling)])
    plain = cells.get(PLAIN_CELL)
    if not served or not plain or not served.keys() & plain.keys():
        return None
    each = {
        cell: head_test(theirs, served, alpha=alpha, permutations=PERMUTATIONS)
        for cell, theirs in cells.items()
    }
    return Equality(each[PLAIN_CELL], _p_values(each))


def _text_test(outputs: Sequence[Output], pack: ReferencePack, alpha: float) -> Equality | None:
    served = _texts(one for one in outputs if is_drawn(one.sampling))
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
