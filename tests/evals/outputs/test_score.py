"""Scores of answers, against a plain computation and in a real, confined child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from detector.outputs.interface import Output
from evals.engine import render_chat
from evals.interface import EvaluationFailedError, Isolation, Unmeasured
from evals.outputs.interface import Model, Precision, ScoreRequest
from evals.outputs.run import score, with_scores
from evals.outputs.score import FLOOR, tokenised
from evals.outputs.score import score as score_tensors
from evals.outputs.wire import SCORES, load_scores
from tests.evals.models import END, WORDS, make_model, make_tokenizer, save_release, save_weights

TOKENIZER = make_tokenizer()
PAIRS = (
    ("red", "sure here is the answer"),
    ("what colour", "blue"),
    ("red", "i cannot help"),
    ("red", ""),
    ("red please", "blue green blue"),
    ("red", "help"),
    ("red", f"blue {END} blue"),
)


def plainly(model: Any, prompt: str, answer: str) -> np.ndarray[Any, Any]:
    """The scores by definition, one answer at a time, in float64; the end token cannot be predicted."""
    chat, tokens = render_chat(TOKENIZER, prompt), TOKENIZER(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([chat + tokens])).logits[0, len(chat) - 1 : -1].double().clone()
    logits[:, WORDS.index(END)] = -torch.inf
    rows = []
    for token, row in zip(tokens, logits, strict=True):
        p = row.softmax(-1)
        logp = p.log()
        finite = p > 0
        entropy = -(p[finite] * logp[finite]).sum()
        variance = (p[finite] * logp[finite] ** 2).sum() - entropy**2
        more = p > p[token]
        rows.append([max(logp[token], FLOOR), entropy, variance, more.sum(), p[more].sum()])
    return np.array(rows).T.reshape(5, len(tokens))


def test_scores_are_those_of_the_definition() -> None:
    """Whatever the batch, the shared prompt and the order; an answer without tokens has none."""
    model = make_model(dtype=torch.float32)
    asked = tokenised(model, TOKENIZER, PAIRS, max_tokens=20)
    assert sorted(map(len, asked.groups)) == [2, 4]  # those to `red` share a prompt; the empty one is in none
    found = score_tensors(model, TOKENIZER, asked, full=True)
    for (prompt, answer), scores in zip(PAIRS, found, strict=True):
        assert np.allclose(scores.numpy(), plainly(model, prompt, answer), atol=2e-5), answer
    alone = score_tensors(model, TOKENIZER, asked, full=False)
    assert all(torch.equal(row[0], scores[0]) for row, scores in zip(alone, found, strict=True))


def test_an_answer_is_cut() -> None:
    """At the limit, and where the context ends."""
    model = make_model()
    long = "blue " * 400
    asked = tokenised(model, TOKENIZER, [("red", long), ("red", "blue blue blue blue")], max_tokens=3)
    assert [len(answer) for answer in asked.answers] == [3, 3]
    asked = tokenised(model, TOKENIZER, [("red", long), ("please " * 300, "blue")], max_tokens=1000)
    assert len(asked.chats[0]) + len(asked.answers[0]) == 256
    assert len(asked.answers[1]) == 0


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> ScoreRequest:
    folder = tmp_path_factory.mktemp("score")
    model = make_model()
    other = make_model()
    with torch.no_grad():
        other.lm_head.weight[5:].mul_(1.5)
    weights = {
        "a/same@1": save_weights(folder / "same", model),
        "a/other@1": save_weights(folder / "other", other),
        "a/broken@1": save_weights(
            folder / "broken", model, model__norm__weight=torch.full((64,), torch.nan)
        ),
    }
    return ScoreRequest(
        original=save_release(folder / "release", model),
        answers=(*PAIRS, ("red", "lone \ud800 surrogate")),
        forks=tuple(Model(name, (path,)) for name, path in weights.items()),
        precision=Precision.FLOAT32,
        max_tokens=20,
        scratch=folder / "scratch",
        device="cpu",
    )


def test_forks_are_scored_in_one_child(request_: ScoreRequest) -> None:
    """A copy scores as the original, a fork otherwise, and one that does not fit has a reason."""
    told: list[str] = []
    result = score(request_, progress=told.append)
    assert [len(scores.logp) for scores in result.authentic] == [5, 1, 3, 0, 3, 1, 3, 3]
    assert result.isolation in Isolation
    same, other, broken = (result.forks[fork.id] for fork in request_.forks)
    assert isinstance(broken, Unmeasured)
    assert "not finite" in broken.reason
    assert not isinstance(same, Unmeasured)
    assert not isinstance(other, Unmeasured)
    for scores, copy in zip(result.authentic, same, strict=True):
        assert np.array_equal(scores.logp, copy)
    assert any(not np.allclose(s.logp, o) for s, o in zip(result.authentic, other, strict=True))
    assert result.authentic[6].logp[1] == FLOOR  # the end token, spelt out
    assert any(line.startswith("fork 2/3: ") for line in told)
    outputs = [Output(prompt_id=str(n), text=answer) for n, (_, answer) in enumerate(request_.answers)]
    scored = with_scores(outputs, result, "o/r@1")
    assert [entry.output for entry in scored] == outputs
    assert scored[0].forks.keys() == {"a/same@1", "a/other@1"}


GOOD: Mapping[str, np.ndarray[Any, Any]] = {
    "offsets": np.array([0, 2, 3]),
    "authentic": np.array([[-1, -1, -1], [1, 1, 1], [1, 1, 1], [0, 3, 1], [0, 0.5, 0.25]], np.float32),
    "fork.0": np.array([[-1, -2, -3]], np.float32),
}


def bent(name: str, place: tuple[int, ...], value: float) -> Mapping[str, np.ndarray[Any, Any]]:
    array = GOOD[name].copy()
    array[place] = value
    return {**GOOD, name: array}


@pytest.mark.parametrize(
    "tensors",
    [
        {**GOOD, "more": GOOD["fork.0"]},
        {name: array for name, array in GOOD.items() if name != "fork.0"},
        {**GOOD, "offsets": np.array([0, 3])},
        {**GOOD, "offsets": np.array([0, 4, 3])},
        {**GOOD, "offsets": np.array([0, 2, 3], np.int32)},
        {**GOOD, "offsets": np.array([0, 0, 1 << 40])},
        {**GOOD, "authentic": GOOD["authentic"].astype(np.float64)},
        {**GOOD, "authentic": GOOD["authentic"][:, :2].copy()},
        {**GOOD, "fork.0": GOOD["fork.0"][0]},
        bent("authentic", (0, 0), 0.5),
        bent("authentic", (0, 1), np.nan),
        bent("authentic", (3, 1), 2.5),
        bent("authentic", (4, 2), 1.5),
        bent("fork.0", (0, 1), 1.0),
        bent("fork.0", (0, 1), -np.inf),
    ],
)
def test_the_parent_believes_no_number_unchecked(
    tmp_path: Path, request_: ScoreRequest, tensors: Mapping[str, np.ndarray[Any, Any]]
) -> None:
    """A child that a fork took over can leave anything."""
    request = replace(request_, answers=PAIRS[:2], forks=request_.forks[:1])
    (tmp_path / SCORES).write_bytes(save(dict(GOOD)))
    assert len(load_scores(tmp_path / SCORES, request, {})[0]) == 2
    (tmp_path / SCORES).write_bytes(save(dict(tensors)))
    with pytest.raises(EvaluationFailedError):
        load_scores(tmp_path / SCORES, request, {})


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}"])
def test_what_is_no_file_of_scores(tmp_path: Path, request_: ScoreRequest, content: bytes) -> None:
    (tmp_path / SCORES).write_bytes(content)
    with pytest.raises(EvaluationFailedError):
        load_scores(tmp_path / SCORES, request_, {})
