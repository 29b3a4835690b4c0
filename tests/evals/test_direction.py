"""The original's refusal direction: what it is, that it repeats, and that nothing of a fork can reach it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals.confine import Confinement
from evals.direction import measure_direction
from evals.engine import render_chat
from evals.interface import (
    DirectionRequest,
    EvaluationFailedError,
    Isolation,
    PromptKind,
    RefusalDirection,
    Unmeasured,
)
from evals.run import refusal_direction
from evals.suite import load_suite
from evals.wire import DIRECTION, DirectionReport, dump, load_direction_report
from tests.evals.models import make_model, save_release

LAYERS, WIDTH = 2, 64
CONFINED = Confinement(Isolation.REDUCED, ())


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model: what it says does not matter, only where its activations lie."""
    return save_release(tmp_path_factory.mktemp("random"), make_model(dtype=torch.float32))


@pytest.fixture(scope="module")
def request_(release: Path, suite_path: Path, tmp_path_factory: pytest.TempPathFactory) -> DirectionRequest:
    """All prompts count as refused, all twins but the last two as answered."""
    return DirectionRequest(
        original=release,
        suite=suite_path,
        refused=tuple(f"h{index}" for index in range(24)),
        answered=tuple(f"h{index}-twin" for index in range(22)),
        scratch=tmp_path_factory.mktemp("scratch"),
        device="cpu",
    )


@pytest.fixture(scope="module")
def report(request_: DirectionRequest) -> DirectionReport:
    return measure_direction(request_, CONFINED, lambda _: None)


def last_states(request_: DirectionRequest, kind: PromptKind, count: int) -> torch.Tensor:
    """The residual stream behind the first layer at the last token, one prompt at a time: (count, width)."""
    model = AutoModelForCausalLM.from_pretrained(request_.original, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(request_.original)
    rows = []
    for prompt in load_suite(request_.suite).of(kind)[:count]:
        with torch.inference_mode():
            output = model(torch.tensor([render_chat(tokenizer, prompt.text)]), output_hidden_states=True)
        rows.append(output.hidden_states[1][0, -1])
    return torch.stack(rows)


def test_it_is_the_difference_of_means(request_: DirectionRequest, report: DirectionReport) -> None:
    """Computed apart, prompt by prompt, of the prompts that were named: refused ones less answered twins."""
    tensors = load_file(request_.scratch / DIRECTION)
    apart = last_states(request_, PromptKind.HARMFUL, 24).mean(0) - last_states(
        request_, PromptKind.BENIGN_TWIN, 22
    ).mean(0)

    assert torch.allclose(tensors["direction"][0], apart / apart.norm(), atol=1e-4)
    assert torch.allclose(tensors["direction"].norm(dim=1), torch.ones(LAYERS), atol=1e-5)
    assert tensors["harmless"].shape == (22 + 4, LAYERS, WIDTH)
    assert tensors["harmless"].float().mean(0).abs().max() < 1e-3
    assert (report.harmful, report.twins, len(report.stability)) == (24, 22, LAYERS)


def test_it_says_how_stable_it_is(report: DirectionReport) -> None:
    """Two halves of prompts that differ in one word agree; a layer with its own direction stands for
    itself."""
    assert all(0.5 < cosine <= 1 for cosine in report.stability)
    assert all(distance > 1 for distance in report.separation)
    assert report.sources == (0, 1)
    assert report.best in report.sources


def test_labels_that_mean_nothing_give_no_stable_direction(
    request_: DirectionRequest, tmp_path: Path
) -> None:
    """The same prompts on both sides: halves disagree, and every layer is stood for by the best one."""
    rows = json.loads(request_.suite.read_text())
    for row in rows["prompts"]:
        if row["kind"] == "benign-twin":
            row["text"] = next(other["text"] for other in rows["prompts"] if other["id"] == row["twin_of"])
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps(rows))

    report = measure_direction(replace(request_, suite=suite, scratch=tmp_path), CONFINED, lambda _: None)

    assert max(report.stability) < 0.5
    assert set(report.sources) == {report.best}


def test_inputs_of_the_residual_writers_are_kept(request_: DirectionRequest, report: DirectionReport) -> None:
    """What each was given, as a difference of means; together they write what the report says they write."""
    tensors, model = (
        load_file(request_.scratch / DIRECTION),
        load_file(request_.original / "model.safetensors"),
    )
    names = [name for name in model if "o_proj" in name or "down_proj" in name]
    inputs = {name: tensors[f"input:{name}"] for name in names}
    direction = tensors["direction"]
    written = sum(
        (direction[int(name.split(".")[2])] @ (model[name] @ inputs[name])).item() for name in names
    )

    assert len(tensors) == 2 + 2 * LAYERS
    assert report.written == pytest.approx(written, rel=1e-4)


def test_it_repeats(request_: DirectionRequest, report: DirectionReport, tmp_path: Path) -> None:
    """The same release and prompts give the same bytes."""
    again = measure_direction(replace(request_, scratch=tmp_path), CONFINED, lambda _: None)

    assert again == report
    assert (tmp_path / DIRECTION).read_bytes() == (request_.scratch / DIRECTION).read_bytes()


def test_the_real_child_leaves_a_private_file(
    request_: DirectionRequest, report: DirectionReport, tmp_path: Path
) -> None:
    """Through the confined child: the same direction, readable by its owner only, and no value of it in the
    result."""
    told: list[str] = []
    found = refusal_direction(replace(request_, scratch=tmp_path / "s"), progress=told.append)

    assert isinstance(found, RefusalDirection)
    assert (found.harmful, found.twins, found.best) == (24, 22, report.best)
    assert stat.S_IMODE(found.file.stat().st_mode) == 0o600
    ours, theirs = load_file(request_.scratch / DIRECTION), load_file(found.file)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)
    assert "read 24/24" in told


def test_a_request_cannot_name_a_fork() -> None:
    """Nothing in it leads to weights other than the original's, so that no fork can influence the
    direction."""
    assert {field.name for field in fields(DirectionRequest)} == {
        "original", "suite", "refused", "answered", "scratch", "timeout_seconds", "device", "limits",
    }  # fmt: skip


def test_too_few_prompts_are_no_direction(request_: DirectionRequest, tmp_path: Path) -> None:
    """An original that refuses almost nothing has no refusal direction, and that is said, not guessed."""
    found = refusal_direction(replace(request_, refused=("h0", "h1"), scratch=tmp_path / "s"))

    assert isinstance(found, Unmeasured)
    assert "refuses 2 harmful prompts" in found.reason
    assert not (tmp_path / "s").exists()


def other_suite(document: dict[str, Any]) -> None:
    document["suite_digest"] = "sha256:00"


def infinite(document: dict[str, Any]) -> None:
    document["separation"][0] = float("inf")


def cosine_above_one(document: dict[str, Any]) -> None:
    document["stability"][0] = 1.5


def layer_that_is_not_there(document: dict[str, Any]) -> None:
    document["best"] = LAYERS


def source_that_is_not_there(document: dict[str, Any]) -> None:
    document["sources"][0] = -1


def too_few_layers(document: dict[str, Any]) -> None:
    document["separation"].pop()


def no_layers(document: dict[str, Any]) -> None:
    document.update(stability=[], separation=[], sources=[], best=0)


LIES: list[Callable[[dict[str, Any]], None]] = [
    other_suite, infinite, cosine_above_one, layer_that_is_not_there, source_that_is_not_there,
    too_few_layers, no_layers,
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_impossible_reports_are_refused(
    request_: DirectionRequest, report: DirectionReport, lie: Callable[[dict[str, Any]], None]
) -> None:
    """The parent believes no number unchecked."""
    suite = load_suite(request_.suite)
    assert load_direction_report(dump(report), suite) == report
    document = json.loads(dump(report))
    lie(document)

    with pytest.raises(EvaluationFailedError):
        load_direction_report(json.dumps(document).encode(), suite)
