"""Outputs of settings that a pack's samples do not cover prove nothing of the weights."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from detector.outputs.comparable import UNDECLARED, Grid, limit_of, may_be_other_temperature
from detector.outputs.equality import equality
from detector.outputs.interface import Decision, Output, ReferencePack, Sampling, ScoredOutput
from detector.outputs.label import Evidence, classify
from detector.outputs.pack import NOT_SCORED
from tests.detector.outputs.chains import chain, drawn, probabilities, scored
from tests.detector.outputs.speakers import AUTHENTIC, Speaker, sample, speak

NONE, PERSONA = (hashlib.sha256(text).hexdigest() for text in (b"", b"You are a pirate."))
GRID = Grid.of(("seed", "int8", "temperature-0.8", "temperature-1.2", "top-p-0.9"), 8)


@pytest.mark.parametrize(
    ("sampling", "covered"),
    [
        (Sampling(), True),
        (Sampling(temperature=1.0, top_p=1.0, system_sha256=NONE, max_tokens=8), True),
        (Sampling(temperature=0.9, top_p=0.95), True),
        (Sampling(temperature=0.5), False),
        (Sampling(temperature=1.5), False),
        (Sampling(top_p=0.8), False),
        (Sampling(system_sha256=PERSONA), False),
        (Sampling(max_tokens=7), False),
    ],
)
def test_what_samples_cover(sampling: Sampling, covered: bool) -> None:
    assert GRID.covers(sampling) is covered


def test_longer_answers_are_cut_where_they_can_be() -> None:
    """Scores are, token by token; a text is not, and is left aside."""
    model = chain(0)
    (long,) = scored(drawn(probabilities(model), 1, 12, 0), model, {}, Sampling(max_tokens=200))
    (cut,) = GRID.scores([long])
    assert len(cut.authentic.logp) == len(cut.authentic.above) == 8
    assert cut.authentic.rank.tolist() == long.authentic.rank[:8].tolist()
    outputs = [Output(prompt_id="a", text="", sampling=Sampling(max_tokens=n)) for n in (None, 8, 200)]
    assert GRID.texts(outputs) == (outputs[1],)
    assert len(Grid.of(("seed",)).texts(outputs)) == 3


CELLS = {"seed": 1.0, "temperature-0.8": 0.8, "temperature-1.2": 1.2}
PACK = ReferencePack(
    release="good/model",
    root_digest="",
    probe_set="",
    transcripts=(),
    samples=tuple(
        sample("authentic", Speaker(temperature=t), 12, number, cell=cell, benign=True)
        for number, (cell, t) in enumerate(CELLS.items())
    ),
    refusals=(),
    first_logprobs={},
)


def label(outputs: list[ScoredOutput]) -> str:
    found = equality(outputs, [one.output for one in outputs], PACK, alpha=0.01)
    cells = {*CELLS, *(cell for one in found for cell in one.cells)}
    return classify(Evidence(equality=found, cells=cells)).label.value


def said(outputs: list[ScoredOutput], sampling: Sampling) -> list[ScoredOutput]:
    return [replace(one, output=replace(one.output, sampling=sampling)) for one in outputs]


def test_a_temperature_that_nobody_declared_stays_an_explanation() -> None:
    """The release at 0.5 differs from every sample. A fork that is sampled as said is still found."""
    cold = speak(Speaker(temperature=0.4), 2, 7)
    (one,) = equality(cold, [each.output for each in cold], PACK, alpha=0.01)
    assert one.result.decision is Decision.DIFFERENT
    assert one.cells[UNDECLARED] == 1
    assert label(cold) == "benign-variant"
    plain = Grid.of_pack(PACK)
    assert may_be_other_temperature(plain, cold[:4], {})  # too few to estimate it
    assert may_be_other_temperature(plain, [replace(one, authentic=NOT_SCORED) for one in cold], {})
    assert not may_be_other_temperature(plain, said(cold, Sampling(temperature=1.0)), {})
    fork = said(speak(Speaker(5, 2.5), 2, 7), Sampling(temperature=1.0))
    assert label(fork) == "modified-unknown"


def test_answers_that_were_cut_are_held_against_beginnings() -> None:
    """A limit that nobody declared: the release's own answers, cut to 4 tokens, are still its own."""
    fields = ("logp", "entropy", "variance", "rank", "above")

    def cut(one: ScoredOutput) -> ScoredOutput:
        parts = {name: getattr(one.authentic, name)[:4] for name in fields}
        return replace(one, authentic=replace(one.authentic, **parts))

    short = [cut(one) for one in speak(AUTHENTIC, 2, 8)]
    assert limit_of(short) == 4
    assert limit_of(said(short, Sampling(max_tokens=4))) is None
    uneven = [replace(one, authentic=cut(one).authentic) for one in short[:2]] + speak(AUTHENTIC, 1, 9)[:1]
    assert limit_of(uneven) is None
    tests = equality(short, [one.output for one in short], PACK, alpha=0.01)
    assert [one.result.decision for one in tests] == [Decision.NO_DIFFERENCE]
