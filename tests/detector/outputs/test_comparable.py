"""Outputs of settings that a pack's samples do not cover prove nothing of the weights."""

from __future__ import annotations

import hashlib

import pytest

from detector.outputs.comparable import Grid
from detector.outputs.interface import Output, Sampling
from tests.detector.outputs.chains import chain, drawn, probabilities, scored

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
