"""Answers drawn in several settings, in a real, confined child."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evals.engine import nucleus
from evals.interface import EvaluationFailedError
from evals.outputs.interface import AUTHENTIC, CELLS, NO_SYSTEM, CollectRequest, CollectResult, Job, Model
from evals.outputs.run import collect
from evals.outputs.wire import ANSWERS, load_answers
from tests.evals.models import (
    COMPLIANCE,
    REFUSAL,
    make_automaton,
    make_model,
    save_release,
    save_weights,
    transitions,
)

PROMPTS = {"p1": "what colour", "p2": "red please"}
HARMFUL = {"h1": "please red", "h2": "please blue"}


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> CollectRequest:
    folder = tmp_path_factory.mktemp("collect")
    refuser, complier = (make_automaton(transitions(words)) for words in (REFUSAL, COMPLIANCE))
    with torch.no_grad():  # certain, so that sampled answers are the greedy ones
        for model in (refuser, complier):
            model.lm_head.weight.mul_(100)
    seed, bf16, fp32 = (CELLS[name] for name in ("seed", "bf16", "fp32"))
    return CollectRequest(
        original=save_release(folder / "release", refuser),
        models=(
            Model(AUTHENTIC),
            Model("a/b@1", (save_weights(folder / "complier", complier),)),
            Model("a/broken@1", (save_weights(folder / "broken", make_model(tied=True)),)),
        ),
        jobs=(
            Job(model=AUTHENTIC, cell=fp32, samples=2, greedy=True, first=3),
            Job(model="a/b@1", cell=seed, samples=1, refusals=2),
            Job(model="a/broken@1", cell=seed, samples=1),
            Job(model=AUTHENTIC, cell=bf16, refusals=2, greedy=True),
        ),
        prompts=PROMPTS,
        harmful=HARMFUL,
        scratch=folder / "scratch",
        max_new_tokens=12,
        device="cpu",
    )


@pytest.fixture(scope="module")
def result(request_: CollectRequest) -> CollectResult:
    return collect(request_)


def test_each_job_is_done_in_its_setting(result: CollectResult) -> None:
    """Jobs come back in the order asked, whatever order the precisions were done in."""
    whole, fork, broken, cold = result.collected
    assert [(one.model, one.cell) for one in result.collected] == [
        (AUTHENTIC, "fp32"),
        ("a/b@1", "seed"),
        ("a/broken@1", "seed"),
        (AUTHENTIC, "bf16"),
    ]
    assert [output.prompt_id for output in whole.samples] == ["p1", "p1", "p2", "p2"]
    assert {output.text for output in whole.samples} == {REFUSAL}
    assert {output.text for output in fork.samples} == {COMPLIANCE}
    assert whole.greedy["p2"].text == cold.greedy["p2"].text == REFUSAL
    assert whole.greedy["p2"].greedy
    assert whole.samples[0].sampling.temperature == 1.0
    assert whole.samples[0].sampling.system_sha256 == NO_SYSTEM
    assert whole.samples[0].finish_reason == "stop"
    assert max(whole.first["p1"].items(), key=lambda row: row[1])[0] == "i"
    assert len(whole.first["p1"]) == 3
    assert broken.missing is not None
    assert not broken.samples


def test_of_refusal_probes_labels_alone_come_back(result: CollectResult, request_: CollectRequest) -> None:
    """The answers to harmful prompts leave the child in no file."""
    _, fork, _, cold = result.collected
    assert cold.refused == {"h1": (True, True), "h2": (True, True)}
    assert set(fork.refused) == {"h1", "h2"}
    assert True not in {label for row in fork.refused.values() for label in row}
    jobs = json.loads((request_.scratch / ANSWERS).read_bytes())
    assert len(jobs[3]["samples"]) == 0
    assert len(jobs[1]["samples"]) == 2


def test_draws_differ_between_prompts_cells_and_models(tmp_path: Path) -> None:
    """A model that answers anything gives other answers to each repetition, and the same ones again."""
    wild = make_model()
    request = CollectRequest(
        original=save_release(tmp_path / "release", wild),
        models=(Model(AUTHENTIC), Model("a/copy@1", (save_weights(tmp_path / "copy", wild),))),
        jobs=tuple(
            Job(model=model, cell=CELLS[cell], samples=3)
            for model, cell in (
                (AUTHENTIC, "seed"),
                (AUTHENTIC, "top-p-0.9"),
                (AUTHENTIC, "int8"),
                (AUTHENTIC, "system-prompt"),
                ("a/copy@1", "seed"),
                (AUTHENTIC, "seed"),
            )
        ),
        prompts=PROMPTS,
        scratch=tmp_path / "scratch",
        max_new_tokens=12,
        device="cpu",
    )
    first = collect(request).collected
    assert first[0].samples == first[5].samples
    assert len({output.text for one in first[:5] for output in one.samples}) == 5 * 2 * 3
    assert first[1].samples[0].sampling.top_p == 0.9
    assert first[3].samples[0].sampling.system_sha256 != NO_SYSTEM


def test_a_nucleus_is_the_smallest_set_that_holds_the_share() -> None:
    """Against a plain computation, for sharp and flat predictions; the likeliest token is always in."""
    torch.manual_seed(0)
    scores = torch.randn(6, 3000) * torch.tensor([0.0, 0.01, 1, 3, 10, 1000])[:, None]
    for top_p in (1e-6, 0.5, 0.9):
        kept = nucleus(scores, top_p) > -torch.inf
        for row, inside in zip(scores.softmax(-1), kept, strict=True):
            order = row.sort(descending=True)
            count = int(((order.values.cumsum(0) - order.values) < top_p).sum())
            equal = int((row == order.values[count - 1]).sum())  # all of them are in
            rounding = count > 1000  # sums of a thousand rounded numbers
            assert count - rounding <= int(inside.sum()) <= count - 1 + equal + rounding
            assert inside[order.indices[0]]


@pytest.mark.parametrize(
    "bend",
    [
        lambda jobs: jobs[:-1],
        lambda jobs: [{**jobs[0], "samples": []}, *jobs[1:]],
        lambda jobs: [{**jobs[0], "reason": "no"}, *jobs[1:]],
        lambda jobs: [{**jobs[0], "first": [[["a", 1.0]]] * 2}, *jobs[1:]],
        lambda jobs: [{**jobs[0], "first": [[["a", -1.0]] * 4] * 2}, *jobs[1:]],
        lambda jobs: [{**jobs[0], "seconds": -1.0}, *jobs[1:]],
        lambda jobs: [{**jobs[0], "greedy": [{"text": 3, "finished": "stop"}] * 2}, *jobs[1:]],
        lambda jobs: [{**jobs[0], "greedy": [{"text": "", "finished": "\x1b[2J"}] * 2}, *jobs[1:]],
        lambda jobs: [{**jobs[0], "greedy": [{"text": "a\ud800", "finished": "stop"}] * 2}, *jobs[1:]],
        lambda jobs: [*jobs[:3], {**jobs[3], "refused": [[True], [True]]}],
        lambda jobs: {"jobs": jobs},
    ],
)
def test_the_parent_believes_no_answer_unchecked(
    tmp_path: Path, request_: CollectRequest, result: CollectResult, bend: Any
) -> None:
    """A child that a fork took over can leave anything."""
    assert result.collected
    jobs = json.loads((request_.scratch / ANSWERS).read_bytes())
    place = tmp_path / ANSWERS
    place.write_text(json.dumps(jobs))
    assert len(load_answers(place, request_)) == 4
    place.write_text(json.dumps(bend(jobs)))
    with pytest.raises(EvaluationFailedError):
        load_answers(place, request_)


def test_a_job_of_no_model_is_refused(request_: CollectRequest) -> None:
    """Before a child is started."""
    with pytest.raises(ValueError, match="models"):
        collect(replace(request_, models=()))
